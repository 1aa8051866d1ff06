//! Files and folders that are written whole or not at all, and folders that belong to one process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What the names of half-written files and folders begin with.
const WRITING: &str = ".writing-";
const LOCK: &str = ".lock";

/// Removes a folder with everything in it; one that is not there is fine.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    Ok(())
}

/// Creates a folder and those above it, durably: what was there before knows the first new one.
pub(crate) fn create(folder: &Path) -> Result<()> {
    let above = folder.ancestors().skip(1);
    let known = above.filter(|above| !above.as_os_str().is_empty());
    let known = known.into_iter().find(|above| above.exists());
    let is_new = !folder.exists();
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    match is_new {
        true => sync(known.unwrap_or(Path::new("."))),
        false => Ok(()),
    }
}

/// Forces a file, or the entries of a folder, to disk.
fn sync(path: &Path) -> Result<()> {
    // Other systems cannot open a folder as a file.
    if cfg!(not(unix)) && path.is_dir() {
        return Ok(());
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    file.sync_all().map_err(|e| Error::io(path, e))
}

/// Forces everything in a folder, then the folder itself, to disk.
fn sync_folder(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        match path.is_dir() {
            true => sync_folder(&path)?,
            false => sync(&path)?,
        }
    }
    sync(folder)
}

/// The folder that `path` lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Where the folder `path` is written before it takes its place; another process writes elsewhere.
fn temporary(path: &Path) -> PathBuf {
    let mut name = half_file(path).into_os_string();
    name.push(format!("-{}", std::process::id()));
    name.into()
}

/// Where the file `path` is written before it takes its place.
fn half_file(path: &Path) -> PathBuf {
    let mut name = OsString::from(WRITING);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// What every entry begins with that belongs to a step.
pub(crate) const STEP: &str = "step-";

/// The name of what belongs to `step`.
pub(crate) fn step_name(step: u64, suffix: &str) -> String {
    format!("{STEP}{step:08}{suffix}")
}

/// The entries of `folder` that belong to a step and end with `suffix`, in the order of steps; none if there is no such folder.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be listed.
pub(crate) fn steps(folder: &Path, suffix: &str) -> Result<Vec<(u64, PathBuf)>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let step = name.and_then(|name| name.strip_prefix(STEP)?.strip_suffix(suffix));
        if let Some(Ok(step)) = step.map(str::parse) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what a killed process left of an attempt to replace the file `path`.
pub(crate) fn remove_half_file(path: &Path) -> Result<()> {
    let half = half_file(path);
    match fs::remove_file(&half) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(&half, error)),
        _ => Ok(()),
    }
}

/// Makes the folder `path` with what `write` puts into it: written beside its place, forced to disk, renamed. What was there before
/// is called `aside` for the moment between two renames. A `write` that fails leaves what was there before, and nothing else; so
/// does a process that is killed, but for a hidden folder.
///
/// # Errors
/// If writing fails.
pub(crate) fn replace_folder(
    path: &Path,
    aside: &Path,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    create(parent(path))?;
    let temporary = temporary(path);
    remove(&temporary)?;
    let placed = fs::create_dir(&temporary)
        .map_err(|e| Error::io(&temporary, e))
        .and_then(|()| write(&temporary))
        .and_then(|()| sync_folder(&temporary))
        .and_then(|()| {
            if path.exists() {
                remove(aside)?;
                fs::rename(path, aside).map_err(|e| Error::io(path, e))?;
            }
            fs::rename(&temporary, path).map_err(|e| Error::io(path, e))
        });
    if let Err(error) = placed {
        // The first error is the one to report.
        let _ = remove(&temporary);
        if !path.exists() && aside.exists() {
            let _ = fs::rename(aside, path);
        }
        return Err(error);
    }
    sync(parent(path))?;
    remove(aside)
}

/// Puts `bytes` at `path`: written beside it, forced to disk, renamed. Whoever reads `path` meanwhile sees the old file or the new
/// one, and a process that is killed leaves one of the two.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written or renamed; the old file is then still there.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    create(parent(path))?;
    let temporary = half_file(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        // Without this the rename can reach the disk before the bytes do.
        file.sync_all()
    };
    let placed = write()
        .map_err(|source| Error::io(&temporary, source))
        .and_then(|()| fs::rename(&temporary, path).map_err(|source| Error::io(path, source)));
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    placed
}

/// Makes the folder `path` with what `write` puts into it, as [`replace_folder`] does.
///
/// # Errors
/// If `path` is a file or a folder with something in it and may not be replaced; or if writing fails.
#[cfg(feature = "hf")]
pub(crate) fn write_whole(
    path: &Path,
    replace: bool,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".replaced");
    let aside = path.with_file_name(name);
    if !path.exists() && aside.exists() {
        // A process was killed between the two renames.
        fs::rename(&aside, path).map_err(|e| Error::io(path, e))?;
    }
    let occupied = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(Error::io(path, error)),
    };
    if occupied && !replace {
        let reason =
            "the folder is not empty; expected a new or an empty one, or leave to replace it";
        return Err(Error::model_file(path, reason));
    }
    replace_folder(path, &aside, write)
}

/// A checksum (CRC-32) of each file of a folder, by name; files whose names begin with a dot are left out.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn checksums(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        if path.is_dir() {
            let within = checksums(&path)?.into_iter();
            sums.extend(within.map(|(file, sum)| (format!("{name}/{file}"), sum)));
        } else if !name.starts_with('.') {
            sums.insert(name, checksum(&path)?);
        }
    }
    Ok(sums)
}

