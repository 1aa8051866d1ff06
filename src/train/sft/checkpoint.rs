//! Checkpoints of a supervised job.

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

/// What its manifests are of.
const JOB: &str = "supervised fine-tuning";
/// Raised when checkpoints of the version before can no longer be read.
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
    /// For those who look into the file; nothing is read from it.
    config: Value,
    /// Checksums of the other files.
    files: BTreeMap<String, String>,
}

/// What a job is made of: a checkpoint is loaded only by a job of the same.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Parts {
    seed: u64,
    batch_size: usize,
    demonstrations: usize,
    fingerprint: u64,
    policy: Value,
}

impl Parts {
    /// The first part in which `theirs`, of a checkpoint, differ from these: its name, theirs and ours.
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

/// The job that the checkpoint at `path` is of, if it can be read.
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
    /// Writes a checkpoint into `folder` and returns its path; of older ones, the newest `keep - 1` stay.
    ///
    /// A folder belongs to one run. Checkpoints of later steps are removed only if this job was loaded from an earlier one in
    /// the same folder: they are there because the run went back, and would be taken for its latest.
    ///
    /// # Errors
    /// If `folder` holds checkpoints and this job has neither written nor loaded one there, or if something cannot be written.
    /// What was there before is untouched then.
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

    /// Goes back to the state in the checkpoint at `path` (as [`latest_checkpoint`](crate::train::latest_checkpoint) gives it), after which
    /// the job continues as if it had never stopped: bit for bit on the CPU.
    ///
    /// Demonstrations, seed, batch size, and the policy's architecture and frozen weights must be the same. Other settings, such as more epochs, may
    /// differ from the checkpoint's and take effect from here on.
    ///
    /// # Errors
    /// If the checkpoint is missing, broken, of another format, or of another run. The job is then untouched.
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
