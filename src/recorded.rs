//! The record of a custom part of a configuration in a file.

use serde::{Deserialize, Serialize};

use crate::Error;

/// The name and the fingerprint of a custom part: enough to compare it with another part, but not
/// to run it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recorded {
    pub name: String,
    pub fingerprint: String,
}

impl Recorded {
    /// The error for running it: `field` is its path in the configuration, `expected` the part that
    /// the program has to supply.
    pub fn error(&self, field: &str, expected: &str) -> Error {
        Error::config(
            field,
            &self.name,
            format!("{expected}: a file has only its name"),
        )
    }
}
