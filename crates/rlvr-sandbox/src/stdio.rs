//! What the descriptors of a program are connected to, and how long it may take.

use std::fs::File;
use std::time::Duration;

use crate::{Result, system};

/// What one descriptor of a program is connected to.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stdio {
    /// `/dev/null`.
    Null,
    /// The program reads these bytes, then the end.
    Input(Vec<u8>),
    /// The program reads the first of these, and each other after one more line on the descriptor of [`Timeout::progress`].
    Dialogue(Vec<Vec<u8>>),
    /// What the program writes is kept, up to `limit` bytes. Beyond them it is killed if `kill`, and the rest is dropped otherwise.
    Capture {
        /// The most bytes that are kept.
        limit: usize,
        /// Whether a program that writes more is killed.
        kill: bool,
    },
    /// One end of a [`pipe`]; the other is another program's or this process's.
    Pipe(PipeEnd),
}

/// One end of a [`pipe`].
#[derive(Debug)]
pub struct PipeEnd(pub(crate) system::Descriptor);

impl PipeEnd {
    /// The end as a file of this process, to talk to a program while it runs.
    pub fn into_file(self) -> File {
        File::from(self.0)
    }
}

/// A pipe: the end to read from, and the end to write to.
///
/// # Errors
/// If this process has too many files open.
pub fn pipe() -> Result<(PipeEnd, PipeEnd)> {
    let (read, write) = system::pipe()?;
    Ok((PipeEnd(read), PipeEnd(write)))
}

/// How long a program may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// How long it may take, and how long again after each sign of progress.
    pub wall: Duration,
    /// How long it may take in all.
    pub total: Duration,
    /// The captured descriptor whose lines are signs of progress, and how many of them count.
    pub progress: Option<(i32, usize)>,
}
