//! A problem: a prompt and the reference answer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The key of the domain in the metadata.
const DOMAIN: &str = "domain";

/// A prompt with a reference answer and metadata for rewards.
///
/// ```
/// use rlvr::prompt::Problem;
///
/// let problem = Problem::new("37+48=", "85").with_metadata("task", "arithmetic");
/// assert_eq!(problem.metadata["task"], "arithmetic");
///
/// // `metadata` is optional; unknown fields are an error.
/// let read: Problem =
///     serde_json::from_str(r#"{"prompt": "1+1=", "answer": "2"}"#).unwrap();
/// assert_eq!(read, Problem::new("1+1=", "2"));
/// assert!(
///     serde_json::from_str::<Problem>(
///         r#"{"prompt": "", "answer": "", "anwser": ""}"#
///     )
///     .is_err()
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The text that the policy continues.
    pub prompt: String,
    /// The text of the reference answer; the reward decides which answers are equal to it.
    pub answer: String,
    /// Other data by name, such as the task, the tests of a program or the numbers of a puzzle.
    /// Default: empty.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

impl Problem {
    /// Creates a problem without metadata.
    pub fn new(prompt: impl Into<String>, answer: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            answer: answer.into(),
            metadata: Map::new(),
        }
    }

    /// Sets `metadata[key]` to `value`.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the domain, such as `math` or `code`, in `metadata["domain"]`.
    #[must_use]
    pub fn with_domain(self, domain: impl Into<String>) -> Self {
        self.with_metadata(DOMAIN, domain.into())
    }

    /// Returns `metadata["domain"]` if it is a string. Metrics and evaluations are broken down by
    /// domain, and rewards can be limited to some domains.
    pub fn domain(&self) -> Option<&str> {
        self.metadata.get(DOMAIN)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_round_trip_keeps_nested_metadata() {
        let problem = Problem::new("3 5=8:", "3+5")
            .with_metadata("numbers", vec![3, 5])
            .with_metadata("weight", 0.1);
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
        assert_eq!(problem.metadata["numbers"][1], 5);
    }

    #[test]
    fn with_metadata_replaces_an_existing_entry() {
        let problem = Problem::new("a", "b")
            .with_metadata("k", 1)
            .with_metadata("k", 2);
        assert_eq!(problem.metadata.len(), 1);
        assert_eq!(problem.metadata["k"], 2);
    }
}
