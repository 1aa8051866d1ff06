//! Folders of checkpoints: names, retention, and the run that a folder belongs to.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::trained::Trained;
use crate::folder::{RunLock, STEP, remove, replace_folder, step_name, steps};
use crate::policy::PolicyModel;
use crate::{Error, Result};

pub(super) const MANIFEST: &str = "manifest.json";
/// The folder of exported weights, in a format that other programs read.
const WEIGHTS: &str = "policy";
/// The job of a manifest without a `job` field.
pub(super) const REINFORCEMENT: &str = "reinforcement learning";

/// Returns the newest complete checkpoint in `folder`, if there is one.
///
/// # Errors
/// Returns an error if the folder exists but cannot be listed.
#[doc(alias = "resume_from_checkpoint")]
pub fn latest_checkpoint(folder: impl AsRef<Path>) -> Result<Option<PathBuf>> {
    let mut all = steps(folder.as_ref(), "")?;
    Ok(all.pop().map(|(_, path)| path))
}

/// The path of the checkpoint of `step`.
pub(super) fn place(folder: &Path, step: u64) -> PathBuf {
    folder.join(step_name(step, ""))
}

/// The folder that a run's checkpoints were last written to or read from.
#[derive(Debug, Default)]
pub(super) struct RunFolder {
    own: Option<PathBuf>,
    /// Held while a run writes checkpoints.
    lock: Option<RunLock>,
}

impl RunFolder {
    /// Locks `folder` for a run. In an error, another run is identified by what `describe` returns
    /// for its newest checkpoint.
    ///
    /// # Errors
    /// Returns an error if the folder is in use or contains checkpoints of another run.
    pub fn lock(
        &mut self,
        folder: &Path,
        describe: impl Fn(&Path) -> Option<String>,
    ) -> Result<()> {
        let lock = RunLock::acquire(folder)?;
        self.check(folder, describe)?;
        self.lock = Some(lock);
        Ok(())
    }

    /// Releases the lock at the end of the run.
    pub fn unlock(&mut self) {
        self.lock = None;
    }

    /// Sets the folder of the checkpoint that the run continues from; `None` on a learner that
    /// cannot access it.
    pub fn belongs(&mut self, folder: Option<PathBuf>) {
        self.own = folder;
    }

    /// Returns an error if `folder` contains checkpoints of another run.
    fn check(&self, folder: &Path, describe: impl Fn(&Path) -> Option<String>) -> Result<()> {
        let found = steps(folder, "")?;
        let Some((step, newest)) = found.last() else {
            return Ok(());
        };
        if self.own.as_deref() == Some(&*canonical(folder)?) {
            return Ok(());
        }
        let theirs = match describe(newest) {
            Some(description) => format!("step {step} of {description}"),
            None => format!("step {step}"),
        };
        Err(Error::checkpoint(
            folder,
            format!(
                "the folder contains checkpoints of another run ({theirs}); expected an empty folder, or \
                 load_checkpoint to continue that run"
            ),
        ))
    }

    /// Writes the checkpoint of `step` into `folder`, with the files that `write` creates, and
    /// returns its path. Keeps the newest `keep - 1` older checkpoints and removes later ones of
    /// this run.
    ///
    /// # Errors
    /// Returns an error if the folder is in use or contains checkpoints of another run, or a file
    /// cannot be written. The previous checkpoints are then unchanged.
    pub fn write(
        &mut self,
        folder: &Path,
        step: u64,
        keep: usize,
        describe: impl Fn(&Path) -> Option<String>,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let lock = match &self.lock {
            Some(lock) if lock.folder() == folder => None,
            _ => Some(RunLock::acquire(folder)?),
        };
        self.check(folder, describe)?;
        let place = place(folder, step);
        // With one more digit the name still parses as this step, so a checkpoint exists at every
        // moment.
        let aside = folder.join(format!("{STEP}0{step:08}"));
        replace_folder(&place, &aside, write)?;
        self.own = Some(canonical(folder)?);
        let all = steps(folder, "")?;
        let (own, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|(other, _)| *other <= step);
        let surplus = own.len().saturating_sub(keep);
        for (_, other) in own[..surplus].iter().chain(&later) {
            remove(other)?;
        }
        drop(lock);
        Ok(place)
    }
}

/// Writes the trained weights of `policy` into the checkpoint `folder`.
pub(super) fn save_policy<M: PolicyModel>(policy: &M, folder: &Path) -> Result<()> {
    if policy.export(&folder.join(WEIGHTS))? {
        return Ok(());
    }
    Trained::of(policy).save(policy.valid(), &folder.join("policy.bpk"))
}

/// Returns `policy` with the weights that [`save_policy`] wrote.
pub(super) fn load_policy<M: PolicyModel>(policy: &M, folder: &Path) -> Result<M> {
    let exported = folder.join(WEIGHTS);
    match exported.is_dir() {
        true => policy.clone().import(&exported),
        false => Trained::of(policy).load(policy.clone(), &folder.join("policy.bpk")),
    }
}

/// Writes the manifest, the last file of a checkpoint.
pub(super) fn write_manifest(folder: &Path, manifest: &impl Serialize) -> Result<()> {
    let path = folder.join(MANIFEST);
    let text = serde_json::to_string_pretty(manifest)
        .map_err(|reason| Error::checkpoint(&path, reason))?;
    fs::write(&path, text).map_err(|e| Error::io(&path, e))
}

/// Reads the manifest of the checkpoint at `path`, which must be of the given `job` and `format`.
pub(super) fn read_manifest<T: DeserializeOwned>(path: &Path, job: &str, format: u32) -> Result<T> {
    if !path.join(MANIFEST).exists()
        && let Some(latest) = latest_checkpoint(path)?
    {
        let reason = format!(
            "this is a folder of checkpoints; expected one of them, such as {}",
            latest.display()
        );
        return Err(Error::checkpoint(path, reason));
    }
    let file = path.join(MANIFEST);
    let text = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
    let broken = |reason: serde_json::Error| Error::checkpoint(path, reason);
    // A manifest of another job or format may have other fields.
    let value: Value = serde_json::from_str(&text).map_err(broken)?;
    let theirs = value["job"].as_str().unwrap_or(REINFORCEMENT);
    if theirs != job {
        let reason = format!("it is a checkpoint of {theirs}; expected one of {job}");
        return Err(Error::checkpoint(path, reason));
    }
    let found = &value["format"];
    if found.as_u64() != Some(u64::from(format)) {
        let reason = format!("its format is {found}, this version reads {format}");
        return Err(Error::checkpoint(path, reason));
    }
    serde_json::from_str(&text).map_err(broken)
}

pub(super) fn canonical(folder: &Path) -> Result<PathBuf> {
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    fs::canonicalize(folder).map_err(|e| Error::io(folder, e))
}
