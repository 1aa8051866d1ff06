//! Sets of demonstrations, in memory or in a file of any size.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::example::SftExample;
use crate::fnv::Fnv;
use crate::{Error, Result};

/// The beginning of the report lines of a rejection sampler.
const REPORT: &[u8] = b"{\"report\":";

/// Demonstrations by index: a [`Vec`] of them, a [`DemonstrationFile`], or a custom type.
///
/// Examples are read when an update needs them, so they need not fit in memory. Equal indices must
/// give equal examples.
///
/// ```
/// use rlvr::train::{Demonstration, DemonstrationSet, SftExample};
///
/// /// The sums of two digits.
/// struct Sums;
///
/// impl DemonstrationSet for Sums {
///     fn len(&self) -> usize {
///         100
///     }
///
///     fn get(&self, index: usize) -> rlvr::Result<SftExample> {
///         let (a, b) = (index / 10, index % 10);
///         Ok(Demonstration::new(format!("{a}+{b}="), (a + b).to_string()).into())
///     }
/// }
///
/// assert_eq!(Sums.get(37)?, Demonstration::new("3+7=", "10").into());
/// # Ok::<(), rlvr::Error>(())
/// ```
pub trait DemonstrationSet: Send + Sync {
    /// Returns the number of demonstrations.
    fn len(&self) -> usize;

    /// Returns whether there are no demonstrations.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the demonstration at `index`, which is below [`len`](Self::len).
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    fn get(&self, index: usize) -> Result<SftExample>;

    /// Returns the name of the demonstration at `index` in errors.
    fn name(&self, index: usize) -> String {
        format!("demonstration {index}")
    }

    /// Returns a hash of the contents and their order. A checkpoint can only be loaded by a job
    /// with the same fingerprint. The default reads every demonstration.
    ///
    /// # Errors
    /// Returns an error if the set cannot be read.
    fn fingerprint(&self) -> Result<u64> {
        let mut hash = Fnv::default();
        for index in 0..self.len() {
            let example = self.get(index)?;
            let text = serde_json::to_string(&example).unwrap_or_default();
            hash.text_and_end(&text);
        }
        Ok(hash.finish())
    }
}

/// Demonstrations in memory.
impl<T: Clone + Into<SftExample> + Send + Sync> DemonstrationSet for Vec<T> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn get(&self, index: usize) -> Result<SftExample> {
        DemonstrationSet::get(&self.as_slice(), index)
    }
}

/// Borrowed demonstrations in memory.
impl<T: Clone + Into<SftExample> + Send + Sync> DemonstrationSet for &[T] {
    fn len(&self) -> usize {
        <[T]>::len(self)
    }

    fn get(&self, index: usize) -> Result<SftExample> {
        let found = <[T]>::get(self, index).cloned().map(Into::into);
        found.ok_or_else(|| Error::shape("demonstration", index, format!("below {}", self.len())))
    }
}

/// Demonstrations in a JSON Lines file, which are read on demand. Only the position of each line is
/// in memory, 24 bytes.
///
/// A line is `{"prompt": .., "response": ..}` or `{"messages": [..]}` ([`SftExample`]); other
/// fields are ignored. Blank lines, a byte order mark and CRLF line ends are accepted. The output
/// of a [`RejectionSampler`](crate::train::RejectionSampler) can be used directly: its report lines
/// are skipped. The file must not change while it is in use.
#[derive(Debug)]
pub struct DemonstrationFile {
    path: PathBuf,
    file: Mutex<File>,
    lines: Vec<Line>,
    fingerprint: u64,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    offset: u64,
    bytes: usize,
    number: usize,
}

