//! The crate's one error type. Every message says what was wrong and what would be right.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the thing, its value and what would have been right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot mean anything, refused when the thing is built.
    #[error("invalid `{field}`: {value}; expected {expected}")]
    Config {
        /// The field, by its path in the configuration.
        field: String,
        /// The value that was given.
        value: String,
        /// The allowed range, or the rule it breaks.
        expected: String,
    },
    /// A line of a data file that cannot be read.
    #[error("{}:{line}: {reason}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// Why it cannot be read.
        reason: String,
    },
    /// A character that the tokenizer has no token for.
    #[error(
        "character {character:?} at byte {position} is not in the vocabulary ({vocabulary} tokens); text: {text:?}"
    )]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Its byte offset in the text.
        position: usize,
        /// The text it stands in, shortened around the character.
        text: String,
        /// The size of the vocabulary.
        vocabulary: usize,
    },
    /// A token id that the vocabulary does not hold.
    #[error("token id {id} is out of range; the vocabulary has {vocabulary} tokens")]
    UnknownToken {
        /// The id.
        id: u32,
        /// The size of the vocabulary.
        vocabulary: usize,
    },
    /// Inputs whose sizes do not fit together.
    #[error("{what}: got {got}, expected {expected}")]
    Shape {
        /// Which input.
        what: String,
        /// Its size.
        got: String,
        /// The size that would fit.
        expected: String,
    },
    /// A number that is not finite where it must be.
    #[error("{what} is {value} at step {step}; {advice}")]
    NonFinite {
        /// Which number.
        what: String,
        /// Its value.
        value: f64,
        /// The optimizer step.
        step: u64,
        /// What usually helps.
        advice: String,
    },
    /// A reward failed on more of a step's completions than is allowed.
    #[error("reward `{reward}` failed on {failures} of {rollouts} completions; first: {first}")]
    Rewards {
        /// The name of the reward with the most failures.
        reward: String,
        /// The completions on which it failed.
        failures: usize,
        /// The completions of the step.
        rollouts: usize,
        /// The reason of the first failure.
        first: String,
    },
    /// No completion of a step has a reward, although no reward failed.
    #[error("none of {rollouts} completions has a reward: {reason}")]
    Unscored {
        /// The completions of the step.
        rollouts: usize,
        /// Why, such as the reward that abstained most.
        reason: String,
    },
    /// An implementation of a trait that breaks one of its promises.
    #[error("the model breaks its contract: {promise}; {found}")]
    Contract {
        /// The promise.
        promise: String,
        /// Where, the values that show it, and what they may differ by.
        found: String,
    },
    /// Dynamic sampling found too few groups whose rewards differ.
    #[error(
        "step {step}: {kept} of {wanted} groups have rewards that differ, after {asked} problems; {advice}"
    )]
    NoSignal {
        /// The step, counted from 0.
        step: u64,
        /// Groups that have a signal.
        kept: usize,
        /// Groups that a step needs.
        wanted: usize,
        /// Problems that were asked.
        asked: usize,
        /// What usually helps.
        advice: String,
    },
    /// An inference engine that cannot be used, or no longer.
    #[error("engine {engine}: {request}: {reason}; {remedy}")]
    Engine {
        /// Which engine: its address, if it has one.
        engine: String,
        /// What was asked of it.
        request: String,
        /// What it did instead.
        reason: String,
        /// What would be right, or usually helps.
        remedy: String,
    },
    /// Another learner of the run has failed, is gone, or is elsewhere in the program.
    #[error("learner {rank}: {reason}")]
    Learner {
        /// Its rank.
        rank: usize,
        /// Its own error, or what is wrong with it.
        reason: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of a model folder that cannot be used.
    #[error("{}: {reason}", path.display())]
    ModelFile {
        /// The file or folder.
        path: PathBuf,
        /// Why, and what would be right.
        reason: String,
    },
    /// Weights that do not fit the model: everything that is wrong with them.
    #[error("{}: {}", path.display(), faults(missing, left_over, misshapen))]
    Weights {
        /// The folder that they were read from.
        path: PathBuf,
        /// Tensors that the model needs and the files do not have.
        missing: Vec<String>,
        /// Tensors that the files have and the model has no place for.
        left_over: Vec<String>,
        /// Tensors of the wrong shape or type, each with what it is and what it should be.
        misshapen: Vec<String>,
    },
    /// The device could not run a kernel or give a tensor back.
    #[error("reading {what} from the device failed: {reason}")]
    Device {
        /// Which tensor.
        what: String,
        /// The backend's reason.
        reason: String,
    },
    /// A checkpoint that cannot be written or read back.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The three lists, as far as they are not empty.
fn faults(missing: &[String], left_over: &[String], misshapen: &[String]) -> String {
    [
        ("missing", missing),
        ("left over", left_over),
        ("misshapen", misshapen),
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
            other => Self::config("math", other, "a valid setting"),
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
    /// A refused setting: `field` has `value`, `expected` says what would be right.
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

    /// The same error with the field of a setting by its path from `part`, `part.field`.
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

    /// Sizes that do not fit: `what` is `got`, `expected` would fit.
    pub fn shape(what: impl Into<String>, got: impl Display, expected: impl Display) -> Self {
        Self::Shape {
            what: what.into(),
            got: got.to_string(),
            expected: expected.to_string(),
        }
    }

    /// A tensor called `what` that could not be read back.
    pub fn device(what: impl Into<String>, reason: impl Display) -> Self {
        Self::Device {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    /// What happened to learner `rank`.
    pub fn learner(rank: usize, reason: impl Display) -> Self {
        Self::Learner {
            rank,
            reason: reason.to_string(),
        }
    }

    /// A failed file operation on `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// A file of a model folder at `path` that cannot be used.
    pub fn model_file(path: impl AsRef<Path>, reason: impl Display) -> Self {
        Self::ModelFile {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
        }
    }

    /// A checkpoint at `path` that cannot be used.
    pub fn checkpoint(path: impl AsRef<Path>, reason: impl Display) -> Self {
        Self::Checkpoint {
            path: path.as_ref().to_path_buf(),
            reason: reason.to_string(),
        }
    }
}
