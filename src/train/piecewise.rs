//! Piecewise linear schedules over the steps of a run.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A piecewise linear function of the step: linear between knots `(step, value)`, constant before
/// the first and after the last.
///
/// ```text
/// f(s) = v_i + (v_{i+1} - v_i) (s - s_i) / (s_{i+1} - s_i)        for s_i <= s < s_{i+1}
/// ```
///
/// Two knots at the same step are a jump; the second value applies from that step on. Steps are
/// counted from 0: `f(s)` is the value in the step after `s` steps. It is serialized as the list of
/// its knots, `[[0, 1.0], [1300, 1.0], [1300, 0.7]]`.
///
/// ```
/// use rlvr::train::Piecewise;
///
/// let warm = Piecewise::linear([(100, 0.0), (200, 1.0)]);
/// assert_eq!([0, 150, 999].map(|step| warm.at(step)), [0.0, 0.5, 1.0]);
///
/// // DeepSeek-R1-Zero's length limit.
/// let cap = Piecewise::steps([(0, 32_768.0), (8_200, 65_536.0)]);
/// assert_eq!(
///     [8_199, 8_200].map(|step| cap.at(step)),
///     [32_768.0, 65_536.0]
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Piecewise(Vec<(u64, f64)>);

impl Piecewise {
    /// Creates a function that is linear between `knots`, whose steps must ascend.
    pub fn linear(knots: impl IntoIterator<Item = (u64, f64)>) -> Self {
        Self(knots.into_iter().collect())
    }

    /// Creates a step function: each value applies from its step until the next; the first also
    /// before its step.
    pub fn steps(values: impl IntoIterator<Item = (u64, f64)>) -> Self {
        let mut knots: Vec<(u64, f64)> = Vec::new();
        for (step, value) in values {
            knots.extend(knots.last().map(|&(_, before)| (step, before)));
            knots.push((step, value));
        }
        Self(knots)
    }

    /// Returns the value in step `step`, counted from 0; NaN if there are no knots.
    pub fn at(&self, step: u64) -> f64 {
        let after = self.0.partition_point(|&(knot, _)| knot <= step);
        let next = self.0.get(after);
        match (self.0[..after].last(), next) {
            (Some(&(from, a)), Some(&(to, b))) if a != b => {
                let share = (step - from) as f64 / (to - from) as f64;
                (a + (b - a) * share).clamp(a.min(b), a.max(b))
            }
            (Some(&(_, value)), _) | (None, Some(&(_, value))) => value,
            (None, None) => f64::NAN,
        }
    }

    /// Rejects invalid knots and values for which `allowed` is false. If the allowed values are a
    /// range, all interpolated values are then allowed too. `field` is the name in errors.
    ///
    /// # Errors
    /// Returns [`Error::Config`], which names the knot.
    pub(super) fn validate(
        &self,
        field: &str,
        expected: &str,
        allowed: impl Fn(f64) -> bool,
    ) -> Result<()> {
        if self.0.is_empty() {
            return Err(Error::config(field, "[]", "at least one [step, value]"));
        }
        for (index, &(step, value)) in self.0.iter().enumerate() {
            let knot = format!("{field}[{index}]");
            let before = |distance: usize| index.checked_sub(distance).map(|at| self.0[at].0);
            if before(1).is_some_and(|earlier| earlier > step) || before(2) == Some(step) {
                let expected = "steps in ascending order, with at most two equal ones for a jump";
                return Err(Error::config(knot, format!("step {step}"), expected));
            }
            if !(value.is_finite() && allowed(value)) {
                return Err(Error::config(knot, value, expected));
            }
        }
        Ok(())
    }

    /// Returns the steps of the knots.
    pub(super) fn knots(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|&(step, _)| step)
    }

    /// Returns the values of the knots.
    pub(super) fn values(&self) -> impl Iterator<Item = f64> {
        self.0.iter().map(|&(_, value)| value)
    }
}

/// Creates a constant function.
impl From<f64> for Piecewise {
    fn from(value: f64) -> Self {
        Self::linear([(0, value)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(knots: &[(u64, f64)]) -> String {
        let piecewise = Piecewise::linear(knots.iter().copied());
        let found = piecewise.validate("t", "a number above 0", |value| value > 0.0);
        found.unwrap_err().to_string()
    }

    #[test]
    fn values_at_between_and_outside_the_knots() {
        let up = Piecewise::linear([(10, 1.0), (20, 3.0), (20, 0.0), (30, 1.0)]);
        let found: Vec<f64> = [0, 10, 15, 19, 20, 25, 30, u64::MAX]
            .map(|step| up.at(step))
            .to_vec();
        assert_eq!(found, [1.0, 1.0, 2.0, 2.8, 0.0, 0.5, 1.0, 1.0]);
        assert_eq!(Piecewise::linear([(7, 2.5)]).at(0), 2.5);
        // A jump at the first step.
        let at_once = Piecewise::linear([(0, 9.0), (0, 4.0)]);
        assert_eq!((at_once.at(0), at_once.at(1)), (4.0, 4.0));
        let stairs = Piecewise::steps([(0, 1.0), (3, 2.0), (5, 0.5)]);
        let found: Vec<f64> = (0..7).map(|step| stairs.at(step)).collect();
        assert_eq!(found, [1.0, 1.0, 1.0, 2.0, 2.0, 0.5, 0.5]);
    }

    #[test]
    fn it_is_serialized_as_its_knots() {
        let jump = Piecewise::steps([(0, 1.0), (1300, 0.7)]);
        let text = serde_json::to_string(&jump).unwrap();
        assert_eq!(text, "[[0,1.0],[1300,1.0],[1300,0.7]]");
        assert_eq!(serde_json::from_str::<Piecewise>(&text).unwrap(), jump);
        assert!(serde_json::from_str::<Piecewise>("[[-1, 0.5]]").is_err());
    }

    #[test]
    fn invalid_knots_are_rejected_by_index() {
        assert!(refused(&[]).contains("at least one [step, value]"));
        let error = refused(&[(3, 1.0), (2, 1.0)]);
        assert!(
            error.contains("t[1]") && error.contains("step 2"),
            "{error}"
        );
        assert!(refused(&[(2, 1.0), (2, 2.0), (2, 3.0)]).contains("t[2]"));
        let error = refused(&[(0, 1.0), (5, 0.0)]);
        assert!(error.contains("t[1]") && error.contains("a number above 0"));
        assert!(refused(&[(0, f64::NAN)]).contains("NaN"));
    }

    proptest! {
        #[test]
        fn values_stay_within_the_range_of_the_knots(values in prop::collection::vec(-1e6f64..1e6, 1..6), step in 0u64..100) {
            let knots = values.iter().enumerate().map(|(i, &v)| (7 * i as u64, v));
            let value = Piecewise::linear(knots).at(step);
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!((low..=high).contains(&value));
        }
    }
}
