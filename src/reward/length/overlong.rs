//! A penalty that grows before the length limit is reached.

use super::LengthUnit;
use crate::reward::{Reward, RewardError, RewardInput};
use crate::{Error, Result};

/// DAPO's soft overlong punishment: nothing up to a length, then a straight fall to -1.
///
/// ```text
///           0                     n <= M - C
/// reward =  (M - C - n) / C       M - C < n <= M
///           -1                    n > M
/// ```
///
/// `n` is the length, `M` the longest that is wanted, `C` the length over which the punishment grows; C = 0 is a step at M.
/// The paper has M = 20480 and C = 4096 tokens and adds it to an accuracy reward of 1 and -1. A completion that the
/// generation limit cut off is as long as the limit: with M above it the punishment is never whole.
///
/// [`unbounded`](Self::unbounded) is verl's form, which goes on falling beyond M and has a factor:
///
/// ```text
/// reward = min(-(n - (M - C)) / C * factor, 0)
/// ```
///
/// Sources: Yu et al., DAPO (arXiv 2503.14476), equation 13; TRL and open-r1, `get_soft_overlong_punishment`; verl,
/// `DAPORewardManager`.
///
/// ```
/// use rlvr::reward::{Reward, RewardInput, SoftOverlongReward};
///
/// let overlong = SoftOverlongReward::new(100, 20)?;
/// let score = |tokens| overlong.score(&RewardInput { tokens, ..RewardInput::new("", "", "") }).unwrap().unwrap();
/// assert_eq!([80, 90, 100, 101].map(score), [0.0, -0.5, -1.0, -1.0]);
///
/// let verl = SoftOverlongReward::new(100, 20)?.unbounded(2.0)?;
/// let score = |tokens| verl.score(&RewardInput { tokens, ..RewardInput::new("", "", "") }).unwrap().unwrap();
/// assert_eq!([80, 90, 100, 110].map(score), [0.0, -1.0, -2.0, -3.0]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SoftOverlongReward {
    name: String,
    max_length: usize,
    cache: usize,
    unit: LengthUnit,
    /// verl's form.
    factor: Option<f64>,
}

impl SoftOverlongReward {
    /// The reward called `overlong`, in tokens: `max_length` is M, `cache` is C.
    ///
    /// # Errors
    /// [`Error::Config`] if M is 0 or C is greater than M.
    pub fn new(max_length: usize, cache: usize) -> Result<Self> {
        if max_length == 0 {
            return Err(Error::config("max_length", 0, "1 or more"));
        }
        if cache > max_length {
            let expected = format!("at most max_length = {max_length}");
            return Err(Error::config("cache", cache, expected));
        }
        Ok(Self {
            name: "overlong".into(),
            max_length,
            cache,
            unit: LengthUnit::default(),
            factor: None,
        })
    }

    /// The same reward under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same reward with lengths counted in something else.
    #[must_use]
    pub fn unit(mut self, unit: LengthUnit) -> Self {
        self.unit = unit;
        self
    }

    /// verl's form, see above.
    ///
    /// # Errors
    /// [`Error::Config`] if the factor is not a finite number of at least 0, or C is 0.
    pub fn unbounded(mut self, factor: f64) -> Result<Self> {
        if !(factor.is_finite() && factor >= 0.0) {
            return Err(Error::config(
                "factor",
                factor,
                "a finite number, at least 0",
            ));
        }
        if self.cache == 0 {
            let expected = "1 or more where the punishment is unbounded";
            return Err(Error::config("cache", 0, expected));
        }
        self.factor = Some(factor);
        Ok(self)
    }
}

impl Reward for SoftOverlongReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let length = self.unit.of(input);
        let free = self.max_length - self.cache;
        if length <= free {
            return Ok(Some(0.0));
        }
        let fall = -((length - free) as f64 / self.cache as f64);
        Ok(Some(match self.factor {
            Some(factor) => fall * factor + 0.0,
            None if length > self.max_length => -1.0,
            None => fall,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(reward: &SoftOverlongReward, tokens: usize) -> f64 {
        let input = RewardInput {
            tokens,
            ..RewardInput::new("", "", "")
        };
        reward.score(&input).unwrap().unwrap()
    }

    #[test]
    fn the_edges() {
        let step = SoftOverlongReward::new(10, 0).unwrap();
        assert_eq!(
            [0, 10, 11, usize::MAX].map(|n| score(&step, n)),
            [0.0, 0.0, -1.0, -1.0]
        );
        let all = SoftOverlongReward::new(10, 10).unwrap();
        assert_eq!(
            [0, 1, 10, 11].map(|n| score(&all, n)),
            [0.0, -0.1, -1.0, -1.0]
        );
        let none = all.unbounded(0.0).unwrap();
        assert!(score(&none, 11).is_sign_positive());
    }

    #[test]
    fn characters() {
        let reward = SoftOverlongReward::new(4, 2)
            .unwrap()
            .named("long")
            .unit(LengthUnit::Characters);
        assert_eq!(reward.name(), "long");
        let input = RewardInput::new("", "", "äöü");
        assert_eq!(reward.score(&input).unwrap(), Some(-0.5));
    }

    #[test]
    fn meaningless_lengths_are_refused() {
        let start = |result: Result<SoftOverlongReward>, start: &str| {
            let text = result.unwrap_err().to_string();
            assert!(text.starts_with(start), "{text}");
        };
        start(SoftOverlongReward::new(0, 0), "invalid `max_length`: 0");
        start(SoftOverlongReward::new(5, 6), "invalid `cache`: 6");
        let of = |cache| SoftOverlongReward::new(5, cache).unwrap();
        start(of(0).unbounded(1.0), "invalid `cache`: 0");
        start(of(1).unbounded(-1.0), "invalid `factor`: -1");
        start(of(1).unbounded(f64::NAN), "invalid `factor`: NaN");
    }
}
