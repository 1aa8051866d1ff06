//! The error type of the crate. Every message names the fault and what was expected.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The result type of every fallible function of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error type of every fallible function of the crate.
///
/// ```
/// use rlvr::Error;
/// use rlvr::prompt::Arithmetic;
///
/// let error = Arithmetic {
///     digits: 0,
///     terms: 2,
/// }
/// .problems(1, 0)
/// .unwrap_err();
/// assert!(matches!(error, Error::Config { .. }));
/// assert_eq!(error.to_string(), "invalid `digits`: 0; expected 1..=9");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or an argument has an invalid value.
    #[error("invalid `{field}`: {value}; expected {expected}")]
    Config {
        /// The path of the field in the configuration, or the name of the argument.
        field: String,
        /// The value.
        value: String,
        /// The allowed range, or the rule that the value violates.
        expected: String,
    },
    /// A line of a data file cannot be read.
    #[error("{}:{line}: {reason}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// The tokenizer has no token for a character.
    #[error(
        "character {character:?} at byte {position} is not in the vocabulary ({vocabulary} tokens); text: {text:?}"
    )]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Its byte offset in the text.
        position: usize,
        /// The text around the character.
        text: String,
        /// The size of the vocabulary.
        vocabulary: usize,
    },
    /// A token id is not in the vocabulary.
    #[error("token id {id} is out of range; the vocabulary has {vocabulary} tokens")]
    UnknownToken {
        /// The id.
        id: u32,
        /// The size of the vocabulary.
        vocabulary: usize,
    },
    /// The sizes of inputs do not match.
    #[error("{what}: got {got}, expected {expected}")]
    Shape {
        /// The input.
        what: String,
        /// Its size.
        got: String,
        /// The expected size.
        expected: String,
    },
    /// A number that must be finite is NaN or infinite.
    #[error("{what} is {value} at step {step}; {advice}")]
    NonFinite {
        /// The name of the number, such as the loss.
        what: String,
        /// Its value.
        value: f64,
        /// The optimizer step.
        step: u64,
        /// The usual remedy.
        advice: String,
    },
    /// A reward failed on more of a step's completions than is allowed.
    #[error("reward `{reward}` failed on {failures} of {rollouts} completions; first: {first}")]
    Rewards {
        /// The name of the reward with the most failures.
        reward: String,
        /// The number of completions on which it failed.
        failures: usize,
        /// The number of completions of the step.
        rollouts: usize,
        /// The reason for the first failure.
        first: String,
    },
    /// No completion of a step has a reward, although no reward failed.
    #[error("none of {rollouts} completions has a reward: {reason}")]
    Unscored {
        /// The number of completions of the step.
        rollouts: usize,
        /// The reason, such as the reward that abstained most often.
        reason: String,
    },
    /// An implementation of a trait violates its contract.
    #[error("the model violates its contract: {promise}; {found}")]
    Contract {
        /// The rule of the contract.
        promise: String,
        /// The place, the values that differ, and the tolerance.
        found: String,
    },
    /// Dynamic sampling found too few groups whose rewards differ.
    #[error(
        "step {step}: {kept} of {wanted} groups have rewards that differ, after {asked} problems; {advice}"
    )]
    NoSignal {
        /// The step, counted from 0.
        step: u64,
        /// The number of groups whose rewards differ.
        kept: usize,
        /// The number of groups that a step needs.
        wanted: usize,
        /// The number of problems that were sampled.
        asked: usize,
        /// The usual remedy.
        advice: String,
    },
    /// An inference engine cannot be used, or has failed.
    #[error("engine {engine}: {request}: {reason}; {remedy}")]
    Engine {
        /// The address of the engine, or its name if it has none.
        engine: String,
        /// The request that failed.
        request: String,
        /// The engine's answer, or the reason why there is none.
        reason: String,
        /// What was expected, or the usual remedy.
        remedy: String,
    },
    /// Another learner of the run has failed, has stopped, or is at another point of the program.
    #[error("learner {rank}: {reason}")]
    Learner {
        /// Its rank.
        rank: usize,
        /// Its error, or the reason why it cannot be used.
        reason: String,
    },
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file of a model folder cannot be used.
    #[error("{}: {reason}", path.display())]
    ModelFile {
        /// The file or folder.
        path: PathBuf,
        /// The reason, and what was expected.
        reason: String,
    },
    /// Weights do not match the model. Lists every mismatch.
    #[error("{}: {}", path.display(), faults(missing, unexpected, mismatched))]
    Weights {
        /// The folder that they were read from.
        path: PathBuf,
        /// Tensors of the model that are not in the files.
        missing: Vec<String>,
        /// Tensors of the files that are not in the model.
        unexpected: Vec<String>,
        /// Tensors of the wrong shape or type, each with the actual and the expected one.
        mismatched: Vec<String>,
    },
    /// The device failed to run a kernel or to return a tensor.
    #[error("reading {what} from the device failed: {reason}")]
    Device {
        /// The name of the tensor.
        what: String,
        /// The error of the backend.
        reason: String,
    },
    /// A checkpoint cannot be written or read.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// The three lists, without those that are empty.
