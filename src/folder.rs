//! Folders that are there whole or not at all.

use std::fs::{self, File};
use std::path::Path;

use crate::{Error, Result};

/// Removes a folder with everything in it; one that is not there is fine.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    Ok(())
}

/// Forces a file, or the entries of a folder, to disk.
pub(crate) fn sync(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    file.sync_all().map_err(|e| Error::io(path, e))
}

/// Forces the files of a folder, then the folder itself, to disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        sync(&entry.map_err(|e| Error::io(folder, e))?.path())?;
    }
    sync(folder)
}

/// Makes the folder `path` with what `write` puts into it: written beside its place, forced to disk, renamed. A process that is
/// killed, or a `write` that fails, leaves what was there before, and perhaps a hidden folder that the next call removes.
///
/// # Errors
/// If `path` is a file or a folder with something in it and may not be replaced; or if writing fails.
#[cfg(feature = "hf")]
pub(crate) fn write_whole(
    path: &Path,
    replace: bool,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let occupied = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(Error::io(path, error)),
    };
    if occupied && !replace {
        let reason =
            "the folder is not empty; expected a new or an empty one, or leave to replace it";
        return Err(Error::model_file(path, reason));
    }
    let [temporary, old] = [".writing", ".replaced"].map(|suffix| beside(path, suffix));
    remove(&temporary)?;
    fs::create_dir_all(&temporary).map_err(|e| Error::io(&temporary, e))?;
    let written = write(&temporary).and_then(|()| sync_folder(&temporary));
    if let Err(error) = written {
        // The first error is the one to tell.
        let _ = remove(&temporary);
        return Err(error);
    }
    remove(&old)?;
    if path.exists() {
        fs::rename(path, &old).map_err(|e| Error::io(path, e))?;
    }
    fs::rename(&temporary, path).map_err(|e| Error::io(path, e))?;
    remove(&old)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

/// `.name` + `suffix` beside `path`.
#[cfg(feature = "hf")]
fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    path.with_file_name(name)
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
    }
}
