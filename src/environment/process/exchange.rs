//! Requests to a program and its answers: one JSON object per line, matched by id.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::super::json_text::shortened;
use super::program::{Launcher, Process};
use crate::{Error, Result};

/// The maximum length of a line, in bytes.
const MAX_LINE: u64 = 16 << 20;
/// The number of bytes of the standard error that are kept.
const MAX_ERRORS: usize = 2048;
/// The time that a program has to end after its input is closed.
const GRACE: Duration = Duration::from_secs(1);

/// The handling of a line that does not answer a request.
pub(in crate::environment) enum Unsolicited {
    /// Ignore it.
    Ignored,
    /// Send this line to the program.
    Answered(String),
    /// Kill the program. The text is what was expected.
    Wrong(&'static str),
}

/// A running program that answers concurrent requests. Dropping it ends the program.
pub(in crate::environment) struct Exchange {
    shared: Arc<Shared>,
    time_limit: Duration,
    start_limit: Duration,
}

struct Shared {
    /// The command, for errors.
    program: String,
    unsolicited: fn(&str) -> Unsolicited,
    state: Mutex<State>,
    /// The end of the program's standard error.
    errors: Mutex<Vec<u8>>,
    ended: Condvar,
}

struct State {
    process: Option<Process>,
    /// The lines to write; `None` when the input is closed.
    input: Option<Sender<Vec<u8>>>,
    waiting: HashMap<u64, Sender<String>>,
    next_id: u64,
    /// When the program last answered.
    last_answer: Option<Instant>,
    /// Why the program is dead.
    dead: Option<String>,
    /// Whether its output has ended.
    ended: bool,
}

impl Exchange {
    /// Starts the program.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started.
    pub fn start(launcher: &Arc<Launcher>, unsolicited: fn(&str) -> Unsolicited) -> Result<Self> {
        let (input, to_write) = mpsc::channel();
        let shared = Arc::new(Shared {
            program: launcher.name(),
            unsolicited,
            state: Mutex::new(State {
                process: None,
                input: Some(input),
                waiting: HashMap::new(),
                next_id: 1,
                last_answer: None,
                dead: None,
                ended: false,
            }),
            errors: Mutex::default(),
            ended: Condvar::new(),
        });
        let (tell, told) = mpsc::channel();
        let reader = {
            let (launcher, shared) = (launcher.clone(), shared.clone());
            // A sandboxed program ends with the thread that started it, so that thread reads until
            // the end.
            move || {
                let started = match launcher.start() {
                    Ok(started) => started,
                    Err(error) => {
                        let _ = tell.send(Err(error));
                        return;
                    }
                };
                shared.lock().process = Some(started.process);
                let _ = tell.send(Ok(()));
                let input = started.input;
                let writer = thread::Builder::new().spawn(move || write(input, &to_write));
                let (closed, is_closed) = mpsc::channel::<()>();
                let listener = {
                    let (shared, errors) = (shared.clone(), started.errors);
                    thread::Builder::new().spawn(move || {
                        shared.keep_errors(errors);
                        drop(closed);
                    })
                };
                match writer.and(listener) {
                    Ok(_) => shared.listen(started.output, &is_closed),
                    Err(error) => shared.kill(&error.to_string()),
                };
            }
        };
        let spawned = thread::Builder::new().spawn(reader);
        spawned.map_err(|error| Error::io(launcher.name(), error))?;
        match told.recv() {
            Ok(result) => result?,
            Err(_) => {
                let broken = std::io::ErrorKind::BrokenPipe.into();
                return Err(Error::io(launcher.name(), broken));
            }
        }
        Ok(Self {
            shared,
            time_limit: launcher.program.time_limit,
            start_limit: launcher.program.start_limit,
        })
    }

    /// The command, for errors.
    pub fn program(&self) -> &str {
        &self.shared.program
    }

    /// Whether the program no longer answers.
    pub fn is_dead(&self) -> bool {
        self.shared.lock().dead.is_some()
    }

    /// Sends the line that `message` creates for an id, and waits for the answer, a line with the
    /// same id.
    ///
    /// # Errors
    /// Returns the reason if the program fails, with its name and the end of its standard error.
    /// The program is dead then.
    pub fn request(&self, message: impl FnOnce(u64) -> String) -> Result<String, String> {
        let (answer, answered) = mpsc::channel();
        let (sent, ahead) = {
            let mut state = self.shared.lock();
            if let Some(reason) = &state.dead {
                return Err(reason.clone());
            }
            let id = state.next_id;
            state.next_id += 1;
            let ahead = state.waiting.len() as u32;
            state.waiting.insert(id, answer);
            state.write(message(id));
            (Instant::now(), ahead)
        };
        loop {
            // A program that answers sequentially has the limit for each request; it may be silent
            // for one limit.
            let last_answer = self.shared.lock().last_answer;
            let (limit, since) = match last_answer {
                Some(last_answer) => (self.time_limit, last_answer.max(sent)),
                None => (self.start_limit, sent),
            };
            let last = sent + limit.saturating_mul(ahead + 1);
            let deadline = last.min(since + limit);
            let now = Instant::now();
            if now >= deadline {
                let seconds = limit.as_secs_f64();
                return Err(self
                    .shared
                    .kill(&format!("it did not answer within {seconds} s")));
            }
            match answered.recv_timeout(deadline - now) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.shared.reason()),
            }
        }
    }

    /// Sends a line without an answer.
    pub fn send(&self, message: String) {
        self.shared.lock().write(message);
    }

    /// Closes the program's input.
    pub fn close_input(&self) {
        self.shared.lock().input = None;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.dead.is_none() {
            state.input = None;
            let waited = self
                .shared
                .ended
                .wait_timeout_while(state, GRACE, |state| !state.ended);
            drop(waited);
            self.shared.kill("it was closed");
        }
    }
}

