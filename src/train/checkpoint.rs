//! Checkpoints: whole or absent.
//!
//! A checkpoint is a folder `step-00000120` with everything that a run needs to go on as if it had never
//! stopped. It is written beside its place under a temporary name, synced to disk and renamed; a process that
//! is killed at any moment leaves the last whole one, and perhaps a temporary folder that the next
//! write removes.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::TrainerConfig;
use super::controllers::Controllers;
use super::trained::Trained;
use super::trainer::Trainer;
use crate::folder::{remove, sync, sync_folder};
use crate::policy::{PolicyModel, ValueModel};
use crate::rollout::RolloutBuffer;
use crate::{Error, Result};

const PREFIX: &str = "step-";
const TEMPORARY: &str = ".writing-step-";
/// Raised when a checkpoint of an earlier version can no longer be read.
const FORMAT: u32 = 1;

/// Everything but the tensors.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    crate_version: String,
    steps_done: u64,
    tokens_seen: u64,
    /// Absent before dynamic sampling: then every step had asked the same number.
    #[serde(default)]
    problems_asked: Option<u64>,
    policy_updates: u64,
    critic_updates: u64,
    has_reference: bool,
    has_critic: bool,
    kl_coef: Option<f64>,
    /// Absent before there were other controllers than that of `kl_coef`.
    #[serde(default)]
    controllers: Option<Controllers>,
    rollout_groups: usize,
    problems: usize,
    problems_fingerprint: u64,
    config: TrainerConfig,
}

/// The newest whole checkpoint in `folder`, if there is one.
///
/// # Errors
/// If the folder exists but cannot be listed.
pub fn latest_checkpoint(folder: impl AsRef<Path>) -> Result<Option<PathBuf>> {
    let mut all = folders(folder.as_ref(), PREFIX)?;
    Ok(all.pop().map(|(_, path)| path))
}

