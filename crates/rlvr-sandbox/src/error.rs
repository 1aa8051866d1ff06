//! The crate's error type.

use std::fmt::Display;
use std::path::PathBuf;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a sandbox cannot be made, or a program not be run.
///
/// That a program fails or reaches a limit is no error: see [`Exit`](crate::Exit).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid limit, or a required measure of confinement that this machine does not grant.
    #[error("invalid `{field}`: {value}; expected {expected}")]
    Config {
        /// The field, by its path in the configuration.
        field: String,
        /// The value that was given.
        value: String,
        /// The allowed range, or the rule it breaks.
        expected: String,
    },
    /// A file name that [`Folder::write`](crate::Folder::write) does not accept.
    #[error("invalid file name {0:?}; expected one without `/` and NUL, not empty, `.` or `..`")]
    FileName(String),
    /// A program that could not be started.
    #[error("the sandbox could not start the program: {0}")]
    Start(String),
    /// The operating system refused an operation on a file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The operating system refused to connect to a running program, or to wait for it.
    #[error("the sandbox could not follow the program: {0}")]
    Wait(std::io::Error),
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

    /// A failed operation on `path`.
    #[cfg(target_os = "linux")]
    pub(crate) fn io(path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            source,
        }
    }
}
