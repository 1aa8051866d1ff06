//! The problem: what is asked, and what verifies an answer to it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The entry of the metadata that holds the domain.
const DOMAIN: &str = "domain";

/// A question together with the answer that verifies a completion, and whatever else a reward wants to know.
///
/// ```
/// use rlvr::prompt::Problem;
///
/// let problem = Problem::new("37+48=", "85").with_metadata("task", "arithmetic");
/// assert_eq!(problem.metadata["task"], "arithmetic");
///
/// // `metadata` may be absent, an unknown field may not be there.
/// let read: Problem = serde_json::from_str(r#"{"prompt": "1+1=", "answer": "2"}"#).unwrap();
/// assert_eq!(read, Problem::new("1+1=", "2"));
/// assert!(serde_json::from_str::<Problem>(r#"{"prompt": "", "answer": "", "anwser": ""}"#).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The text the policy continues.
    pub prompt: String,
    /// The reference answer, as text; the reward decides what counts as equal to it.
    pub answer: String,
    /// Anything else, by name: the task, the tests of a program, the numbers of a puzzle. Default: empty.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

impl Problem {
    /// A problem without metadata.
    pub fn new(prompt: impl Into<String>, answer: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            answer: answer.into(),
            metadata: Map::new(),
        }
    }

    /// The same problem with `metadata[key] = value`.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The same problem in a domain, such as `math` or `code`: `metadata["domain"]`.
    #[must_use]
    pub fn with_domain(self, domain: impl Into<String>) -> Self {
        self.with_metadata(DOMAIN, domain.into())
    }

    /// The domain, if the metadata has a text called `domain`. Metrics and evaluations are broken down by it, and rewards may be limited
    /// to some.
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
    fn a_later_entry_replaces_an_earlier_one() {
        let problem = Problem::new("a", "b")
            .with_metadata("k", 1)
            .with_metadata("k", 2);
        assert_eq!(problem.metadata.len(), 1);
        assert_eq!(problem.metadata["k"], 2);
    }
}
