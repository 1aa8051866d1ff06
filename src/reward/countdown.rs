//! The reward for the solution of a countdown problem.

use serde_json::Value;

use super::setters::{with_extract, with_name};
use super::{Extractor, Reward, RewardError, RewardInput, Rule};
use crate::prompt::evaluate_expression;

/// Scores 1 if the answer is an expression that uses each number exactly once and equals the
/// target, else 0.
///
/// The numbers are `metadata["numbers"]`, a list of non-negative integers; each must be used as
/// often as it is listed. The target is `metadata["target"]`, an integer. The problems of
/// [`Countdown`](crate::prompt::Countdown) have both. The reference answer is not used, since a
/// problem has many solutions.
///
/// An expression consists of non-negative integers, `+ - * /` (also written `×`, `÷` and `−`),
/// unary minus and parentheses, in at most 1000 bytes. Arithmetic is exact: `7/2` is not 3. An
/// equation such as `3+5=8` is not an expression.
///
/// The name of the reward is `accuracy`, so that the metric has the same name for every task.
///
/// ```
/// use rlvr::reward::{CountdownReward, Reward, RewardInput};
///
/// let countdown = CountdownReward::new();
/// let score = |completion| {
///     let input = RewardInput::new("3 5 7=15:", "3+5+7", completion)
///         .with_metadata("numbers", vec![3, 5, 7])
///         .with_metadata("target", 15);
///     countdown.score(&input).unwrap().unwrap()
/// };
/// assert_eq!(score("<answer>7 + (5 + 3)</answer>"), 1.0);
/// assert_eq!(score("<answer>3*5</answer>"), 0.0); // 7 is not used
/// assert_eq!(score("<answer>15</answer>"), 0.0);
/// ```
///
/// # Errors
/// [`score`](Reward::score) returns an error if `numbers` or `target` is missing or has another
/// type.
#[derive(Clone, Debug)]
pub struct CountdownReward {
    name: String,
    extractor: Extractor,
}

impl Default for CountdownReward {
    fn default() -> Self {
        Self {
            name: "accuracy".into(),
            extractor: Rule::AnswerTag.into(),
        }
    }
}

impl CountdownReward {
    /// Creates the reward `accuracy` with [`Rule::AnswerTag`] and the default
    /// [`Tags`](super::Tags).
    pub fn new() -> Self {
        Self::default()
    }

    with_name!();
    with_extract!();
}

impl Reward for CountdownReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        // First the problem: invalid metadata is an error regardless of the completion.
        let mut numbers = numbers(input.problem.metadata.get("numbers"))?;
        let target = target(input.problem.metadata.get("target"))?;
        let solved = self
            .extractor
            .extract(input.completion())
            .and_then(|answer| evaluate_expression(answer.all()).ok())
            .is_some_and(|mut found| {
                numbers.sort_unstable();
                found.numbers.sort_unstable();
                found.numbers == numbers && found.value.to_integer() == Some(target)
            });
        Ok(Some(if solved { 1.0 } else { 0.0 }))
    }
}

fn numbers(value: Option<&Value>) -> Result<Vec<u64>, RewardError> {
    let list = value
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty());
    list.and_then(|list| list.iter().map(Value::as_u64).collect())
        .ok_or_else(|| invalid("numbers", value, "a list of non-negative integers"))
}

fn target(value: Option<&Value>) -> Result<i128, RewardError> {
    let integer = value.and_then(|value| {
        let signed = value.as_i64().map(i128::from);
        signed.or_else(|| value.as_u64().map(i128::from))
    });
    integer.ok_or_else(|| invalid("target", value, "an integer"))
}

fn invalid(field: &str, value: Option<&Value>, expected: &str) -> RewardError {
    match value {
        Some(value) => format!("metadata `{field}` is {value}; expected {expected}").into(),
        None => format!("metadata `{field}` is missing; expected {expected}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn input(numbers: Value, target: Value, completion: &str) -> RewardInput {
        RewardInput::new("", "", completion)
            .with_metadata("numbers", numbers)
            .with_metadata("target", target)
    }

    #[test]
    fn every_number_is_used_once_and_the_target_is_exact() {
        let whole = CountdownReward::new().with_extract(Rule::Whole);
        for (numbers, target, completion, expected) in [
            (json!([3, 5, 7]), json!(15), "3+5+7", 1.0),
            (json!([3, 5, 7]), json!(15), " 7+3 + 5\n", 1.0),
            (json!([3, 5, 7]), json!(15), "3+5", 0.0),
            (json!([3, 5, 7]), json!(15), "3*5*7/7", 0.0),
            (json!([3, 5, 7]), json!(15), "3+5+7+0", 0.0),
            (json!([3, 5, 7]), json!(15), "3+5+7=15", 0.0),
            (json!([3, 5, 7]), json!(15), "35-7", 0.0),
            (json!([3, 5, 7]), json!(15), "", 0.0),
            // A number that is listed twice must be used twice.
            (json!([2, 2, 3]), json!(7), "2+2+3", 1.0),
            (json!([2, 2, 3]), json!(7), "2*2+3", 1.0),
            (json!([2, 2, 3]), json!(7), "2+3+3", 0.0),
            (json!([2, 3]), json!(5), "2+3+2-2", 0.0),
            // Exact arithmetic: thirds can cancel, and close to the target is not enough.
            (json!([8, 8, 3, 3]), json!(24), "8/(3-8/3)", 1.0),
            (json!([7, 2]), json!(3), "7/2", 0.0),
            (json!([3, 5]), json!(-2), "3-5", 1.0),
            (json!([3, 5]), json!(2), "3-5", 0.0),
            (json!([5, 5]), json!(0), "5/(5-5)", 0.0),
        ] {
            let input = input(numbers, target, completion);
            assert_eq!(whole.score(&input).unwrap(), Some(expected), "{input:?}");
        }
    }

    #[test]
    fn the_expression_is_read_from_the_answer_tag() {
        let score = |completion: &str| {
            let input = input(json!([3, 5]), json!(8), completion);
            CountdownReward::new().score(&input).unwrap().unwrap()
        };
        assert_eq!(score("<think>3*5=15</think><answer>3+5</answer>"), 1.0);
        assert_eq!(score("3+5"), 0.0);
        assert_eq!(score("<think><answer>3+5</answer>"), 0.0);
        assert_eq!(CountdownReward::new().name(), "accuracy");
        assert_eq!(
            CountdownReward::new().with_name("countdown").name(),
            "countdown"
        );
    }

    #[test]
    fn invalid_metadata_is_named_in_the_error() {
        let message = |input: RewardInput| {
            let error = CountdownReward::new().score(&input).unwrap_err();
            error.to_string()
        };
        let empty = RewardInput::new("", "", "");
        assert!(message(empty.clone()).starts_with("metadata `numbers` is missing"));
        let no_target = empty.with_metadata("numbers", vec![1]);
        assert!(message(no_target).starts_with("metadata `target` is missing"));
        for numbers in [
            json!("3 5"),
            json!([]),
            json!([1.5]),
            json!([-1]),
            json!(null),
        ] {
            let start = format!("metadata `numbers` is {numbers}; expected");
            let message = message(input(numbers, json!(1), ""));
            assert!(message.starts_with(&start), "{message}");
        }
        let message = message(input(json!([1]), json!(1.5), ""));
        assert!(message.starts_with("metadata `target` is 1.5; expected an integer"));
    }
}