/// The entries of `folder` called `prefix` and a step, with their steps, oldest first.
fn folders(folder: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let step = name.and_then(|name| name.strip_prefix(prefix)?.parse().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

impl<M: PolicyModel, V: ValueModel> Trainer<M, V> {
    /// Writes a checkpoint into `folder` and returns its path; of older ones, the newest `keep - 1` stay.
    ///
    /// Checkpoints of later steps are removed: they are there only if this run went back to an earlier one, and would
    /// be taken for its latest.
    ///
    /// # Errors
    /// If something cannot be written; what was there before is untouched then.
    pub fn save_checkpoint(&self, folder: impl AsRef<Path>, keep: usize) -> Result<PathBuf> {
        let folder = folder.as_ref();
        if keep == 0 {
            return Err(Error::config("keep", keep, "at least 1 checkpoint"));
        }
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        for (_, half) in folders(folder, TEMPORARY)? {
            remove(&half)?;
        }
        let name = format!("{:08}", self.steps_done);
        let temporary = folder.join(format!("{TEMPORARY}{name}"));
        fs::create_dir(&temporary).map_err(|e| Error::io(&temporary, e))?;
        self.write_into(&temporary)?;
        sync_folder(&temporary)?;

        let place = folder.join(format!("{PREFIX}{name}"));
        // Another digit and it is still the checkpoint of this step: there is one at every moment.
        let replaced = folder.join(format!("{PREFIX}0{name}"));
        if place.exists() {
            remove(&replaced)?;
            fs::rename(&place, &replaced).map_err(|e| Error::io(&replaced, e))?;
        }
        fs::rename(&temporary, &place).map_err(|e| Error::io(&place, e))?;
        sync(folder)?;
        remove(&replaced)?;
        let all = folders(folder, PREFIX)?;
        let (own, later): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(step, _)| *step <= self.steps_done);
        let surplus = own.len().saturating_sub(keep);
        for (_, other) in own[..surplus].iter().chain(&later) {
            remove(other)?;
        }
        Ok(place)
    }

    fn write_into(&self, folder: &Path) -> Result<()> {
        let file = |name: &str| folder.join(format!("{name}.bpk"));
        let trained = Trained::of(&self.policy);
        trained.save(self.policy.valid(), &file("policy"))?;
        self.optimizer.save(&self.policy, folder, "policy")?;
        if let Some(reference) = &self.reference {
            // It differs from the policy in nothing that the policy does not train.
            trained.save(reference.weights().clone(), &file("reference"))?;
        }
        if let Some(critic) = &self.critic {
            Trained::of(&critic.model).save(critic.model.valid(), &file("critic"))?;
            critic.optimizer.save(&critic.model, folder, "critic")?;
        }
        self.last_rollouts.write(folder.join("rollouts.jsonl"))?;
        let manifest = Manifest {
            format: FORMAT,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            steps_done: self.steps_done,
            tokens_seen: self.tokens_seen,
            problems_asked: Some(self.problems_asked),
            policy_updates: self.optimizer.updates(),
            critic_updates: self.critic.as_ref().map_or(0, |c| c.optimizer.updates()),
            has_reference: self.reference.is_some(),
            has_critic: self.critic.is_some(),
            kl_coef: self.controllers.kl_in_reward,
            controllers: Some(self.controllers.clone()),
            rollout_groups: self.last_rollouts.groups.len(),
            problems: self.problems.len(),
            problems_fingerprint: self.problems_fingerprint(),
            config: self.config.clone(),
        };
        let path = folder.join("manifest.json");
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|reason| Error::checkpoint(&path, reason))?;
        fs::write(&path, text).map_err(|e| Error::io(&path, e))
    }

    /// Goes back to the state in the checkpoint at `path` (as [`latest_checkpoint`] gives it), after which the run
    /// continues as if it had never stopped: bit for bit on the CPU.
    ///
    /// The trainer must have been built on the same problems, with the same seed, step size and parts. Other settings
    /// may differ from the checkpoint's and take effect from here on.
    ///
    /// # Errors
    /// If the checkpoint is missing, broken, of another format, or of another run; the trainer may then have been
    /// partly overwritten and should be dropped.
    pub fn load_checkpoint(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let file = path.join("manifest.json");
        let text = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|reason| Error::checkpoint(path, reason))?;
        self.check(path, &manifest)?;
        let file = |name: &str| path.join(format!("{name}.bpk"));
        let trained = Trained::of(&self.policy);
        self.policy = trained.load(self.policy.clone(), &file("policy"))?;
        self.optimizer
            .load(&self.policy, path, "policy", manifest.policy_updates)?;
        if let Some(reference) = &mut self.reference {
            let weights = reference.weights().clone();
            reference.replace(trained.load(weights, &file("reference"))?);
        }
        if let Some(critic) = &mut self.critic {
            let trained = Trained::of(&critic.model);
            critic.model = trained.load(critic.model.clone(), &file("critic"))?;
            critic
                .optimizer
                .load(&critic.model, path, "critic", manifest.critic_updates)?;
        }
        self.last_rollouts = RolloutBuffer::read(path.join("rollouts.jsonl"))?;
        let (found, groups) = (self.last_rollouts.groups.len(), manifest.rollout_groups);
        if found != groups {
            let reason = format!("rollouts.jsonl has {found} groups, its manifest says {groups}");
            return Err(Error::checkpoint(path, reason));
        }
        match &manifest.controllers {
            Some(saved) => self.controllers.restore(saved),
            None => self.controllers.kl_in_reward = manifest.kl_coef,
        }
        self.steps_done = manifest.steps_done;
        self.tokens_seen = manifest.tokens_seen;
        let steps_of_old = manifest.steps_done * self.config.problems_per_step as u64;
        self.problems_asked = manifest.problems_asked.unwrap_or(steps_of_old);
        Ok(())
    }

    /// Refuses a checkpoint that this trainer could not continue exactly.
    fn check(&self, path: &Path, manifest: &Manifest) -> Result<()> {
        let refuse = |what: &str, theirs: String, ours: String| {
            let reason = format!("its {what} is {theirs}, this run's {ours}");
            Err(Error::checkpoint(path, reason))
        };
        let (theirs, ours) = (&manifest.config, &self.config);
        if manifest.format != FORMAT {
            return refuse("format", manifest.format.to_string(), FORMAT.to_string());
        }
        for (what, theirs, ours) in [
            ("seed", theirs.seed, ours.seed),
            (
                "problems_per_step",
                theirs.problems_per_step as u64,
                ours.problems_per_step as u64,
            ),
            (
                "number of problems",
                manifest.problems as u64,
                self.problems.len() as u64,
            ),
            (
                "fingerprint of the problems",
                manifest.problems_fingerprint,
                self.problems_fingerprint(),
            ),
        ] {
            if theirs != ours {
                return refuse(what, theirs.to_string(), ours.to_string());
            }
        }
        let theirs = manifest.controllers.as_ref();
        let adaptive_entropy = theirs.is_some_and(|controllers| controllers.entropy.is_some());
        for (what, theirs, ours) in [
            (
                "reference policy",
                manifest.has_reference,
                self.reference.is_some(),
            ),
            ("critic", manifest.has_critic, self.critic.is_some()),
            (
                "KL in the reward",
                manifest.kl_coef.is_some(),
                self.controllers.kl_in_reward.is_some(),
            ),
            (
                "adaptive entropy bonus",
                adaptive_entropy,
                self.controllers.entropy.is_some(),
            ),
        ] {
            let word = |there| if there { "present" } else { "absent" }.to_string();
            if theirs != ours {
                return refuse(what, word(theirs), word(ours));
            }
        }
        Ok(())
    }

    /// FNV-1a over the problems: tells other problems, or another order of them, apart.
    fn problems_fingerprint(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for problem in &self.problems {
            let metadata = serde_json::Value::from(problem.metadata.clone()).to_string();
            for text in [&problem.prompt, &problem.answer, &metadata] {
                // 0xFF is no UTF-8 byte, so it separates texts.
                for byte in text.bytes().chain([0xFF]) {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
                }
            }
        }
        hash
    }
}
