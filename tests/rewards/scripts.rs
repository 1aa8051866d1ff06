//! Small Python programs as counterparts of the tests.

use std::path::PathBuf;
use std::process::Command;

/// The Python that runs the scripts; `None`, and a message, if there is none.
pub fn python() -> Option<&'static str> {
    let runs = Command::new("python3").arg("--version").output().is_ok();
    if !runs {
        eprintln!("skipped: there is no python3");
    }
    runs.then_some("python3")
}

/// A script of this name in a temporary folder.
pub fn script(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}
