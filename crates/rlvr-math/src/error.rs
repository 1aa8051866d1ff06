//! The crate's error type.

use std::fmt::Display;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An invalid setting. Nothing else fails: every text has an answer or none, and every pair of texts a verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that is not allowed, found when the extractor, the verifier or the tags are built.
    #[error("invalid `{field}`: {value}; expected {expected}")]
    Config {
        /// The field, by its path in the configuration.
        field: String,
        /// The value that was given.
        value: String,
        /// The allowed range, or the rule it breaks.
        expected: String,
    },
}

impl Error {
    /// An invalid setting: `field` has `value`, `expected` says what would be right.
    pub(crate) fn config(
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
}
