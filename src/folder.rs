//! Atomic writes of files and folders, checksums, and locks on folders.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The prefix of the names of temporary files and folders.
const WRITING: &str = ".writing-";
const LOCK: &str = ".lock";

/// Removes a folder and its contents, if it exists.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    Ok(())
}

/// Creates a folder and its parents, and syncs the closest folder that existed before.
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

/// Syncs a file, or the entries of a folder, to disk.
fn sync(path: &Path) -> Result<()> {
    // Only Unix can open a folder as a file.
    if cfg!(not(unix)) && path.is_dir() {
        return Ok(());
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    file.sync_all().map_err(|e| Error::io(path, e))
}

/// Syncs the contents of a folder, then the folder itself, to disk.
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

/// The folder that contains `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The temporary path of the folder `path`, unique to this process.
fn temporary(path: &Path) -> PathBuf {
    let mut name = half_file(path).into_os_string();
    name.push(format!("-{}", std::process::id()));
    name.into()
}

/// The temporary path of the file `path`.
fn half_file(path: &Path) -> PathBuf {
    let mut name = OsString::from(WRITING);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// The prefix of the names of the entries of a step.
pub(crate) const STEP: &str = "step-";

/// The name of the entry of `step`.
pub(crate) fn step_name(step: u64, suffix: &str) -> String {
    format!("{STEP}{step:08}{suffix}")
}

/// Lists the entries of `folder` that belong to a step and end with `suffix`, sorted by step. The
/// list is empty if there is no such folder.
///
/// # Errors
/// Returns [`Error::Io`] if the folder cannot be listed.
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

/// Removes the temporary file that a killed process left beside `path`.
pub(crate) fn remove_half_file(path: &Path) -> Result<()> {
    let half = half_file(path);
    match fs::remove_file(&half) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(&half, error)),
        _ => Ok(()),
    }
}

/// Replaces the folder `path` atomically.
///
/// `write` fills a temporary folder beside it, which is synced to disk. Then the previous folder is
/// renamed to `aside`, and the temporary one to `path`. If `write` fails, the previous folder is
/// unchanged and the temporary one is removed. If the process is killed, a hidden folder may be
/// left, or the previous folder at `aside`.
///
/// # Errors
/// Returns an error if writing fails.
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

/// Replaces the file `path` by `bytes` atomically, through a temporary file that is synced and
/// renamed. Other processes read the old file or the new one, even if this process is killed.
///
/// # Errors
/// Returns [`Error::Io`] if a file cannot be written or renamed; the old file is then unchanged.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    create(parent(path))?;
    let temporary = half_file(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        // Otherwise the rename could reach the disk before the bytes.
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

/// Writes the folder `path` atomically, as [`replace_folder`] does.
///
/// # Errors
/// Returns an error if `path` is a file, if it is a folder that is not empty and `replace` is
/// false, or if writing fails.
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
        // A previous process was killed between the two renames.
        fs::rename(&aside, path).map_err(|e| Error::io(path, e))?;
    }
    let occupied = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(Error::io(path, error)),
    };
    if occupied && !replace {
        let reason =
            "the folder is not empty; expected a new or an empty one, or permission to replace it";
        return Err(Error::model_file(path, reason));
    }
    replace_folder(path, &aside, write)
}

/// Returns the checksum (CRC-32) of each file of a folder, by name, without hidden files.
///
/// # Errors
/// Returns [`Error::Io`] if a file cannot be read.
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

/// Compares the files of a folder with the [`checksums`] from when they were written.
///
/// # Errors
/// Returns [`Error::Io`] for the first file that cannot be read, and [`Error::Checkpoint`] for the
/// first file that has changed.
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

/// An exclusive lock on a folder, held until the value is dropped.
#[derive(Debug)]
pub(crate) struct RunLock {
    folder: PathBuf,
    _file: File,
}

impl RunLock {
    /// Creates `folder` if it is missing, locks it, and removes the temporary files of killed
    /// processes.
    ///
    /// # Errors
    /// Returns [`Error::Checkpoint`] if another process, or another run of this one, holds the
    /// lock, and [`Error::Io`] if a file operation fails.
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
                // The other process may not have written its id yet.
                let _ = file.read_to_string(&mut holder);
                let reason = format!(
                    "another run is writing to this folder (process {}); expected a separate folder for each run",
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
    fn a_locked_folder_cannot_be_locked_again() {
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
    fn a_failed_write_leaves_the_previous_folder() {
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
    fn verify_finds_changed_and_missing_files() {
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
    fn replace_file_replaces_files_but_not_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file.txt");
        for text in ["a longer text", "short"] {
            replace_file(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // A folder cannot be replaced by a file; the error names it.
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
    fn write_whole_replaces_a_folder_only_if_allowed_and_only_on_success() {
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

        // Recovers from a process that was killed between the two renames.
        fs::rename(&place, root.path().join(".model.replaced")).unwrap();
        let refused = write_whole(&place, false, write("fourth")).unwrap_err();
        assert!(refused.to_string().contains("not empty"), "{refused}");
        assert_eq!(read(), "third");
    }
}
