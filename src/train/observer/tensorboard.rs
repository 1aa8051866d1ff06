//! The metrics of a run as TensorBoard event files.
//!
//! The format is TensorFlow's: records with a length and two checksums, each with an `Event` as a
//! protocol buffer. Only the fields that scalars need are written.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Observer, RunInfo, StepRecord};
use crate::folder::create;
use crate::{Error, Result};

/// Writes every metric as a scalar to an event file, for `tensorboard --logdir FOLDER`.
///
/// Tags are metric names, which TensorBoard groups by their first part (`rewards/`, `time/`). Each
/// run and each resumption creates a new file in the folder. A file records its first step, from
/// which on TensorBoard ignores earlier files in the folder.
///
/// Values are rounded to f32; NaN and infinities are written too.
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("event_file_{}", std::process::id()));
/// use rlvr::train::observer::{EventFile, Observer, RunInfo, StepRecord};
///
/// let mut events = EventFile::create(folder.join("sums"))?;
/// events.on_start(&RunInfo::default())?;
/// events.on_step(&StepRecord::new(1).with("reward", 0.5))?;
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Creates a new event file in `folder`, and the folder.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file or the folder cannot be created.
    pub fn create(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        create(folder)?;
        // TensorBoard reads files in the order of their names, which contain the time in seconds: a
        // later run needs a later name.
        let mut seconds = now() as u64;
        if let Some(latest) = latest(folder)? {
            seconds = seconds.max(latest + 1);
        }
        loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.rlvr"));
            let opened = OpenOptions::new().append(true).create_new(true).open(&path);
            match opened {
                Ok(file) => {
                    let mut this = Self { path, file };
                    let mut event = event(0);
                    text(&mut event, 3, b"brain.Event:2");
                    this.write(&event)?;
                    return Ok(this);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => seconds += 1,
                Err(error) => return Err(Error::io(&path, error)),
            }
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an event as a record: length, its checksum, the bytes, their checksum.
    fn write(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend_from_slice(&length);
        record.extend_from_slice(&masked_crc(&length).to_le_bytes());
        record.extend_from_slice(event);
        record.extend_from_slice(&masked_crc(event).to_le_bytes());
        self.file
            .write_all(&record)
            .and_then(|()| self.file.flush())
            .map_err(|source| Error::io(&self.path, source))
    }
}

impl Observer for EventFile {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        let first = match run.first_step {
            0 => 0,
            done => done + 1,
        };
        let mut event = event(first);
        // The start of a session: `SessionLog { status: START }`.
        text(&mut event, 7, &[1 << 3, 1]);
        self.write(&event)
    }

    /// # Errors
    /// Returns [`Error::Io`] if writing fails.
    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        let mut summary = Vec::new();
        for (name, &value) in &record.metrics {
            let mut scalar = Vec::new();
            text(&mut scalar, 1, name.as_bytes());
            scalar.push(2 << 3 | 5);
            scalar.extend_from_slice(&(value as f32).to_le_bytes());
            text(&mut summary, 1, &scalar);
        }
        let mut event = event(record.step);
        text(&mut event, 5, &summary);
        self.write(&event)
    }

    fn sync(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|source| Error::io(&self.path, source))
    }
}

/// Returns the number in the name of the latest event file that this crate wrote in `folder`.
fn latest(folder: &Path) -> Result<Option<u64>> {
    let mut latest = None;
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let name = entry.map_err(|e| Error::io(folder, e))?.file_name();
        let name = name.to_string_lossy();
        let seconds = name
            .strip_prefix("events.out.tfevents.")
            .and_then(|name| name.strip_suffix(".rlvr"));
        latest = latest.max(seconds.and_then(|seconds| seconds.parse().ok()));
    }
    Ok(latest)
}

/// Returns the seconds since 1970.
fn now() -> f64 {
    // A clock before 1970 is wrong, but not fatal.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Returns an `Event` with its time and step.
fn event(step: u64) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend_from_slice(&now().to_le_bytes());
    event.push(2 << 3);
    varint(&mut event, step);
    event
}

/// Appends a length-delimited field: a string or an embedded message.
fn text(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// Returns the masked CRC-32C (Castagnoli) of the TFRecord format.
fn masked_crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let crc = !bytes.iter().fold(!0u32, |crc, &byte| {
        TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    });
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = match crc & 1 {
                1 => crc >> 1 ^ 0x82F6_3B78,
                _ => crc >> 1,
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events in a file, with both checksums checked.
    fn events(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(12);
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            assert_eq!(head[8..], masked_crc(&head[..8]).to_le_bytes());
            assert_eq!(
                tail[length..length + 4],
                masked_crc(&tail[..length]).to_le_bytes()
            );
            found.push(tail[..length].to_vec());
            rest = &tail[length + 4..];
        }
        found
    }

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720, B.4, and the check value of the CRC catalogue.
        let plain = |bytes: &[u8]| {
            let rotated = masked_crc(bytes).wrapping_sub(0xA282_EAD8);
            rotated.rotate_left(15)
        };
        assert_eq!(plain(b"123456789"), 0xE306_9283);
        assert_eq!(plain(&[0; 32]), 0x8A91_36AA);
        assert_eq!(plain(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(plain(b""), 0);
    }

    #[test]
    fn a_step_is_one_event_with_all_scalars() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path().join("a/b")).unwrap();
        file.on_start(&RunInfo::default()).unwrap();
        let record = StepRecord::new(300).with("kl", 0.5).with("reward", 1.25);
        file.on_step(&record).unwrap();
        let events = events(file.path());
        assert_eq!(events.len(), 3);
        assert!(events[0].ends_with(b"\x10\x00\x1a\x0dbrain.Event:2"));
        assert!(events[1].ends_with(b"\x10\x00\x3a\x02\x08\x01"));
        let mut expected = b"\x10\xac\x02\x2a\x1a".to_vec();
        expected.extend_from_slice(b"\x0a\x09\x0a\x02kl\x15\x00\x00\x00\x3f");
        expected.extend_from_slice(b"\x0a\x0d\x0a\x06reward\x15\x00\x00\xa0\x3f");
        assert!(events[2].ends_with(&expected), "{:?}", events[2]);
        assert_eq!((events[2][0], events[2].len()), (0x09, 9 + expected.len()));
    }

    #[test]
    fn every_resumption_has_a_later_file() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..3)
            .map(|_| {
                EventFile::create(folder.path())
                    .unwrap()
                    .path()
                    .to_path_buf()
            })
            .collect();
        assert!(files[0] < files[1] && files[1] < files[2], "{files:?}");
        let mut file = EventFile::create(folder.path()).unwrap();
        let run = RunInfo {
            first_step: 40,
            ..RunInfo::default()
        };
        file.on_start(&run).unwrap();
        assert!(events(file.path())[1].ends_with(b"\x10\x29\x3a\x02\x08\x01"));
    }
}
