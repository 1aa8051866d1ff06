//! The files that an example reads and leaves behind.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rlvr::prompt::{JsonLines, Problem};
use rlvr::train::latest_checkpoint;
use rlvr::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};

/// The newest of `checkpoints`; without one it is an error.
pub fn resume_from(checkpoints: &Path) -> Result<PathBuf> {
    let missing = "no checkpoint to resume from; start without --resume";
    let found = latest_checkpoint(checkpoints)?;
    found.ok_or_else(|| Error::checkpoint(checkpoints, missing))
}

/// The problems of a file, none of which has an empty answer: no completion could be right.
pub fn read_problems(path: &Path, fields: &JsonLines) -> Result<Vec<Problem>> {
    let problems = fields.read(path)?;
    let empty = |problem: &Problem| problem.answer.trim().is_empty();
    let Some(index) = problems.iter().position(empty) else {
        return Ok(problems);
    };
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let not_blank = |(_, line): &(usize, &str)| !line.trim().is_empty();
    let line = text.lines().enumerate().filter(not_blank).nth(index);
    Err(Error::Data {
        path: path.to_path_buf(),
        line: line.map_or(index, |(line, _)| line) + 1,
        reason: format!(
            "field `{}` is empty; expected the right answer",
            fields.answer_field
        ),
    })
}

/// Writes `value` as JSON: the file is whole or the old one.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::io(path, e.into()))?;
    let beside = path.with_extension("json.tmp");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|e| Error::io(path, e))
}

/// The evaluation from before a run that is resumed; `None`, with a word on standard error, if its
/// file is missing or damaged.
pub fn read_before<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let read = || -> std::io::Result<T> { Ok(serde_json::from_str(&fs::read_to_string(path)?)?) };
    match read() {
        Ok(value) => Some(value),
        Err(error) => {
            eprintln!(
                "warning: {}: {error}; continuing without the evaluation from before training",
                path.display()
            );
            None
        }
    }
}
