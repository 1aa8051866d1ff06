//! The metrics of a run as JSON Lines, one object per step.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Observer, StepRecord};
use crate::folder::{create, remove_half_file, replace_file};
use crate::{Error, Result};

/// Appends every record to a file, one JSON object per line (see [`StepRecord`] for the format).
///
/// Each step is a single unbuffered write of a whole line. A process that is killed leaves at most
/// one incomplete line, which has no line end.
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("metrics_file_{}", std::process::id()));
/// use rlvr::train::observer::{MetricsFile, Observer, StepRecord, read_metrics};
///
/// let path = folder.join("metrics.jsonl");
/// let mut file = MetricsFile::create(&path)?;
/// file.on_step(&StepRecord::new(1).with("reward", 0.5))?;
/// file.on_step(&StepRecord::new(2).with("reward", 0.75))?;
///
/// // The run was killed after step 2, but its last checkpoint is of step 1.
/// let mut file = MetricsFile::resume(&path, 1)?;
/// file.on_step(&StepRecord::new(2).with("reward", 0.75))?;
/// assert_eq!(read_metrics(&path)?.len(), 2);
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Creates an empty file at `path`, and its parent folders. An existing file is overwritten.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file or a folder cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            create(folder)?;
        }
        // Truncate, then open for appending, so that a second writer cannot overwrite lines.
        File::create(path).map_err(|source| Error::io(path, source))?;
        Self::append(path)
    }

    /// Opens the file of a run that is resumed after `step` steps.
    ///
    /// Keeps the records up to and including `step`, byte for byte. Drops later records, which the
    /// run will write again, and an incomplete last line. The file is replaced atomically. A
    /// missing file is created.
    ///
    /// # Errors
    /// Returns [`Error::Data`] for a line that is not a record, as [`read_metrics`] does, and
    /// leaves the file unchanged. Returns [`Error::Io`] if reading or writing fails.
    pub fn resume(path: impl AsRef<Path>, step: u64) -> Result<Self> {
        let path = path.as_ref();
        remove_half_file(path)?;
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::create(path),
            Err(source) => return Err(Error::io(path, source)),
        };
        let mut kept = Vec::with_capacity(bytes.len());
        for (line, record) in lines(&bytes, path)? {
            if record.step <= step {
                kept.extend_from_slice(line);
                kept.push(b'\n');
            }
        }
        if kept != bytes {
            replace_file(path, &kept)?;
        }
        Self::append(path)
    }

    fn append(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(|source| Error::io(path, source))?;
        let path = path.to_path_buf();
        Ok(Self { path, file })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Observer for MetricsFile {
    /// Appends the record.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for a metric called `step`, and [`Error::Io`] if writing fails.
    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|error| Error::config("metrics", error, "another name for that metric"))?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .and_then(|()| self.file.flush())
            .map_err(|source| Error::io(&self.path, source))
    }

    fn sync(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|source| Error::io(&self.path, source))
    }
}

/// Reads the records of the file at `path`, in the order of its lines. Blank lines are skipped.
///
/// An incomplete last line without a line end, as a killed process leaves it, is ignored.
///
/// # Errors
/// Returns [`Error::Data`] with file, line and reason for any other line that is not a record, and
/// [`Error::Io`] if reading fails.
pub fn read_metrics(path: impl AsRef<Path>) -> Result<Vec<StepRecord>> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|source| Error::io(path, source))?;
    let records = lines(&bytes, path)?.into_iter();
    Ok(records.map(|(_, record)| record).collect())
}

