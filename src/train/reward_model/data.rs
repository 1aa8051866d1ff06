//! Training data of reward models, in memory and as JSON Lines.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A preferred and a rejected response to a prompt.
///
/// ```
/// use rlvr::train::PreferencePair;
///
/// let line = r#"{"prompt": "2+2=", "chosen": "4", "rejected": "5"}"#;
/// let pair: PreferencePair = serde_json::from_str(line).unwrap();
/// assert_eq!(pair, PreferencePair::new("2+2=", "4", "5"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreferencePair {
    /// The prompt.
    pub prompt: String,
    /// The preferred response.
    pub chosen: String,
    /// The rejected response.
    pub rejected: String,
    /// The margin by which the score of `chosen` should be larger; finite. Default 0.
    #[serde(default)]
    pub margin: f64,
}

impl PreferencePair {
    /// Creates a pair with margin 0.
    pub fn new(
        prompt: impl Into<String>,
        chosen: impl Into<String>,
        rejected: impl Into<String>,
    ) -> Self {
        Self {
            prompt: prompt.into(),
            chosen: chosen.into(),
            rejected: rejected.into(),
            margin: 0.0,
        }
    }

    /// Reads pairs from a JSON Lines file with an object
    /// `{"prompt", "chosen", "rejected"[, "margin"]}` per line.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read, and [`Error::Data`] with the line number
    /// if a line has another format or there are no lines.
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<Self>> {
        read_lines(path.as_ref(), "pairs")
    }
}

/// A response with a label, such as safe or unsafe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabeledResponse {
    /// The prompt.
    pub prompt: String,
    /// The response.
    pub response: String,
    /// The probability that the response is good, in [0, 1].
    pub label: f64,
}

impl LabeledResponse {
    /// Creates a labelled response.
    pub fn new(prompt: impl Into<String>, response: impl Into<String>, label: f64) -> Self {
        Self {
            prompt: prompt.into(),
            response: response.into(),
            label,
        }
    }

    /// Reads responses from a JSON Lines file with an object `{"prompt", "response", "label"}` per
    /// line.
    ///
    /// # Errors
    /// Returns the errors of [`PreferencePair::read`].
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<Self>> {
        read_lines(path.as_ref(), "responses")
    }
}

/// Training or evaluation data of a reward model; created from `&pairs` or `&responses` with
/// `into()`.
#[derive(Clone, Copy, Debug)]
pub enum RewardExamples<'a> {
    /// Preference pairs.
    Pairs(&'a [PreferencePair]),
    /// Labelled responses.
    Labeled(&'a [LabeledResponse]),
}

impl<'a> From<&'a [PreferencePair]> for RewardExamples<'a> {
    fn from(pairs: &'a [PreferencePair]) -> Self {
        Self::Pairs(pairs)
    }
}

impl<'a> From<&'a Vec<PreferencePair>> for RewardExamples<'a> {
    fn from(pairs: &'a Vec<PreferencePair>) -> Self {
        Self::Pairs(pairs)
    }
}

impl<'a> From<&'a [LabeledResponse]> for RewardExamples<'a> {
    fn from(responses: &'a [LabeledResponse]) -> Self {
        Self::Labeled(responses)
    }
}

impl<'a> From<&'a Vec<LabeledResponse>> for RewardExamples<'a> {
    fn from(responses: &'a Vec<LabeledResponse>) -> Self {
        Self::Labeled(responses)
    }
}

/// Reads one value per line; blank lines are skipped.
fn read_lines<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Vec<T>> {
    let bad = |line: usize, reason: String| Error::Data {
        path: path.to_path_buf(),
        line,
        reason,
    };
    let file = BufReader::new(File::open(path).map_err(|e| Error::io(path, e))?);
    let mut values = Vec::new();
    for (index, line) in file.lines().enumerate() {
        let line = line.map_err(|e| Error::io(path, e))?;
        if !line.trim().is_empty() {
            let value = serde_json::from_str(&line);
            values.push(value.map_err(|e| bad(index + 1, e.to_string()))?);
        }
    }
    match values.is_empty() {
        true => Err(bad(
            1,
            format!("no {what}; expected one JSON object per line"),
        )),
        false => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_errors_name_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(
            "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n\n\
             {\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\",\"margin\":0.5}\n",
        );
        let plain = PreferencePair::new("a", "b", "c");
        let margin = PreferencePair {
            margin: 0.5,
            ..plain.clone()
        };
        assert_eq!(PreferencePair::read(&path).unwrap(), [plain, margin]);
        let message = LabeledResponse::read(&path).unwrap_err().to_string();
        assert!(
            message.contains("pairs.jsonl:1: unknown field"),
            "{message}"
        );
        write("{\"prompt\":\"a\",\"response\":\"b\",\"label\":0.25}");
        let read = LabeledResponse::read(&path).unwrap();
        assert_eq!(read, [LabeledResponse::new("a", "b", 0.25)]);
        write("\n");
        let message = PreferencePair::read(&path).unwrap_err().to_string();
        assert!(message.ends_with("1: no pairs; expected one JSON object per line"));
    }
}
