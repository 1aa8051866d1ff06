//! What a file says about a custom part of a configuration.

use serde::{Deserialize, Serialize};

use crate::Error;

/// The name and the fingerprint of a custom part: enough to compare it with another, not enough to compute anything.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recorded {
    pub name: String,
    pub fingerprint: String,
}

impl Recorded {
    /// The error of using it: `field` is its place in the configuration, `expected` the part that a program gives.
    pub fn error(&self, field: &str, expected: &str) -> Error {
        Error::config(
            field,
            &self.name,
            format!("{expected}: a file has only its name"),
        )
    }
}
