//! Access to the parts of a problem that the scorers need.

use serde::de::DeserializeOwned;

use super::super::RewardError;
use crate::types::Problem;

/// Returns `metadata[key]`; `expected` describes the type in the error message.
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

/// Returns `metadata[key]`, a string.
pub(super) fn text(problem: &Problem, key: &str) -> Result<String, RewardError> {
    read(problem, key, "a string")
}

/// Returns the reference answer, or an error if it is empty.
pub(super) fn reference(problem: &Problem) -> Result<&str, RewardError> {
    match problem.answer.is_empty() {
        true => Err("the reference `answer` is empty; expected the right answer".into()),
        false => Ok(&problem.answer),
    }
}
