//! Requests to a program and its answers, a JSON object a line, told apart by their ids.

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

/// The longest line that is read.
const MAX_LINE: u64 = 16 << 20;
/// How much of the standard error is kept.
const MAX_ERRORS: usize = 2048;
/// How long a program has to end after its input has.
const GRACE: Duration = Duration::from_secs(1);

/// What becomes of a line that answers no request.
pub(in crate::environment) enum Unasked {
    /// Nothing.
    Ignored,
    /// The program is sent this line.
    Answered(String),
    /// The program is killed: what would have been right.
    Wrong(&'static str),
}

/// A running program that answers requests, several at a time. It ends with this value.
pub(in crate::environment) struct Exchange {
    shared: Arc<Shared>,
    time_limit: Duration,
    start_limit: Duration,
}

struct Shared {
    /// The command, for messages.
    program: String,
    unasked: fn(&str) -> Unasked,
    state: Mutex<State>,
    /// The end of what the program wrote on its standard error.
    errors: Mutex<Vec<u8>>,
    ended: Condvar,
}

struct State {
    process: Option<Process>,
    /// What is to be written; `None` when the input is closed.
    input: Option<Sender<Vec<u8>>>,
    waiting: HashMap<u64, Sender<String>>,
    next_id: u64,
    /// When the program last answered.
    heard: Option<Instant>,
    /// Why the program answers nothing any more.
    dead: Option<String>,
    /// Whether its output has ended.
    ended: bool,
}

impl Exchange {
    /// Starts the program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(launcher: &Arc<Launcher>, unasked: fn(&str) -> Unasked) -> Result<Self> {
        let (input, to_write) = mpsc::channel();
        let shared = Arc::new(Shared {
            program: launcher.name(),
            unasked,
            state: Mutex::new(State {
                process: None,
                input: Some(input),
                waiting: HashMap::new(),
                next_id: 1,
                heard: None,
                dead: None,
                ended: false,
            }),
            errors: Mutex::default(),
            ended: Condvar::new(),
        });
        let (tell, told) = mpsc::channel();
        let reader = {
            let (launcher, shared) = (launcher.clone(), shared.clone());
            // A confined program ends with the thread that has started it, so that is the one that reads to its end.
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
                    Err(error) => shared.die(&error.to_string()),
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

    /// The command, for messages.
    pub fn program(&self) -> &str {
        &self.shared.program
    }

    /// Why the program answers nothing any more; `None` while it does.
    pub fn is_dead(&self) -> bool {
        self.shared.lock().dead.is_some()
    }

    /// Sends the line that `message` makes of an id, and waits for the answer: a line with the same id.
    ///
    /// # Errors
    /// What is wrong with the program, with its name and the end of what it wrote on its standard error. It is dead then.
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
            // Programs that answer one after the other get the limit for each; silence may last as long as one.
            let heard = self.shared.lock().heard;
            let (limit, since) = match heard {
                Some(heard) => (self.time_limit, heard.max(sent)),
                None => (self.start_limit, sent),
            };
            let last = sent + limit.saturating_mul(ahead + 1);
            let deadline = last.min(since + limit);
            let now = Instant::now();
            if now >= deadline {
                let seconds = limit.as_secs_f64();
                return Err(self
                    .shared
                    .die(&format!("it did not answer within {seconds} s")));
            }
            match answered.recv_timeout(deadline - now) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.shared.reason()),
            }
        }
    }

    /// Sends a line that is not answered.
    pub fn send(&self, message: String) {
        self.shared.lock().write(message);
    }

    /// Tells the program that nothing more will come.
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
            self.shared.die("it was closed");
        }
    }
}

impl State {
    fn write(&self, message: String) {
        if let Some(input) = &self.input {
            let mut line = message.into_bytes();
            line.push(b'\n');
            // That the program reads no more is noticed where its output ends.
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

    /// Reads lines until the program ends or writes what it should not.
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
                // What comes after the last line's end is no line.
                Ok(_) if !line.ends_with(b"\n") => break None,
                Ok(_) => {
                    if let Err(wrong) = self.hear(&String::from_utf8_lossy(&line)) {
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
        // What it said last says most.
        let _ = errors_are_read.recv_timeout(Duration::from_millis(200));
        let reason = self.die(&how);
        self.lock().ended = true;
        self.ended.notify_all();
        reason
    }

    /// Takes in a line.
    fn hear(&self, line: &str) -> Result<(), String> {
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
            state.heard = Some(Instant::now());
            let _ = answered.send(line.to_string());
            return Ok(());
        }
        match (self.unasked)(line) {
            Unasked::Ignored => {}
            Unasked::Answered(answer) => state.write(answer),
            Unasked::Wrong(expected) => {
                return Err(format!(
                    "it wrote {:?}; expected {expected}",
                    shortened(line, 200)
                ));
            }
        }
        Ok(())
    }

    /// Ends the program and all requests: why, unless it was dead before.
    fn die(&self, reason: &str) -> String {
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

    /// Keeps the end of what the program writes on its standard error.
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

/// Writes lines until there will be no more, or the program reads none; then its input is closed.
fn write(mut input: impl Write, lines: &Receiver<Vec<u8>>) {
    while let Ok(line) = lines.recv() {
        if input.write_all(&line).and_then(|()| input.flush()).is_err() {
            return;
        }
    }
}

/// The last characters of a text that is quoted in a message.
fn last_part(text: &str, characters: usize) -> String {
    let surplus = text.chars().count().saturating_sub(characters);
    match surplus {
        0 => text.to_string(),
        _ => format!("..{}", text.chars().skip(surplus).collect::<String>()),
    }
}
