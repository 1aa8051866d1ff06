//! The crate's error type.

use std::fmt::Display;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An invalid setting. Extraction and comparison themselves never fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid setting of an extractor, a verifier or tags.
    #[error("invalid `{field}`: {value}; expected {expected}")]
    Config {
        /// The path of the field in the configuration.
        field: String,
        /// The invalid value.
        value: String,
        /// The values that are allowed.
        expected: String,
    },
}

impl Error {
    /// Returns the error that `field` has the invalid `value`.
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
