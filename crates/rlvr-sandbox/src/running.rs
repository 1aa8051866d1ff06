//! A running process: its input and output, and its end at the limits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Signal, WaitOptions, kill_process_group, pidfd_send_signal, test_kill_process_group, waitpid,
};

use super::launch::Child;
use super::plan::{Prepared, kill_all_of};
use super::step::{LaunchError, SAFE_FD};
use super::{Captured, Error, Exit, PipeEnd, Result, Stdio, Timeout, launch};

/// Input of the program.
struct Feed {
    pipe: OwnedFd,
    /// The parts still to be sent.
    parts: VecDeque<Vec<u8>>,
    /// The number of bytes of the first part that have been sent.
    done: usize,
    /// The number of parts that may be sent now.
    open: usize,
    /// Whether each part waits for a line from the program.
    is_dialog: bool,
}

/// Output of the program.
struct Keep {
    number: RawFd,
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
    most: usize,
    kill: bool,
    overflowed: bool,
}

/// A program that has been started. Dropping this value kills it and every process that it has
/// started.
pub(super) struct Running {
    child: Child,
    reaped: bool,
    /// Whether it must be killed as a process group.
    is_group: bool,
    /// The user that belongs to this run.
    user: Option<u32>,
    feeds: Vec<Feed>,
    keeps: Vec<Keep>,
}

/// How a program ended, and what it wrote to each descriptor.
pub(super) struct Finished {
    pub(super) exit: Exit,
    pub(super) captured: Captured,
}

/// Duplicates a descriptor above the numbers of the program's own.
fn away(pipe: OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(pipe, SAFE_FD)?)
}

impl Running {
    /// Starts a process and connects its descriptors.
    pub(super) fn start(
        prepared: &Prepared,
        stdio: Vec<(RawFd, Stdio)>,
        is_group: bool,
        user: Option<u32>,
    ) -> Result<Self, LaunchError> {
        let failed = |source: io::Error| LaunchError {
            what: "a pipe".into(),
            source,
        };
        let mut theirs: Vec<(RawFd, OwnedFd)> = Vec::new();
        let (mut feeds, mut keeps) = (Vec::new(), Vec::new());
        let mut connect = |number: RawFd, stdio: Stdio| -> io::Result<()> {
            let end = match stdio {
                Stdio::Null => {
                    let flags = OFlags::RDWR | OFlags::CLOEXEC;
                    rustix::fs::open(c"/dev/null", flags, Mode::empty())?
                }
                Stdio::Pipe(PipeEnd(end)) => end,
                Stdio::Input(bytes) => {
                    let (read, feed) = Feed::new(vec![bytes], false)?;
                    feeds.push(feed);
                    read
                }
                Stdio::Dialogue(parts) => {
                    let (read, feed) = Feed::new(parts, true)?;
                    feeds.push(feed);
                    read
                }
                Stdio::Capture { limit, kill } => {
                    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                    fcntl_setfl(&read, OFlags::NONBLOCK)?;
                    keeps.push(Keep {
                        number,
                        pipe: Some(read),
                        bytes: Vec::new(),
                        most: limit,
                        kill,
                        overflowed: false,
                    });
                    write
                }
            };
            theirs.push((number, away(end)?));
            Ok(())
        };
        for (number, one) in stdio {
            connect(number, one).map_err(failed)?;
        }
        let given: Vec<_> = theirs
            .iter()
            .map(|(number, end)| (*number, end.as_fd()))
            .collect();
        let child = prepared.launch(&given)?;
        Ok(Self {
            child,
            reaped: false,
            is_group,
            user,
            feeds,
            keeps,
        })
    }

    /// Sends input and reads output until the program ends or exceeds a limit, then kills what is
    /// left of the run.
    pub(super) fn finish(mut self, timeout: Timeout) -> io::Result<Finished> {
        let last = Instant::now() + timeout.total;
        let mut deadline = last.min(Instant::now() + timeout.wall);
        let mut lines = 0;
        let forced = loop {
            let now = Instant::now();
            if now >= deadline {
                break Some(Exit::WallLimit);
            }
            let exited = self.wait(deadline - now)?;
            self.feeds.retain_mut(|feed| {
                feed.push();
                !feed.parts.is_empty()
            });
            for keep in &mut self.keeps {
                let found = keep.pull();
                let Some((number, most)) = timeout.progress else {
                    continue;
                };
                if number == keep.number && found > 0 && lines < most {
                    lines += found;
                    deadline = last.min(Instant::now() + timeout.wall);
                    for feed in self.feeds.iter_mut().filter(|feed| feed.is_dialog) {
                        feed.open += found;
                    }
                }
            }
            if self.keeps.iter().any(|keep| keep.overflowed && keep.kill) {
                break Some(Exit::OutputLimit);
            }
            if exited {
                break None;
            }
        };
        let status = self.end()?;
        // No writer is left: the rest of the output is in the pipes.
        let mut overflowed = false;
        for keep in &mut self.keeps {
            keep.pull();
            overflowed |= keep.overflowed && keep.kill;
        }
        let exit = match forced {
            Some(forced) => forced,
            None if overflowed => Exit::OutputLimit,
            None => status,
        };
        let captured = self.keeps.drain(..).map(|keep| (keep.number, keep.bytes));
        Ok(Finished {
            exit,
            captured: captured.collect(),
        })
    }

