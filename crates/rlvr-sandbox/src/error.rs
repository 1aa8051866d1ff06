//! The crate's error type.

use std::fmt::Display;
use std::path::PathBuf;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why a sandbox could not be created or a program not be run.
///
/// A program that fails or exceeds a limit is not an error: see [`Exit`](crate::Exit).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid limit, or a required measure that is not available.
    #[error("invalid `{field}`: {value}; expected {expected}")]
    Config {
        /// The path of the field in the configuration.
        field: String,
        /// The invalid value.
        value: String,
        /// The values that are allowed.
        expected: String,
    },
    /// A file name that [`Folder::write`](crate::Folder::write) does not accept.
    #[error("invalid file name {0:?}; expected one without `/` and NUL, not empty, `.` or `..`")]
    FileName(String),
    /// A program that could not be started.
    #[error("the sandbox could not start the program: {0}")]
    Start(String),
    /// An operation on a file or folder failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Connecting to a program or waiting for it failed.
    #[error("the sandbox could not connect to the program or wait for it: {0}")]
    Wait(std::io::Error),
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

    /// Returns the error of a failed operation on `path`.
    #[cfg(target_os = "linux")]
    pub(crate) fn io(path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }
}