/// Returns every line without its end, and its record.
fn lines<'a>(bytes: &'a [u8], path: &Path) -> Result<Vec<(&'a [u8], StepRecord)>> {
    let mut found = Vec::new();
    for (i, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let (text, whole) = match line.strip_suffix(b"\n") {
            Some(text) => (text.trim_ascii_end(), true),
            None => (line, false),
        };
        if text.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(text) {
            Ok(record) => found.push((text, record)),
            Err(_) if !whole => {}
            Err(error) => {
                // Remove the parser's line number, which is always 1.
                let message = error.to_string();
                let reason = message.rsplit_once(" at line ");
                let reason = reason.map_or(message.as_str(), |(reason, _)| reason);
                return Err(Error::Data {
                    path: path.to_path_buf(),
                    line: i + 1,
                    reason: format!("not a record of a step: {reason}"),
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> StepRecord {
        StepRecord::new(step).with("reward", step as f64 / 3.0)
    }

    fn steps(path: &Path) -> Vec<u64> {
        let records = read_metrics(path).unwrap();
        records.iter().map(|record| record.step).collect()
    }

    #[test]
    fn leftovers_of_an_interrupted_rewrite_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::create(&path).unwrap();
        file.on_step(&StepRecord::new(1).with("reward", 0.5))
            .unwrap();
        fs::write(folder.path().join(".writing-metrics.jsonl"), "half").unwrap();
        MetricsFile::resume(&path, 1).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(read_metrics(&path).unwrap().len(), 1);
    }

    #[test]
    fn written_records_are_read_and_create_truncates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs/one/metrics.jsonl");
        let mut file = MetricsFile::create(&path).unwrap();
        file.on_step(&record(1)).unwrap();
        file.on_step(&record(2)).unwrap();
        assert_eq!(file.path(), path);
        // Writes are unbuffered: the file is still open.
        assert_eq!(read_metrics(&path).unwrap(), [record(1), record(2)]);
        MetricsFile::create(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn resuming_drops_later_steps_and_an_incomplete_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        // Lines are kept byte for byte, whatever their number format.
        let kept = "{\"step\":1,\"reward\":1.50}\n{\"reward\":null,\"step\":2}\n";
        fs::write(&path, format!("{kept}{{\"step\":3}}\n{{\"step\":4,\"rew")).unwrap();
        assert_eq!(steps(&path), [1, 2, 3]);
        let mut file = MetricsFile::resume(&path, 2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), kept);
        file.on_step(&StepRecord::new(3).with("kl", 0.5)).unwrap();
        let text = format!("{kept}{{\"step\":3,\"kl\":0.5}}\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_complete_line_without_its_end_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":1}\n\n{\"step\":2}").unwrap();
        let mut file = MetricsFile::resume(&path, 9).unwrap();
        file.on_step(&record(3)).unwrap();
        assert_eq!(steps(&path), [1, 2, 3]);
        // Every prefix of a line is an incomplete line.
        for torn in [
            "{",
            "{\"step\":2",
            "{\"step\":",
            "\u{fffd}",
            "{\"step\":2,\"reward\":1",
        ] {
            fs::write(&path, format!("{{\"step\":1}}\n{torn}")).unwrap();
            MetricsFile::resume(&path, 9).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n");
        }
    }

    #[test]
    fn resuming_without_a_file_creates_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/metrics.jsonl");
        MetricsFile::resume(&path, 7)
            .unwrap()
            .on_step(&record(8))
            .unwrap();
        assert_eq!(steps(&path), [8]);
    }

    #[test]
    fn errors_name_the_line_and_leave_the_file_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        for (line, reason) in [
            ("{\"reward\":1}", "missing field `step`"),
            ("{\"step\":2,", "EOF while parsing a value"),
            (
                "{\"step\":2,\"reward\":\"x\"}",
                "invalid type: string \"x\", expected f64",
            ),
        ] {
            let text = format!("{{\"step\":1}}\r\n{line}\n{{\"step\":3}}\n");
            fs::write(&path, &text).unwrap();
            let expected = format!("{}:2: not a record of a step: {reason}", path.display());
            assert_eq!(read_metrics(&path).unwrap_err().to_string(), expected);
            let error = MetricsFile::resume(&path, 1).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let missing = read_metrics(folder.path().join("none.jsonl"));
        assert!(matches!(missing, Err(Error::Io { .. })));
    }

    #[test]
    fn a_metric_called_step_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::create(&path).unwrap();
        let error = file.on_step(&record(1).with("step", 1.0)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("invalid `metrics`: a metric is called `step`")
        );
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
