//! Files that are whole or absent.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Puts `bytes` at `path`: written beside it as `<name>.tmp`, synced, renamed. Whoever reads `path` meanwhile sees the old file
/// or the new one, and a process that is killed leaves one of the two.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written or renamed; the old file is then still there.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    create_parent(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        // Without this the rename can reach the disk before the bytes do.
        file.sync_all()
    };
    write().map_err(|source| Error::io(&beside, source))?;
    fs::rename(&beside, path).map_err(|source| Error::io(path, source))
}

/// Creates the folder that `path` is to lie in, and those above it.
///
/// # Errors
/// [`Error::Io`] naming the folder.
pub(super) fn create_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(|source| Error::io(folder, source)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_file_takes_the_place_of_the_old_and_nothing_stays_beside() {
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
    }
}