/// The checksum of one file, as eight hexadecimal digits.
fn checksum(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
            0 => return Ok(format!("{:08x}", hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Checks the files of a folder against what [`checksums`] gave when they were written.
///
/// # Errors
/// [`Error::Checkpoint`] naming the first file that is missing or has changed.
pub(crate) fn verify(folder: &Path, sums: &BTreeMap<String, String>) -> Result<()> {
    for (name, expected) in sums {
        let path = folder.join(name);
        let found = checksum(&path)?;
        if found != *expected {
            let reason =
                format!("its checksum is {found}, expected {expected}: the file is damaged");
            return Err(Error::checkpoint(&path, reason));
        }
    }
    Ok(())
}

/// A folder that is this process's alone for as long as the value lives.
#[derive(Debug)]
pub(crate) struct RunLock {
    folder: PathBuf,
    _file: File,
}

impl RunLock {
    /// Creates `folder` if it is missing, locks it, and removes what killed processes left half-written in it.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if another process, or another run of this one, holds the lock.
    pub(crate) fn acquire(folder: &Path) -> Result<Self> {
        create(folder)?;
        let path = folder.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(|e| Error::io(&path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Whoever holds it may not have written its number yet.
                let _ = file.read_to_string(&mut holder);
                let reason = format!(
                    "another run is writing to this folder (process {}); expected a folder of its own for each run",
                    holder.trim()
                );
                return Err(Error::checkpoint(folder, reason));
            }
            Err(TryLockError::Error(error)) => return Err(Error::io(&path, error)),
        }
        let number = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all(number.as_bytes()))
            .map_err(|e| Error::io(&path, e))?;
        for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let path = entry.map_err(|e| Error::io(folder, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(WRITING) {
                match path.is_dir() {
                    true => remove(&path)?,
                    false => fs::remove_file(&path).map_err(|e| Error::io(&path, e))?,
                }
            }
        }
        let folder = folder.to_path_buf();
        Ok(Self {
            folder,
            _file: file,
        })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod lock_tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/run");
        let lock = RunLock::acquire(&folder).unwrap();
        assert_eq!(lock.folder(), folder);
        let refused = RunLock::acquire(&folder).unwrap_err().to_string();
        let process = std::process::id().to_string();
        assert!(
            refused.contains(&process) && refused.contains("run"),
            "{refused}"
        );
        drop(lock);
        RunLock::acquire(&folder).unwrap();
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_beside_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let (place, aside) = (root.path().join("step-1"), root.path().join("step-01"));
        let write = |text: &'static str| {
            move |folder: &Path| fs::write(folder.join("a"), text).map_err(|e| Error::io(folder, e))
        };
        replace_folder(&place, &aside, write("first")).unwrap();
        let failing = |folder: &Path| {
            write("half")(folder)?;
            Err(Error::checkpoint(folder, "the disk is full"))
        };
        replace_folder(&place, &aside, failing).unwrap_err();
        let read = || fs::read_to_string(place.join("a")).unwrap();
        assert_eq!(read(), "first");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        replace_folder(&place, &aside, write("second")).unwrap();
        assert_eq!(read(), "second");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_changed_bit_is_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("policy")).unwrap();
        let file = root.path().join("policy/weights");
        fs::write(&file, [1, 2, 3]).unwrap();
        let sums = checksums(root.path()).unwrap();
        verify(root.path(), &sums).unwrap();
        fs::write(&file, [1, 2, 2]).unwrap();
        let message = verify(root.path(), &sums).unwrap_err().to_string();
        assert!(
            message.contains("weights") && message.contains("damaged"),
            "{message}"
        );
        fs::remove_file(&file).unwrap();
        assert!(verify(root.path(), &sums).is_err());
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file.txt");
        for text in ["a longer text", "short"] {
            replace_file(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // A folder cannot be replaced, and the message says which one.
        let error = replace_file(&folder.path().join("a"), b"").unwrap_err();
        assert!(matches!(error, Error::Io { path, .. } if path.ends_with("a")));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[cfg(all(test, feature = "hf"))]
mod tests {
    use super::*;

    fn write(text: &str) -> impl FnOnce(&Path) -> Result<()> {
        move |folder| {
            let file = folder.join("a.txt");
            fs::write(&file, text).map_err(|e| Error::io(&file, e))
        }
    }

    #[test]
    fn a_folder_is_replaced_only_on_request_and_only_by_a_whole_one() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("model");
        let read = || fs::read_to_string(place.join("a.txt")).unwrap();
        write_whole(&place, false, write("first")).unwrap();
        assert_eq!(read(), "first");
        let refused = write_whole(&place, false, write("second")).unwrap_err();
        assert!(refused.to_string().contains("not empty"), "{refused}");
        let failing = |folder: &Path| {
            write("half")(folder)?;
            Err(Error::model_file(folder, "the disk is full"))
        };
        write_whole(&place, true, failing).unwrap_err();
        assert_eq!(read(), "first");
        write_whole(&place, true, write("third")).unwrap();
        assert_eq!(read(), "third");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);

        // Killed between the two renames, and called again.
        fs::rename(&place, root.path().join(".model.replaced")).unwrap();
        let refused = write_whole(&place, false, write("fourth")).unwrap_err();
        assert!(refused.to_string().contains("not empty"), "{refused}");
        assert_eq!(read(), "third");
    }
}
