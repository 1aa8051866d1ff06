//! The files that a program sees: the steps that mount its root, and the Landlock rules for it.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libc::{MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT};

use super::landlock::Right;
use super::step::Step;

/// Where systems have programs and libraries, and the files by which the loader finds them.
const SYSTEM: [&str; 9] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/alternatives",
];
const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];
/// Links that programs expect: target, name.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    (TMP, "/dev/shm"),
];
/// The folder of the program's files, as the program sees it.
pub(super) const BOX: &str = "/box";
/// The folder that the program may write to, as the program sees it.
pub(super) const TMP: &str = "/tmp";

/// Converts a path for a system call. A path with a NUL becomes one that does not exist.
pub(super) fn text(path: impl AsRef<Path>) -> CString {
    let bytes = path.as_ref().as_os_str().as_bytes();
    CString::new(bytes).unwrap_or_else(|_| CString::from(c"/nonexistent"))
}

/// The existing paths that may be read and executed.
#[derive(Clone, Debug, Default)]
pub(super) struct Readable {
    /// The real path, and whether it is a folder.
    real: Vec<(PathBuf, bool)>,
    /// A link, and its target as written.
    links: Vec<(PathBuf, PathBuf)>,
}

impl Readable {
    /// The system's programs and libraries, and the paths in `more`.
    pub(super) fn new(more: &[PathBuf]) -> Self {
        let mut readable = Self::default();
        for path in SYSTEM.iter().map(Path::new) {
            match fs::read_link(path) {
                Ok(target) => readable.links.push((path.to_path_buf(), target)),
                Err(_) => readable.add(path),
            }
        }
        for path in more {
            readable.add(path);
        }
        readable
    }

    fn add(&mut self, path: &Path) {
        let Ok(real) = fs::canonicalize(path) else {
            return;
        };
        if real != path && !self.real.iter().any(|(known, _)| path.starts_with(known)) {
            self.links.push((path.to_path_buf(), real.clone()));
        }
        if !self.real.iter().any(|(known, _)| real.starts_with(known)) {
            let is_folder = real.is_dir();
            self.real.push((real, is_folder));
        }
    }

    /// Returns whether a path lies in one of the readable paths.
    pub(super) fn holds(&self, path: &Path) -> bool {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        self.real.iter().any(|(known, _)| real.starts_with(known))
    }
}

/// The folders of a run, as this process sees them.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The program's files.
    pub(super) files: PathBuf,
    /// The folder that it may write to without a mount namespace.
    pub(super) scratch: PathBuf,
    /// The mount point of its root.
    pub(super) root: PathBuf,
}

impl Place {
    pub(super) fn below(top: &Path) -> Self {
        Self {
            files: top.join("files"),
            scratch: top.join("scratch"),
            root: top.join("root"),
        }
    }
}

fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: libc::c_ulong,
    data: &str,
) -> Step {
    Step::Mount {
        source: source.map(text),
        target: text(target),
        kind: kind.map(text),
        flags,
        data: (!data.is_empty()).then(|| text(data)),
        optional: false,
    }
}

/// The limits of `/tmp`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

