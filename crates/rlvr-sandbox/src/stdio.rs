//! The descriptors of a program, and its time limits.

use std::fs::File;
use std::time::Duration;

use crate::{Result, system};

/// What a file descriptor of a program is connected to, for
/// [`Folder::spawn`](crate::Folder::spawn).
///
/// ```
/// use rlvr_sandbox::{Command, Exit, Sandbox, SandboxConfig, Stdio, Timeout};
/// use std::time::Duration;
///
/// # fn main() -> rlvr_sandbox::Result<()> {
/// # if !cfg!(target_os = "linux") { return Ok(()) }
/// let sandbox = Sandbox::new(SandboxConfig::default().allow_less())?;
/// let folder = sandbox.folder()?;
/// let stdio = vec![
///     (0, Stdio::Input(b"three\n".to_vec())),
///     (1, Stdio::Null),
///     (2, Stdio::Null),
///     (
///         3,
///         Stdio::Capture {
///             limit: 100,
///             kill: true,
///         },
///     ),
/// ];
/// let shell = Command::new("/bin/sh").argument("-c").argument("cat >&3");
/// let wall = Duration::from_secs(60);
/// let timeout = Timeout {
///     wall,
///     total: wall,
///     progress: None,
/// };
/// let (exit, captured) = folder.spawn(&shell, stdio)?.wait(timeout)?;
/// assert_eq!(exit, Exit::Status(0));
/// assert_eq!(captured, [(3, b"three\n".to_vec())]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Stdio {
    /// `/dev/null`.
    Null,
    /// The program reads these bytes and then the end of the file.
    Input(Vec<u8>),
    /// The program reads these parts, the first at once and each further one after it has written
    /// another line to the descriptor of [`Timeout::progress`].
    Dialogue(Vec<Vec<u8>>),
    /// The bytes that the program writes are kept, up to `limit`. If it writes more, it is killed
    /// if `kill` is set; otherwise the rest is dropped.
    Capture {
        /// The number of bytes to keep.
        limit: usize,
        /// Whether a program that writes more is killed.
        kill: bool,
    },
    /// One end of a [`pipe`], whose other end belongs to another program or to this process.
    Pipe(PipeEnd),
}

/// One end of a [`pipe`].
#[derive(Debug)]
pub struct PipeEnd(pub(crate) system::Descriptor);

impl PipeEnd {
    /// Converts the end to a file, to communicate with a running program.
    pub fn into_file(self) -> File {
        File::from(self.0)
    }
}

/// Creates a pipe and returns its read end and its write end.
///
/// # Errors
/// [`Error::Wait`](crate::Error::Wait) if this process has too many open files, and on systems
/// other than Linux.
pub fn pipe() -> Result<(PipeEnd, PipeEnd)> {
    let (read, write) = system::pipe()?;
    Ok((PipeEnd(read), PipeEnd(write)))
}

/// The time limits of a program started by [`Folder::spawn`](crate::Folder::spawn).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The time until the first sign of progress, and from each one to the next or to the end.
    pub wall: Duration,
    /// The time of the whole run.
    pub total: Duration,
    /// The captured descriptor on which each line is a sign of progress, and the number of lines
    /// that count.
    pub progress: Option<(i32, usize)>,
}
