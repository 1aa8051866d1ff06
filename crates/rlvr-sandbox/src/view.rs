//! What a program sees of the files: the steps that build its own root, and the landlock rules for it.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libc::{MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT};

use super::landlock::Right;
use super::step::Step;

/// Programs and libraries, where systems have them, and what the loader needs to find them.
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
/// Names that programs expect, as what they mean inside.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    (TMP, "/dev/shm"),
];
/// The program's files, in its view.
pub(super) const BOX: &str = "/box";
/// What the program may write, in its view.
pub(super) const TMP: &str = "/tmp";

/// A path for a system call. Paths with a NUL cannot exist, and are refused with everything else that is missing.
pub(super) fn text(path: impl AsRef<Path>) -> CString {
    let bytes = path.as_ref().as_os_str().as_bytes();
    CString::new(bytes).unwrap_or_else(|_| CString::from(c"/nonexistent"))
}

/// What may be read and executed: a list of paths that exist, each with what it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Readable {
    /// Folders and files by their real path.
    real: Vec<(PathBuf, bool)>,
    /// (link, target as it is written).
    links: Vec<(PathBuf, PathBuf)>,
}

impl Readable {
    /// The system's programs and libraries and `more`.
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

    /// Whether a path, as far as it exists, lies in it.
    pub(super) fn holds(&self, path: &Path) -> bool {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        self.real.iter().any(|(known, _)| real.starts_with(known))
    }
}

/// The folders of a run, on this side.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The program's files.
    pub(super) files: PathBuf,
    /// What it may write if there is no view of its own.
    pub(super) scratch: PathBuf,
    /// Where its view is put together.
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

/// The sizes of `/tmp`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

/// The steps, in a mount namespace of its own, after which the process sees only `readable`, its files and `/tmp`.
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
        // What is mounted from here on stays in this namespace.
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
        // The first is the root itself.
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
        // Processes only: what else is there tells about the machine.
        let only = "subset=pid";
        steps.push(mount(source, &proc_folder, Some("proc"), flags, only));
        // Nothing of the kernel can be set, whoever the user is.
        steps.push(Step::ReadOnly(text(&proc_folder)));
    }
    steps.push(Step::Chdir(text(root)));
    steps.push(Step::PivotHere);
    let flags = MS_REMOUNT | MS_BIND | MS_RDONLY | guarded;
    steps.push(mount(None, Path::new("/"), None, flags, ""));
    steps
}

/// A rule of landlock: a path as the process sees it when it restricts itself.
pub(super) struct Rule {
    pub(super) path: CString,
    pub(super) right: Right,
    pub(super) is_folder: bool,
    /// Whether the path may be missing.
    pub(super) optional: bool,
}

/// The rules, in the view that `mounts` makes, or without one if `own_view` is false.
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
    // Where the system's folders are links to elsewhere, the target is what counts.
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
