//! What the scorers read from a problem.

use serde::de::DeserializeOwned;

use super::super::RewardError;
use crate::types::Problem;

/// `metadata[key]`, which is `expected`.
pub(super) fn read<T: DeserializeOwned>(
    problem: &Problem,
    key: &str,
    expected: &str,
) -> Result<T, RewardError> {
    let Some(value) = problem.metadata.get(key) else {
        return Err(format!("metadata `{key}` is missing; expected {expected}").into());
    };
    T::deserialize(value)
        .map_err(|_| format!("metadata `{key}` is {value}; expected {expected}").into())
}

/// `metadata[key]`, which is a text.
pub(super) fn text(problem: &Problem, key: &str) -> Result<String, RewardError> {
    read(problem, key, "a text")
}

/// The reference answer, which is not empty.
pub(super) fn reference(problem: &Problem) -> Result<&str, RewardError> {
    match problem.answer.is_empty() {
        true => Err("the reference `answer` is empty; expected the right answer".into()),
        false => Ok(&problem.answer),
    }
}
