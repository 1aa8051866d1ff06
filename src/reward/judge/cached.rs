//! A cache for the answers of a judge.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Judge;
use crate::fnv::Fnv;
use crate::reward::RewardError;
use crate::{Error, Result};

/// Caches the answers of a judge, so that every question is asked once.
///
/// The key of an answer is a hash of the judge's [description](Judge::describe), the question and
/// the seed. Errors are not cached. With a file ([`open`](Self::open)) answers outlive the process:
/// a resumed or repeated run gives the same rewards for the same completions without asking again.
///
/// ```
/// use rlvr::reward::RewardError;
/// use rlvr::reward::judge::{CachedJudge, Judge};
///
/// struct Counts(std::sync::atomic::AtomicU64);
///
/// impl Judge for Counts {
///     fn describe(&self) -> String {
///         "counts".into()
///     }
///
///     fn answer(&self, _: &str, _: u64) -> Result<String, RewardError> {
///         Ok(self
///             .0
///             .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
///             .to_string())
///     }
/// }
///
/// let judge = CachedJudge::new(Counts(0.into()));
/// let answers = [("a", 0), ("b", 0), ("a", 0), ("a", 1)]
///     .map(|(question, seed)| judge.answer(question, seed).unwrap());
/// assert_eq!(answers, ["0", "1", "0", "2"]);
/// ```
pub struct CachedJudge<J> {
    judge: J,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    answers: HashMap<String, String>,
    /// The file to which answers are appended.
    file: Option<(File, PathBuf)>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    answer: String,
}

impl<J: Judge> CachedJudge<J> {
    /// Creates a cache in memory.
    pub fn new(judge: J) -> Self {
        Self {
            judge,
            memory: Mutex::default(),
        }
    }

    /// Opens a cache that is stored in the JSON Lines file at `path`, and reads the answers in it.
    /// A partial last line, which a killed process leaves, is removed. Only one process may use the
    /// file at a time.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read or written, and [`Error::Data`] if another
    /// line is not a cached answer.
    pub fn open(judge: J, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |error| Error::io(path, error);
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(path).map_err(io)?;
        let text = fs::read(path).map_err(io)?;
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(io)?;
        }
        let mut answers = HashMap::new();
        for (index, line) in text[..whole].split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let Line { key, answer } = serde_json::from_slice(line).map_err(|e| Error::Data {
                path: path.to_path_buf(),
                line: index + 1,
                reason: e.to_string(),
            })?;
            answers.entry(key).or_insert(answer);
        }
        let file = Some((file, path.to_path_buf()));
        Ok(Self {
            judge,
            memory: Mutex::new(Memory { answers, file }),
        })
    }

    /// Returns the number of cached answers.
    pub fn remembered(&self) -> usize {
        self.lock().answers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Stores the answer under `key` and returns it, or the answer that another thread stored
    /// first.
    fn keep(&mut self, key: &str, answer: String) -> Result<String, RewardError> {
        if let Some(known) = self.answers.get(key) {
            return Ok(known.clone());
        }
        if let Some((file, path)) = &mut self.file {
            let line = Line {
                key: key.to_string(),
                answer: answer.clone(),
            };
            let line = serde_json::to_string(&line)? + "\n";
            // A single write, so that a killed process leaves at most one partial line, the last.
            let written = file.write_all(line.as_bytes());
            written.map_err(|e| Error::io(&path, e).to_string())?;
        }
        self.answers.insert(key.to_string(), answer.clone());
        Ok(answer)
    }
}

/// The cache key: two checksums of everything that an answer depends on, and the length of the
/// question, which makes accidental collisions unlikely.
fn key(describe: &str, question: &str, seed: u64) -> String {
    let mut hash = Fnv::default();
    let mut check = crc32fast::Hasher::new();
    for text in [describe, question, &seed.to_string()] {
        hash.text_and_end(text);
        check.update(text.as_bytes());
        check.update(&[0xFF]);
    }
    format!(
        "{:016x}-{:08x}-{}",
        hash.finish(),
        check.finalize(),
        question.len()
    )
}

impl<J: Judge> Judge for CachedJudge<J> {
    fn describe(&self) -> String {
        self.judge.describe()
    }

    fn answer(&self, question: &str, seed: u64) -> Result<String, RewardError> {
        let mut answers = self.answer_all(&[(question.to_string(), seed)]);
        let none = || Err("the judge gave no answer".into());
        answers.pop().unwrap_or_else(none)
    }

    /// Asks the judge the questions that are not cached, each once.
    fn answer_all(&self, questions: &[(String, u64)]) -> Vec<Result<String, RewardError>> {
        let describe = self.judge.describe();
        let key = |(question, seed): &(String, u64)| key(&describe, question, *seed);
        let keys: Vec<String> = questions.iter().map(key).collect();
        let mut new: Vec<(String, u64)> = Vec::new();
        // The index of each new question among those that are asked.
        let mut places: HashMap<&str, usize> = HashMap::new();
        {
            let memory = self.lock();
            for (key, question) in keys.iter().zip(questions) {
                if !memory.answers.contains_key(key) && !places.contains_key(key.as_str()) {
                    places.insert(key, new.len());
                    new.push(question.clone());
                }
            }
        }
        // The lock is released here, so other threads can ask in the meantime.
        let answers = match new.is_empty() {
            true => Vec::new(),
            false => self.judge.answer_all(&new),
        };
        let mut memory = self.lock();
        let answers: Vec<Result<String, String>> = answers
            .into_iter()
            .zip(&new)
            .map(|(answer, question)| {
                let kept = answer.and_then(|answer| memory.keep(&key(question), answer));
                kept.map_err(|error| error.to_string())
            })
            .collect();
        let find = |key: &String| match (memory.answers.get(key), places.get(key.as_str())) {
            (Some(known), _) => Ok(known.clone()),
            (None, Some(&place)) => match answers.get(place) {
                Some(Err(message)) => Err(message.clone().into()),
                _ => Err("the judge gave fewer answers than there were questions".into()),
            },
            (None, None) => Err("the answer was not kept".into()),
        };
        keys.iter().map(find).collect()
    }
}

impl<J: Judge> fmt::Debug for CachedJudge<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedJudge")
            .field("judge", &self.judge.describe())
            .field("remembered", &self.remembered())
            .finish_non_exhaustive()
    }
}
