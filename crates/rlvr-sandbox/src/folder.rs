//! The folder of a run: private to the run's user, and removed with whatever the program put into
//! it.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::view::Place;

/// A folder that is removed with everything in it.
#[derive(Debug)]
pub(super) struct RunFolder {
    top: Option<tempfile::TempDir>,
    pub(super) place: Place,
    owner: Option<u32>,
}

impl RunFolder {
    /// Creates a folder in `parent` for the user `owner`, by default for this one.
    pub(super) fn new(parent: &Path, owner: Option<u32>) -> io::Result<Self> {
        let top = tempfile::Builder::new()
            .prefix("rlvr-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let place = Place::below(top.path());
        for folder in [&place.files, &place.scratch, &place.root] {
            fs::create_dir(folder)?;
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        let folder = Self {
            top: Some(top),
            place,
            owner,
        };
        for path in [&folder.place.files, &folder.place.scratch] {
            folder.give(path)?;
        }
        if let Some(top) = &folder.top {
            folder.give(top.path())?;
        }
        Ok(folder)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.owner {
            Some(owner) => std::os::unix::fs::lchown(path, Some(owner), Some(owner)),
            None => Ok(()),
        }
    }

    /// Writes one of the program's files. A link of that name, which an earlier run may have left,
    /// is replaced.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.place.files.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        io::Write::write_all(&mut file, bytes)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        self.give(&path)
    }

    /// Removes what an earlier run has written, and restores the modes of the folders, which it may
    /// have changed.
    pub(super) fn empty_scratch(&self) -> io::Result<()> {
        if let Some(top) = &self.top {
            make_accessible(top.path())?;
        }
        make_accessible(&self.place.files)?;
        make_accessible(&self.place.scratch)?;
        empty(&self.place.scratch)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Deep nesting makes `remove_dir_all` fail, which keeps a descriptor open for each level.
        for folder in [&self.place.scratch, &self.place.files] {
            let _ = make_accessible(folder);
            if let Err(error) = empty(folder) {
                tracing::warn!(folder = %folder.display(), %error, "could not empty the folder of a run");
            }
        }
        if let Some(top) = self.top.take()
            && let Err(error) = top.close()
        {
            tracing::warn!(%error, "could not remove the folder of a run");
        }
    }
}

/// Sets the mode of a folder to 0700. A link is an error.
fn make_accessible(folder: &Path) -> io::Result<()> {
    // `O_PATH` needs no permission on the folder itself.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    Ok(rustix::fs::chmod(path, Mode::RWXU)?)
}

/// Removes the content of a folder without following links, without recursion and with at most two
/// open descriptors.
///
/// The content of a folder that is not empty is moved up, so that only one level is ever opened.
fn empty(folder: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(folder, flags, Mode::empty())?;
    let mut moved = 0u64;
    // Each round removes every file and every empty folder, and replaces each other folder by its
    // content.
    loop {
        let names = names(&top)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            let name = name.as_c_str();
            match rustix::fs::unlinkat(&top, name, AtFlags::empty()) {
                Ok(()) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            // A folder, perhaps without permissions. No process of the run is left that could
            // replace it by a link.
            match rustix::fs::unlinkat(&top, name, AtFlags::REMOVEDIR) {
                Ok(()) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            rustix::fs::chmodat(&top, name, Mode::RWXU, AtFlags::empty())?;
            let inner = rustix::fs::openat(&top, name, flags, Mode::empty())?;
            for child in self::names(&inner)? {
                let child = child.as_c_str();
                match rustix::fs::unlinkat(&inner, child, AtFlags::empty()) {
                    Ok(()) => continue,
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Err(error) => return Err(error.into()),
                }
                // Moving a folder changes its `..`, for which it must be writable.
                rustix::fs::chmodat(&inner, child, Mode::RWXU, AtFlags::empty())?;
                loop {
                    let free = format!(".moved-{moved}");
                    moved += 1;
                    match rustix::fs::renameat(&inner, child, &top, &free) {
                        Ok(()) => break,
                        // The run has used this name.
                        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            rustix::fs::unlinkat(&top, name, AtFlags::REMOVEDIR)?;
        }
    }
}

fn names(folder: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn everything_in_the_folder_is_removed_and_nothing_outside() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        let parent = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(parent.path(), None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.place.files.parent().unwrap()), 0o700);
        assert_eq!(mode(&folder.place.files), 0o700);

        let scratch = folder.place.scratch.clone();
        symlink(outside.path(), scratch.join("folder")).unwrap();
        symlink(outside.path().join("kept"), scratch.join("file")).unwrap();
        fs::create_dir(scratch.join(".moved-0")).unwrap();
        fs::write(scratch.join(".moved-1"), "in the way").unwrap();
        // Deeper than the number of files that a process may open, built from inside out.
        let deep = scratch.join("deep");
        fs::create_dir(&deep).unwrap();
        for _ in 0..1200 {
            let up = scratch.join("up");
            fs::create_dir(&up).unwrap();
            fs::rename(&deep, up.join("d")).unwrap();
            fs::rename(&up, &deep).unwrap();
        }
        let locked = scratch.join("locked");
        fs::create_dir_all(locked.join("inner/most")).unwrap();
        fs::write(locked.join("inner/file"), "x").unwrap();
        fs::set_permissions(locked.join("inner"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
        // The program's file is a link: it is replaced, not followed.
        symlink(
            outside.path().join("kept"),
            folder.place.files.join("main.py"),
        )
        .unwrap();
        folder.write("main.py", b"pass").unwrap();

        folder.empty_scratch().unwrap();
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
        symlink(outside.path(), folder.place.files.join("again")).unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        let kept = fs::read_to_string(outside.path().join("kept")).unwrap();
        assert_eq!(kept, "kept");
    }
}