fn faults(missing: &[String], unexpected: &[String], mismatched: &[String]) -> String {
    [
        ("missing", missing),
        ("unexpected", unexpected),
        ("mismatched", mismatched),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{} {what}: {}", names.len(), names.join(", ")))
    .collect::<Vec<_>>()
    .join("; ")
}

#[cfg(feature = "math")]
impl From<rlvr_math::Error> for Error {
    fn from(error: rlvr_math::Error) -> Self {
        match error {
            rlvr_math::Error::Config {
                field,
                value,
                expected,
            } => Self::Config {
                field,
                value,
                expected,
            },
            other => Self::config("math", other, "valid settings"),
        }
    }
}

#[cfg(feature = "code")]
impl From<rlvr_sandbox::Error> for Error {
    fn from(error: rlvr_sandbox::Error) -> Self {
        match error {
            rlvr_sandbox::Error::Config {
                field,
                value,
                expected,
            } => Self::Config {
                field,
                value,
                expected,
            },
            rlvr_sandbox::Error::Io { path, source } => Self::Io { path, source },
            other => Self::config("sandbox", other, "a system that can run the program"),
        }
    }
}

impl Error {
    /// Creates an [`Error::Config`]: `field` is `value`, but should be `expected`.
    pub fn config(
        field: impl Into<String>,
        value: impl Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config {
            field: field.into(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    /// The same error with the field of an [`Error::Config`] prefixed, as in `part.field`.
    pub(crate) fn within(self, part: &str) -> Self {
        match self {
            Self::Config {
                field,
                value,
                expected,
            } => Self::Config {
                field: format!("{part}.{field}"),
                value,
                expected,
            },
            other => other,
        }
    }

    /// Creates an [`Error::Shape`]: the size of `what` is `got`, but should be `expected`.
    pub fn shape(what: impl Into<String>, got: impl Display, expected: impl Display) -> Self {
        Self::Shape {
            what: what.into(),
            got: got.to_string(),
            expected: expected.to_string(),
        }
    }

    /// Creates an [`Error::Device`]: the tensor `what` could not be read back.
    pub(crate) fn device(what: impl Into<String>, reason: impl Display) -> Self {
        Self::Device {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    /// Creates an [`Error::Learner`] for the learner of this rank.
    pub fn learner(rank: usize, reason: impl Display) -> Self {
        Self::Learner {
            rank,
            reason: reason.to_string(),
        }
    }

    /// Creates an [`Error::Io`]: a file operation on `path` failed.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// Creates an [`Error::ModelFile`]: the file or folder at `path` cannot be used.
    pub fn model_file(path: impl AsRef<Path>, reason: impl Display) -> Self {
        Self::ModelFile {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// Creates an [`Error::Checkpoint`]: the checkpoint at `path` cannot be used.
    pub fn checkpoint(path: impl AsRef<Path>, reason: impl Display) -> Self {
        Self::Checkpoint {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
        }
    }
}
