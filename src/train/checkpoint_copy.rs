//! Copies of a checkpoint for learners that cannot read its folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::checkpoint_folder::MANIFEST;
use super::learners::LearnerGroup;
use crate::folder::remove;
use crate::{Error, Result};

/// The folder from which this learner reads a checkpoint: the original, or a temporary copy
/// received from the first learner, which is removed on drop.
pub(super) struct CheckpointCopy(Option<PathBuf>);

impl CheckpointCopy {
    /// Sends a copy of the first learner's checkpoint in `original` to each learner that does not
    /// have the same one.
    ///
    /// # Errors
    /// Returns an error if the first learner cannot read it, or another cannot write its copy.
    pub fn new(group: &LearnerGroup, original: &Path) -> Result<Self> {
        if !group.several() {
            return Ok(Self(None));
        }
        let file = original.join(MANIFEST);
        let manifest = match fs::read(&file) {
            Err(reason) if group.is_first() && original.exists() && file.exists() => {
                Err(Error::io(&file, reason))
            }
            read => Ok(read.unwrap_or_default()),
        };
        let manifests = group.gather_bytes("manifest of the checkpoint", manifest)?;
        let first = &manifests[0];
        if manifests.iter().all(|manifest| manifest == first) {
            return Ok(Self(None));
        }
        let broken = |reason: serde_json::Error| Error::checkpoint(original, reason);
        let manifest: serde_json::Value = serde_json::from_slice(first).map_err(broken)?;
        let names = manifest["files"].as_object().into_iter().flatten();
        let name = format!("rlvr-{}-{}", std::process::id(), group.rank());
        let copy = match manifests[group.rank()] == *first {
            true => Self(None),
            false => Self(Some(std::env::temp_dir().join(name))),
        };
        copy.write(MANIFEST, first)?;
        for (name, _) in names {
            let file = original.join(name);
            let bytes = match group.is_first() {
                true => fs::read(&file).map_err(|reason| Error::io(&file, reason)),
                false => Ok(Vec::new()),
            };
            let sent = group.gather_bytes(name, bytes)?;
            group.agree("copy of the checkpoint", copy.write(name, &sent[0]))?;
        }
        Ok(copy)
    }

    /// The folder to read in place of `original`.
    pub fn folder<'a>(&'a self, original: &'a Path) -> &'a Path {
        self.0.as_deref().unwrap_or(original)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(folder) = &self.0 else {
            return Ok(());
        };
        let file = folder.join(name);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(|reason| Error::io(folder, reason))?;
        }
        fs::write(&file, bytes).map_err(|reason| Error::io(&file, reason))
    }
}

impl Drop for CheckpointCopy {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            // A copy that cannot be removed is left in the temporary folder.
            let _ = remove(folder);
        }
    }
}
