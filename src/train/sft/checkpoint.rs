//! Checkpoints of supervised fine-tuning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::trainer::{Progress, SftTrainer};
use crate::folder::{checksums, verify};
use crate::policy::PolicyModel;
use crate::train::Optimizer;
use crate::train::checkpoint_folder::{
    canonical, load_policy, read_manifest, save_policy, write_manifest,
};
use crate::{Error, Result};

/// The job in its manifests.
const JOB: &str = "supervised fine-tuning";
/// Incremented when checkpoints of the previous version can no longer be read.
const FORMAT: u32 = 1;

/// Everything but the tensors.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    job: String,
    format: u32,
    crate_version: String,
    progress: Progress,
    updates: u64,
    parts: Parts,
    /// For information only; it is not read back.
    config: Value,
    /// Checksums of the other files.
    files: BTreeMap<String, String>,
}

/// The parts of a job. A checkpoint can only be loaded by a job with equal parts.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Parts {
    seed: u64,
    batch_size: usize,
    demonstrations: usize,
    fingerprint: u64,
    policy: Value,
}

impl Parts {
    /// Returns the first part in which `theirs`, of a checkpoint, differs from this job: its name,
    /// their value and ours.
    fn difference(&self, theirs: &Self) -> Option<(&'static str, String, String)> {
        let numbers = |parts: &Self| {
            [
                ("seed", parts.seed),
                ("batch size", parts.batch_size as u64),
                ("number of demonstrations", parts.demonstrations as u64),
                ("fingerprint of the demonstrations", parts.fingerprint),
            ]
        };
        let both = numbers(self).into_iter().zip(numbers(theirs));
        let mut differing = both.filter(|(ours, theirs)| ours != theirs);
        match differing.next() {
            Some(((name, ours), (_, theirs))) => Some((name, theirs.to_string(), ours.to_string())),
            None if self.policy != theirs.policy => {
                Some(("policy", theirs.policy.to_string(), self.policy.to_string()))
            }
            None => None,
        }
    }
}

/// Describes the job of the checkpoint at `path`, if it can be read.
pub(super) fn describe(path: &Path) -> Option<String> {
    let manifest: Manifest = read_manifest(path, JOB, FORMAT).ok()?;
    let Parts {
        seed,
        demonstrations,
        ..
    } = manifest.parts;
    Some(format!(
        "supervised fine-tuning with seed {seed} and {demonstrations} demonstrations"
    ))
}

impl<M: PolicyModel> SftTrainer<M> {
    /// Writes a checkpoint into `folder` and returns its path. The newest `keep - 1` older
    /// checkpoints are kept.
    ///
    /// A folder belongs to one run. Checkpoints of later steps are removed: they exist if the job
    /// was loaded from an earlier checkpoint in this folder, and would otherwise be taken for the
    /// latest.
    ///
    /// # Errors
    /// Returns an error if `keep` is 0, if `folder` contains checkpoints that this job has neither
    /// written nor loaded, or if a file cannot be written. The previous checkpoints are then
    /// unchanged.
    pub fn save_checkpoint(&mut self, folder: impl AsRef<Path>, keep: usize) -> Result<PathBuf> {
        if keep == 0 {
            return Err(Error::config("keep", keep, "at least 1 checkpoint"));
        }
        let step = self.progress.steps;
        let mut run_folder = std::mem::take(&mut self.run_folder);
        let written = run_folder.write(folder.as_ref(), step, keep, describe, |temporary| {
            self.write_into(temporary)
        });
        self.run_folder = run_folder;
        written
    }

    fn write_into(&self, folder: &Path) -> Result<()> {
        save_policy(&self.policy, folder)?;
        self.optimizer.save(&self.policy, folder, "policy")?;
        let manifest = Manifest {
            job: JOB.into(),
            format: FORMAT,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            progress: self.progress,
            updates: self.optimizer.updates(),
            parts: self.parts()?,
            config: serde_json::to_value(&self.config).unwrap_or_default(),
            files: checksums(folder)?,
        };
        write_manifest(folder, &manifest)
    }

    fn parts(&self) -> Result<Parts> {
        Ok(Parts {
            seed: self.config.seed,
            batch_size: self.config.batch_size,
            demonstrations: self.kept.len(),
            fingerprint: self.fingerprint()?,
            policy: self.description()?.clone(),
        })
    }

    /// Restores the state in the checkpoint at `path` (see
    /// [`latest_checkpoint`](crate::train::latest_checkpoint)). The job then continues as if it had
    /// never stopped: bit for bit on the CPU.
    ///
    /// Demonstrations, seed, batch size, and the policy's architecture and frozen weights must be
    /// the same. Other settings, such as the number of epochs, may differ from the checkpoint's;
    /// the job's apply from then on.
    ///
    /// # Errors
    /// Returns an error if the checkpoint is missing, damaged, of another format, or of another
    /// run. The job is then unchanged.
    pub fn load_checkpoint(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let manifest: Manifest = read_manifest(path, JOB, FORMAT)?;
        if let Some((what, theirs, ours)) = self.parts()?.difference(&manifest.parts) {
            let reason = format!("its {what} is {theirs}, this run's {ours}");
            return Err(Error::checkpoint(path, reason));
        }
        verify(path, &manifest.files)?;
        let policy = load_policy(&self.policy, path)?;
        let mut optimizer = Optimizer::new(self.config.optimizer)?;
        optimizer.load(&policy, path, "policy", manifest.updates)?;
        let folder = path.parent().map(canonical).transpose()?;
        self.policy = policy;
        self.optimizer = optimizer;
        self.progress = manifest.progress;
        self.run_folder.belongs(folder);
        Ok(())
    }
}
