//! A penalty that grows before the length limit is reached.

use super::LengthUnit;
use crate::reward::setters::with_name;
use crate::reward::{Reward, RewardError, RewardInput};
use crate::{Error, Result};

/// The soft overlong punishment of DAPO: 0 up to a length, then a linear fall to -1.
///
/// ```text
///           0                     n <= M - C
/// reward =  (M - C - n) / C       M - C < n <= M
///           -1                    n > M
/// ```
///
/// `n` is the length, `M` the maximum length, and `C` the length over which the penalty grows; C =
/// 0 is a step at M. The paper uses M = 20480 and C = 4096 tokens, and adds the penalty to an
/// accuracy reward of 1 or -1. A completion that is cut off has the length of the generation limit,
/// so with M above that limit the penalty never reaches -1.
///
/// [`with_factor`](Self::with_factor) selects verl's form, which continues to fall beyond M and is
/// scaled by a factor:
///
/// ```text
/// reward = min(-(n - (M - C)) / C * factor, 0)
/// ```
///
/// Sources: Yu et al., DAPO (arXiv 2503.14476), equation 13; TRL and open-r1,
/// `get_soft_overlong_punishment`; verl, `DAPORewardManager`.
///
/// ```
/// use rlvr::reward::{Reward, RewardInput, SoftOverlongReward};
///
/// let input = |tokens| RewardInput::new("", "", "").with_tokens(vec![7; tokens]);
/// let overlong = SoftOverlongReward::new(100, 20)?;
/// let score = |tokens| overlong.score(&input(tokens)).unwrap().unwrap();
/// assert_eq!([80, 90, 100, 101].map(score), [0.0, -0.5, -1.0, -1.0]);
///
/// let verl = SoftOverlongReward::new(100, 20)?.with_factor(2.0);
/// let score = |tokens| verl.score(&input(tokens)).unwrap().unwrap();
/// assert_eq!([80, 90, 100, 110].map(score), [0.0, -1.0, -2.0, -3.0]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SoftOverlongReward {
    name: String,
    max_length: usize,
    cache: usize,
    unit: LengthUnit,
    /// The factor of verl's form.
    factor: Option<f64>,
}

impl SoftOverlongReward {
    /// Creates the reward `overlong`, in tokens, with M = `max_length` and C = `cache`.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `max_length` is 0 or `cache` is greater than `max_length`.
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

    with_name!();

    /// Sets the unit in which lengths are counted. Default: tokens.
    #[must_use]
    pub fn with_unit(mut self, unit: LengthUnit) -> Self {
        self.unit = unit;
        self
    }

    /// Selects verl's form with this factor, see above: a finite number of at least 0. `cache` must
    /// not be 0 then.
    #[must_use]
    pub fn with_factor(mut self, factor: f64) -> Self {
        self.factor = Some(factor);
        self
    }

    fn value(&self, length: usize) -> f64 {
        let free = self.max_length - self.cache;
        if length <= free {
            return 0.0;
        }
        let fall = -((length - free) as f64 / self.cache as f64);
        match self.factor {
            Some(factor) => fall * factor + 0.0,
            None if length > self.max_length => -1.0,
            None => fall,
        }
    }
}

impl Reward for SoftOverlongReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        Ok(Some(self.value(self.unit.of(input))))
    }

    fn validate(&self) -> Result<()> {
        let Some(factor) = self.factor else {
            return Ok(());
        };
        if !(factor.is_finite() && factor >= 0.0) {
            let expected = "a finite number, at least 0";
            return Err(Error::config("factor", factor, expected));
        }
        if self.cache == 0 {
            let expected = "1 or more with a factor";
            return Err(Error::config("cache", 0, expected));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_at_the_edges() {
        let step = SoftOverlongReward::new(10, 0).unwrap();
        assert_eq!(
            [0, 10, 11, usize::MAX].map(|n| step.value(n)),
            [0.0, 0.0, -1.0, -1.0]
        );
        let all = SoftOverlongReward::new(10, 10).unwrap();
        assert_eq!(
            [0, 1, 10, 11].map(|n| all.value(n)),
            [0.0, -0.1, -1.0, -1.0]
        );
        let none = all.with_factor(0.0);
        assert!(none.value(11).is_sign_positive());
    }

    #[test]
    fn lengths_can_be_counted_in_characters() {
        let reward = SoftOverlongReward::new(4, 2)
            .unwrap()
            .with_name("long")
            .with_unit(LengthUnit::Characters);
        assert_eq!(reward.name(), "long");
        let input = RewardInput::new("", "", "äöü");
        assert_eq!(reward.score(&input).unwrap(), Some(-0.5));
    }

    #[test]
    fn invalid_lengths_are_rejected() {
        let start = |result: Result<SoftOverlongReward>, start: &str| {
            let text = result.unwrap_err().to_string();
            assert!(text.starts_with(start), "{text}");
        };
        start(SoftOverlongReward::new(0, 0), "invalid `max_length`: 0");
        start(SoftOverlongReward::new(5, 6), "invalid `cache`: 6");
        let of = |cache| SoftOverlongReward::new(5, cache).unwrap();
        for (cache, factor, start) in [
            (0, 1.0, "invalid `cache`: 0"),
            (1, -1.0, "invalid `factor`: -1"),
            (1, f64::NAN, "invalid `factor`: NaN"),
        ] {
            let reward = of(cache).with_factor(factor);
            let text = reward.validate().unwrap_err().to_string();
            assert!(text.starts_with(start), "{text}");
        }
    }
}