/// Returns the steps in a new mount namespace after which a process sees only `readable`, its files
/// and `/tmp`.
pub(super) fn mounts(
    readable: &Readable,
    place: &Place,
    size: Size,
    proc: bool,
    may_write_files: bool,
) -> Vec<Step> {
    let root = &place.root;
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let tmpfs = "tmpfs";
    let guarded = MS_NOSUID | MS_NODEV;
    let mut steps = vec![
        // Keeps the following mounts in this namespace.
        mount(None, Path::new("/"), None, MS_REC | MS_PRIVATE, ""),
        mount(
            Some(Path::new(tmpfs)),
            root,
            Some(tmpfs),
            guarded,
            "size=1m,nr_inodes=4096,mode=755",
        ),
    ];
    let tmp = inside(Path::new(TMP));
    steps.push(Step::Mkdir(text(&tmp)));
    let sizes = format!("size={},nr_inodes={},mode=777", size.bytes, size.files);
    steps.push(mount(
        Some(Path::new(tmpfs)),
        &tmp,
        Some(tmpfs),
        guarded,
        &sizes,
    ));

    let mut made = BTreeSet::new();
    let mut parents = |path: &Path, steps: &mut Vec<Step>| {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        // Without the root itself.
        for folder in above.into_iter().skip(1) {
            if made.insert(folder.to_path_buf()) {
                steps.push(Step::Mkdir(text(inside(folder))));
            }
        }
    };
    for (path, is_folder) in &readable.real {
        let target = inside(path);
        parents(path, &mut steps);
        steps.push(match is_folder {
            true => Step::Mkdir(text(&target)),
            false => Step::Touch(text(&target)),
        });
        steps.push(mount(Some(path), &target, None, MS_BIND | MS_REC, ""));
        steps.push(Step::ReadOnly(text(&target)));
    }
    for (link, target) in &readable.links {
        parents(link, &mut steps);
        steps.push(Step::Symlink {
            target: text(target),
            link: text(inside(link)),
        });
    }

    let files = inside(Path::new(BOX));
    steps.push(Step::Mkdir(text(&files)));
    steps.push(mount(Some(&place.files), &files, None, MS_BIND, ""));
    if !may_write_files {
        steps.push(Step::ReadOnly(text(&files)));
    }

    steps.push(Step::Mkdir(text(inside(Path::new("/dev")))));
    for device in DEVICES.iter().map(Path::new).filter(|path| path.exists()) {
        let target = inside(device);
        steps.push(Step::Touch(text(&target)));
        steps.push(mount(Some(device), &target, None, MS_BIND, ""));
    }
    for (target, link) in LINKS {
        steps.push(Step::Symlink {
            target: text(target),
            link: text(inside(Path::new(link))),
        });
    }
    let proc_folder = inside(Path::new("/proc"));
    steps.push(Step::Mkdir(text(&proc_folder)));
    if proc {
        let flags = guarded | MS_NOEXEC;
        let source = Some(Path::new("proc"));
        // Processes only: the rest describes the machine.
        let only = "subset=pid";
        steps.push(mount(source, &proc_folder, Some("proc"), flags, only));
        // No kernel setting can be changed, even by root.
        steps.push(Step::ReadOnly(text(&proc_folder)));
    }
    steps.push(Step::Chdir(text(root)));
    steps.push(Step::PivotHere);
    let flags = MS_REMOUNT | MS_BIND | MS_RDONLY | guarded;
    steps.push(mount(None, Path::new("/"), None, flags, ""));
    steps
}

/// A Landlock rule: a path as the process sees it when it restricts itself.
pub(super) struct Rule {
    pub(super) path: CString,
    pub(super) right: Right,
    pub(super) is_folder: bool,
    /// Whether the path may be missing.
    pub(super) optional: bool,
}

/// Returns the rules for the root that `mounts` builds, or for this process's root if `own_view` is
/// false.
pub(super) fn rules(
    readable: &Readable,
    place: &Place,
    own_view: bool,
    may_write_files: bool,
) -> Vec<Rule> {
    let rule = |path: &Path, right, is_folder| Rule {
        path: text(path),
        right,
        is_folder,
        optional: false,
    };
    let mut rules: Vec<Rule> = readable
        .real
        .iter()
        .map(|(path, is_folder)| rule(path, Right::Programs, *is_folder))
        .collect();
    // Opening a link opens its target, to which the rule then applies.
    rules.extend(readable.links.iter().filter_map(|(link, _)| {
        let is_folder = fs::metadata(link).ok()?.is_dir();
        Some(Rule {
            optional: true,
            ..rule(link, Right::Programs, is_folder)
        })
    }));
    for device in DEVICES.iter().map(Path::new).filter(|path| path.exists()) {
        rules.push(rule(device, Right::Device, false));
    }
    let files = if may_write_files {
        Right::Own
    } else {
        Right::Programs
    };
    if own_view {
        rules.push(rule(Path::new(BOX), files, true));
        rules.push(rule(Path::new(TMP), Right::Own, true));
        rules.push(Rule {
            optional: true,
            ..rule(Path::new("/proc"), Right::Read, true)
        });
    } else {
        rules.push(rule(&place.files, files, true));
        rules.push(rule(&place.scratch, Right::Own, true));
    }
    rules
}