impl DemonstrationFile {
    /// Opens the file at `path` and indexes its lines, without parsing them.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read, and [`Error::Data`] if it has no lines.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let io = |source| Error::io(&path, source);
        let mut reader = BufReader::with_capacity(1 << 20, File::open(&path).map_err(io)?);
        let mut hash = crc32fast::Hasher::new();
        let (mut lines, mut offset, mut bytes) = (Vec::new(), 0, Vec::new());
        for number in 1.. {
            bytes.clear();
            let read = reader.read_until(b'\n', &mut bytes).map_err(io)?;
            if read == 0 {
                break;
            }
            hash.update(&bytes);
            let skipped = match number {
                1 if bytes.starts_with(b"\xef\xbb\xbf") => 3,
                _ => 0,
            };
            let text = bytes[skipped..].trim_ascii();
            if !text.is_empty() && !text.starts_with(REPORT) {
                lines.push(Line {
                    offset: offset + skipped as u64,
                    bytes: read - skipped,
                    number,
                });
            }
            offset += read as u64;
        }
        if lines.is_empty() {
            return Err(Error::Data {
                path,
                line: 1,
                reason: "no demonstrations; expected one JSON object per line".into(),
            });
        }
        Ok(Self {
            file: Mutex::new(reader.into_inner()),
            path,
            lines,
            fingerprint: u64::from(hash.finalize()),
        })
    }

    fn read(&self, line: Line) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; line.bytes];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(line.offset))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl DemonstrationSet for DemonstrationFile {
    fn len(&self) -> usize {
        self.lines.len()
    }

    fn get(&self, index: usize) -> Result<SftExample> {
        let known = self.lines.get(index).copied();
        let line = known.ok_or_else(|| {
            Error::shape(
                "demonstration",
                index,
                format!("below {}", self.lines.len()),
            )
        })?;
        let bytes = self.read(line).map_err(|e| Error::io(&self.path, e))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            format!("invalid UTF-8 after {valid} bytes")
        });
        let example = text.and_then(|text| SftExample::parse(text.trim()));
        example.map_err(|reason| Error::Data {
            path: self.path.clone(),
            line: line.number,
            reason,
        })
    }

    fn name(&self, index: usize) -> String {
        let line = self.lines.get(index).map_or(0, |line| line.number);
        format!("{}:{line}", self.path.display())
    }

    fn fingerprint(&self) -> Result<u64> {
        Ok(self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::example::Demonstration;
    use super::*;

    #[test]
    fn lines_are_indexed_past_blank_and_invalid_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shown.jsonl");
        let line = |i: usize| format!(r#"{{"prompt": "{i}", "response": "ä{i}"}}"#);
        let text = format!(
            "\u{feff}{}\r\n\n  \n{}\n{{\"prompt\": 3}}\n{}",
            line(0),
            line(1),
            line(2)
        );
        fs::write(&path, &text).unwrap();
        let file = DemonstrationFile::open(&path).unwrap();
        assert_eq!(file.len(), 4);
        for (index, number) in [(3, 2), (0, 0), (1, 1), (0, 0)] {
            let expected = Demonstration::new(number.to_string(), format!("ä{number}"));
            assert_eq!(file.get(index).unwrap(), expected.into());
        }
        let error = file.get(2).unwrap_err().to_string();
        assert!(error.contains("shown.jsonl:5: "), "{error}");
        assert!(file.name(3).ends_with("shown.jsonl:6"));
        assert!(file.get(4).unwrap_err().to_string().contains("below 4"));

        let again = DemonstrationFile::open(&path).unwrap();
        assert_eq!(again.fingerprint().unwrap(), file.fingerprint().unwrap());
        fs::write(&path, text.replace('2', "4")).unwrap();
        let other = DemonstrationFile::open(&path).unwrap();
        assert_ne!(other.fingerprint().unwrap(), file.fingerprint().unwrap());
        fs::write(&path, "\n \n").unwrap();
        assert!(DemonstrationFile::open(&path).is_err());
        fs::write(&path, b"{\"prompt\": \"\xff\"}").unwrap();
        let broken = DemonstrationFile::open(&path).unwrap();
        assert!(broken.get(0).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn fingerprints_depend_on_contents_and_order() {
        let set = |texts: &[&str]| {
            let one = |text: &&str| Demonstration::new(*text, "x");
            let all: Vec<Demonstration> = texts.iter().map(one).collect();
            all.fingerprint().unwrap()
        };
        assert_eq!(set(&["a", "b"]), set(&["a", "b"]));
        assert_ne!(set(&["a", "b"]), set(&["b", "a"]));
        assert_ne!(set(&["ab"]), set(&["a", "b"]));
    }
}