    /// Waits for input, output or the end of the program. Returns whether it has ended.
    fn wait(&self, most: Duration) -> io::Result<bool> {
        let mut all = vec![PollFd::new(&self.child.pidfd, PollFlags::IN)];
        for feed in self.feeds.iter().filter(|feed| feed.open > 0) {
            all.push(PollFd::new(&feed.pipe, PollFlags::OUT));
        }
        for pipe in self.keeps.iter().filter_map(|keep| keep.pipe.as_ref()) {
            all.push(PollFd::new(pipe, PollFlags::IN));
        }
        let most = Timespec {
            tv_sec: most.as_secs() as i64,
            tv_nsec: i64::from(most.subsec_nanos()) as _,
        };
        match poll(&mut all, Some(&most)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(!all[0].revents().is_empty())
    }

    /// Kills what is left of the run, and returns how the program itself ended.
    fn end(&mut self) -> io::Result<Exit> {
        // Before it is reaped, so that its ID and that of its group are not reused.
        let _ = pidfd_send_signal(&self.child.pidfd, Signal::KILL);
        if self.is_group {
            let _ = kill_process_group(self.child.pid, Signal::KILL);
            if let Some(user) = self.user {
                self.kill_user(user);
            }
        }
        self.reaped = true;
        let ended = reap(&self.child)?;
        if self.is_group {
            // Killed processes take time to end. Others reap the orphans, so the wait is bounded.
            for _ in 0..200 {
                if test_kill_process_group(self.child.pid).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(ended)
    }

    fn kill_user(&self, user: u32) {
        if let Ok(killer) = launch::launch(&kill_all_of(user), &[]) {
            let _ = waitpid(Some(killer.pid), WaitOptions::empty());
        }
    }
}

/// Waits for a process and returns how it ended.
pub(super) fn reap(child: &Child) -> io::Result<Exit> {
    loop {
        match waitpid(Some(child.pid), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(Some((_, status))) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Status(code),
                    (_, signal) => Exit::Signal(signal.unwrap_or_default()),
                });
            }
            Ok(None) => return Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end();
        }
    }
}

impl Feed {
    /// Returns the read end, and the feed.
    fn new(parts: Vec<Vec<u8>>, is_dialog: bool) -> io::Result<(OwnedFd, Self)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // Only this end: the program's end still blocks.
        fcntl_setfl(&write, OFlags::NONBLOCK)?;
        let feed = Self {
            pipe: write,
            parts: parts.into(),
            done: 0,
            open: 1,
            is_dialog,
        };
        Ok((read, feed))
    }

    /// Writes what may be sent, until the pipe is full.
    fn push(&mut self) {
        while self.open > 0
            && let Some(part) = self.parts.front()
        {
            if self.done >= part.len() {
                self.parts.pop_front();
                (self.done, self.open) = (0, self.open - 1);
                continue;
            }
            match rustix::io::write(&self.pipe, &part[self.done..]) {
                Ok(wrote) => self.done += wrote,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The program has closed its end.
                Err(_) => self.parts.clear(),
            }
        }
    }
}

impl Keep {
    /// Reads what is available, and returns the number of lines in it.
    fn pull(&mut self) -> usize {
        let mut buffer = [0; 1 << 16];
        let mut lines = 0;
        // Bounded, because a program may write as fast as it is read. A pipe holds at most a
        // megabyte, so that after the program's end everything is read.
        for _ in 0..=16 {
            let Some(pipe) = &self.pipe else { break };
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let room = self.most - self.bytes.len();
                    self.overflowed |= count > room;
                    let taken = &buffer[..count.min(room)];
                    lines += taken.iter().filter(|byte| **byte == b'\n').count();
                    self.bytes.extend_from_slice(taken);
                    if self.overflowed && self.kill {
                        return lines;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return lines,
                Err(_) => self.pipe = None,
            }
        }
        lines
    }
}

/// Returns the read end and the write end of a pipe.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| Error::Wait(error.into()))
}