impl State {
    fn write(&self, message: String) {
        if let Some(input) = &self.input {
            let mut line = message.into_bytes();
            line.push(b'\n');
            // A program that no longer reads is detected when its output ends.
            let _ = input.send(line);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reason(&self) -> String {
        let dead = self.lock().dead.clone();
        dead.unwrap_or_else(|| format!("{}: it no longer answers", self.program))
    }

    /// Reads lines until the program ends or writes an invalid line.
    fn listen(&self, output: impl Read, errors_are_read: &Receiver<()>) -> String {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        let wrong = loop {
            line.clear();
            match (&mut output).take(MAX_LINE).read_until(b'\n', &mut line) {
                Err(error) => break Some(error.to_string()),
                Ok(_) if line.len() as u64 >= MAX_LINE => {
                    break Some(format!("it wrote a line of {MAX_LINE} bytes or more"));
                }
                // An incomplete last line is ignored.
                Ok(_) if !line.ends_with(b"\n") => break None,
                Ok(_) => {
                    if let Err(wrong) = self.handle_line(&String::from_utf8_lossy(&line)) {
                        break Some(wrong);
                    }
                }
            }
        };
        let process = self.lock().process.take();
        let how = match (wrong, process) {
            (Some(wrong), process) => {
                process.map(|process| process.end(Duration::ZERO));
                wrong
            }
            (None, Some(process)) => format!("it ended ({})", process.end(GRACE)),
            (None, None) => "it was killed".into(),
        };
        // The last lines of the standard error are the most useful ones.
        let _ = errors_are_read.recv_timeout(Duration::from_millis(200));
        let reason = self.kill(&how);
        self.lock().ended = true;
        self.ended.notify_all();
        reason
    }

    /// Handles a line of output.
    fn handle_line(&self, line: &str) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            id: Value,
            method: Option<IgnoredAny>,
        }

        let line = line.trim();
        if line.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        if let Ok(head) = serde_json::from_str::<Head>(line)
            && head.method.is_none()
            && let Some(answered) = head.id.as_u64().and_then(|id| state.waiting.remove(&id))
        {
            state.last_answer = Some(Instant::now());
            let _ = answered.send(line.to_string());
            return Ok(());
        }
        match (self.unsolicited)(line) {
            Unsolicited::Ignored => {}
            Unsolicited::Answered(answer) => state.write(answer),
            Unsolicited::Wrong(expected) => {
                return Err(format!(
                    "it wrote {:?}; expected {expected}",
                    shortened(line, 200)
                ));
            }
        }
        Ok(())
    }

    /// Ends the program and all requests. Returns the reason, or the earlier one if it was already
    /// dead.
    fn kill(&self, reason: &str) -> String {
        let errors = {
            let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&errors).trim().to_string()
        };
        let (process, reason) = {
            let mut state = self.lock();
            let reason = match &state.dead {
                Some(reason) => reason.clone(),
                None => {
                    let said = match errors.is_empty() {
                        true => String::new(),
                        false => format!("; its standard error: {}", last_part(&errors, 500)),
                    };
                    format!("{}: {reason}{said}", self.program)
                }
            };
            state.dead = Some(reason.clone());
            state.input = None;
            state.waiting.clear();
            (state.process.take(), reason)
        };
        if let Some(process) = process {
            process.end(Duration::ZERO);
        }
        reason
    }

    /// Keeps the end of the program's standard error.
    fn keep_errors(&self, mut errors: impl Read) {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = errors.read(&mut buffer) {
            let mut kept = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..count]);
            let surplus = kept.len().saturating_sub(MAX_ERRORS);
            kept.drain(..surplus);
        }
    }
}

/// Writes lines until the channel or the program's input is closed; then closes the input.
fn write(mut input: impl Write, lines: &Receiver<Vec<u8>>) {
    while let Ok(line) = lines.recv() {
        if input.write_all(&line).and_then(|()| input.flush()).is_err() {
            return;
        }
    }
}

/// The last characters of a text, for errors.
fn last_part(text: &str, characters: usize) -> String {
    let surplus = text.chars().count().saturating_sub(characters);
    match surplus {
        0 => text.to_string(),
        _ => format!("..{}", text.chars().skip(surplus).collect::<String>()),
    }
}
