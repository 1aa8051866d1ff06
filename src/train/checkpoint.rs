//! Checkpoints of a trainer, written atomically.
//!
//! A checkpoint is a folder such as `step-00000120` with the complete state of a run. It is written
//! under a temporary name, synced to disk and renamed. A process that is killed at any moment
//! leaves the last complete checkpoint, and possibly a temporary folder that the next write
//! removes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint_copy::CheckpointCopy;
use super::checkpoint_folder::{
    REINFORCEMENT, canonical, load_policy, place, read_manifest, save_policy, write_manifest,
};
use super::controllers::Controllers;
use super::critic::Critic;
use super::learner::{Learner, Progress, Reference};
use super::optimizer::Optimizer;
use super::trained::Trained;
use super::trainer::Trainer;
use crate::advantage::AdvantageEstimator;
use crate::folder::{checksums, verify};
use crate::loss::SurrogateLoss;
use crate::plan::LedgerState;
use crate::policy::{PolicyModel, ValueModel};
use crate::rollout::RolloutBuffer;
use crate::{Error, Result};

/// Incremented when checkpoints of the previous version can no longer be read.
const FORMAT: u32 = 2;

/// Everything but the tensors and the rollouts.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    crate_version: String,
    progress: Progress,
    policy_updates: u64,
    critic_updates: u64,
    controllers: Controllers,
    rollout_groups: usize,
    problem_source: Value,
    rollout_source: Value,
    ledger: LedgerState,
    parts: Parts,
    /// For information only; it is not read back.
    config: Value,
    /// Checksums of the other files.
    files: BTreeMap<String, String>,
}

/// The parts of a trainer, custom ones included. A checkpoint can only be loaded by a trainer with
/// equal parts.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Parts {
    seed: u64,
    problems_per_step: usize,
    problems: usize,
    problems_fingerprint: u64,
    /// The policy's architecture, and fingerprints of its frozen weights and adapters.
    policy: Value,
    reference: Option<String>,
    /// Missing in checkpoints from before teachers existed.
    #[serde(default)]
    teacher: Option<String>,
    critic: bool,
    kl_in_reward: bool,
    adaptive_entropy: bool,
    surrogate: String,
    advantage: String,
    rewards: Vec<String>,
    token_rewards: Option<String>,
    environment: Option<String>,
}

impl Parts {
    /// Returns the first part in which `theirs`, of a checkpoint, differs from this trainer: its
    /// name, their value and ours.
    fn difference(&self, theirs: &Self) -> Option<(String, String, String)> {
        let value = |parts: &Self| serde_json::to_value(parts).unwrap_or_default();
        let (ours, theirs) = (value(self), value(theirs));
        let names = [
            ("seed", "seed"),
            ("problems_per_step", "problems_per_step"),
            ("problems", "number of problems"),
            ("problems_fingerprint", "fingerprint of the problems"),
            ("policy", "policy"),
            ("reference", "reference"),
            ("teacher", "teacher"),
            ("critic", "critic"),
            ("kl_in_reward", "KL in the reward"),
            ("adaptive_entropy", "adaptive entropy bonus"),
            ("rewards", "list of rewards"),
            ("token_rewards", "token reward"),
            ("environment", "environment"),
            ("surrogate", "surrogate"),
            ("advantage", "advantage estimator"),
        ];
        let text = |value: &Value| match value {
            Value::Null | Value::Bool(false) => "absent".to_string(),
            Value::Bool(true) => "present".to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        names.into_iter().find_map(|(key, name)| {
            let (theirs, ours) = (&theirs[key], &ours[key]);
            if let (Value::Object(theirs), Value::Object(ours)) = (theirs, ours) {
                // Report only the entry of a description that differs.
                let entries = ours.keys().chain(theirs.keys());
                let absent = Value::Null;
                return entries.into_iter().find_map(|entry| {
                    let of = |map: &Map<String, Value>| map.get(entry).unwrap_or(&absent).clone();
                    let (theirs, ours) = (of(theirs), of(ours));
                    (theirs != ours).then(|| {
                        let name = format!("{name}'s {}", entry.replace('_', " "));
                        (name, text(&theirs), text(&ours))
                    })
                });
            }
            (theirs != ours).then(|| (name.to_string(), text(theirs), text(ours)))
        })
    }
}

/// A checkpoint that was read and that fits the trainer.
struct ReadCheckpoint<M: PolicyModel, V> {
    manifest: Manifest,
    policy: M,
    optimizer: Optimizer,
    reference: Option<M>,
    critic: Option<(V, Optimizer)>,
    rollouts: RolloutBuffer,
}

impl<M: PolicyModel, V: ValueModel> Trainer<M, V> {
    /// Writes a checkpoint into `folder` and returns its path. The newest `keep - 1` older
    /// checkpoints are kept.
    ///
    /// A folder belongs to one run. Checkpoints of later steps are removed: they exist if the
    /// trainer was loaded from an earlier checkpoint in this folder, and would otherwise be taken
    /// for the latest.
    ///
    /// With several learners, all of them must call this method; the first one writes. A checkpoint
    /// does not depend on the number of learners.
    ///
    /// # Errors
    /// Returns an error if `keep` is 0, if `folder` contains checkpoints that this trainer has
    /// neither written nor loaded, or if a file cannot be written. The previous checkpoints are
    /// then unchanged.
    pub fn save_checkpoint(&mut self, folder: impl AsRef<Path>, keep: usize) -> Result<PathBuf> {
        let folder = folder.as_ref();
        if keep == 0 {
            return Err(Error::config("keep", keep, "at least 1 checkpoint"));
        }
        self.learner.check_weights()?;
        let saved = match self.learners().is_first() {
            true => self.write_checkpoint(folder, keep),
            false => self.join_checkpoint(folder),
        };
        let (place, saved) = match saved {
            Ok(place) => (place, Ok(())),
            Err(error) => (PathBuf::new(), Err(error)),
        };
        self.learners().agree("checkpoint", saved)?;
        Ok(place)
    }

    /// Sends the first learner this learner's part of the checkpoint.
    fn join_checkpoint(&mut self, folder: &Path) -> Result<PathBuf> {
        self.save_optimizers(folder)?;
        Ok(self.place(folder))
    }

    fn save_optimizers(&mut self, folder: &Path) -> Result<()> {
        let Learner {
            learners,
            optimizer,
            policy,
            critic,
            ..
        } = &mut self.learner;
        optimizer.save_together(learners, policy, folder, "policy")?;
        if let Some(Critic {
            model, optimizer, ..
        }) = critic
        {
            optimizer.save_together(learners, model, folder, "critic")?;
        }
        Ok(())
    }

    fn place(&self, folder: &Path) -> PathBuf {
        place(folder, self.steps_done())
    }

    fn write_checkpoint(&mut self, folder: &Path, keep: usize) -> Result<PathBuf> {
        let step = self.steps_done();
        let mut run_folder = std::mem::take(&mut self.run_folder);
        let written = run_folder.write(folder, step, keep, describe, |temporary| {
            self.write_into(temporary)
        });
        self.run_folder = run_folder;
        written
    }

    fn write_into(&mut self, folder: &Path) -> Result<()> {
        self.save_optimizers(folder)?;
        let file = |name: &str| folder.join(format!("{name}.bpk"));
        let learner = &self.learner;
        let trained = Trained::of(&learner.policy);
        save_policy(&learner.policy, folder)?;
        if let Some(Reference::Policy(reference)) = &learner.reference {
            // The reference differs from the policy in trained parameters only.
            trained.save(reference.weights().clone(), &file("reference"))?;
        }
        if let Some(critic) = &learner.critic {
            Trained::of(&critic.model).save(critic.model.valid(), &file("critic"))?;
        }
        self.last_rollouts.write(folder.join("rollouts.jsonl"))?;
        let (policy_updates, critic_updates) = learner.updates_made();
        let manifest = Manifest {
            format: FORMAT,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            progress: learner.progress,
            policy_updates,
            critic_updates,
            controllers: learner.controllers.clone(),
            rollout_groups: self.last_rollouts.groups.len(),
            problem_source: self.collector.problems.state(),
            rollout_source: self.source.state()?,
            ledger: self.ledger.clone(),
            parts: self.parts()?,
            files: checksums(folder)?,
            config: serde_json::to_value(&learner.config).unwrap_or_default(),
        };
        write_manifest(folder, &manifest)
    }

    fn parts(&self) -> Result<Parts> {
        let (learner, collector) = (&self.learner, &self.collector);
        Ok(Parts {
            seed: learner.config.seed,
            problems_per_step: learner.config.problems_per_step,
            problems: collector.problems.problems().len(),
            problems_fingerprint: collector.problems_fingerprint(),
            policy: learner.description()?.clone(),
            reference: learner.reference.as_ref().map(Reference::name),
            teacher: learner.teacher.name(),
            critic: learner.critic.is_some(),
            kl_in_reward: learner.controllers.kl_in_reward.is_some(),
            adaptive_entropy: learner.controllers.entropy.is_some(),
            surrogate: learner.config.objective.surrogate.name().into(),
            advantage: learner.config.advantage.name().into(),
            rewards: learner.reward_names.clone(),
            token_rewards: collector
                .token_rewards
                .as_ref()
                .map(|reward| reward.name().to_string()),
            environment: collector
                .agent_loop
                .as_ref()
                .map(|agent_loop| agent_loop.environment().name().to_string()),
        })
    }

    /// Restores the state in the checkpoint at `path` (see
    /// [`latest_checkpoint`](super::latest_checkpoint)). The run then continues as if it had never
    /// stopped: bit for bit on the CPU.
    ///
    /// The trainer must have been built from the same parts, custom ones included: problems, seed,
    /// problems per step, rewards, estimator, surrogate, critic, reference, and a policy of the
    /// same architecture, frozen weights and adapters. Other settings may differ from the
    /// checkpoint's; the trainer's apply from then on.
    ///
    /// With several learners, all of them must call this method; their number may differ from that
    /// of the saved run. Learners on machines that cannot read the folder receive a copy from the
    /// first.
    ///
    /// # Errors
    /// Returns an error if the checkpoint is missing, damaged, of another format, or of another
    /// run. The trainer is then unchanged.
    pub fn load_checkpoint(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let copy = CheckpointCopy::new(self.learners(), path);
        let read = copy.and_then(|copy| self.read_checkpoint(copy.folder(path)));
        let folder = match self.learners().is_first() {
            true => path.parent().map(canonical).transpose(),
            false => Ok(None),
        };
        let read = read.and_then(|read| Ok((read, folder?)));
        let (read, failed) = match read {
            Ok(read) => (Some(read), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.learners().agree("reading of the checkpoint", failed)?;
        let Some((read, folder)) = read else {
            return Ok(());
        };
        // Only the sources can still fail. If the second one does, the first is restored.
        let before = self.collector.problems.state();
        self.collector
            .problems
            .restore(&read.manifest.problem_source)?;
        if let Err(error) = self.source.restore(&read.manifest.rollout_source) {
            self.collector.problems.restore(&before)?;
            return Err(error);
        }
        let learner = &mut self.learner;
        learner.policy = read.policy;
        learner.optimizer = read.optimizer;
        if let (Some(Reference::Policy(reference)), Some(model)) =
            (&mut learner.reference, read.reference)
        {
            reference.replace(model);
        }
        if let (Some(critic), Some((model, optimizer))) = (&mut learner.critic, read.critic) {
            critic.model = model;
            critic.optimizer = optimizer;
        }
        let config = &learner.config;
        learner
            .controllers
            .restore(&read.manifest.controllers, config);
        learner.progress = read.manifest.progress;
        self.ledger = read.manifest.ledger;
        self.last_rollouts = read.rollouts;
        self.run_folder.belongs(folder);
        Ok(())
    }

    fn read_checkpoint(&self, path: &Path) -> Result<ReadCheckpoint<M, V>> {
        let manifest: Manifest = read_manifest(path, REINFORCEMENT, FORMAT)?;
        if let Some((what, theirs, ours)) = self.parts()?.difference(&manifest.parts) {
            let reason = format!("its {what} is {theirs}, this run's {ours}");
            return Err(Error::checkpoint(path, reason));
        }
        verify(path, &manifest.files)?;
        let file = |name: &str| path.join(format!("{name}.bpk"));
        let learner = &self.learner;
        let trained = Trained::of(&learner.policy);
        let policy = load_policy(&learner.policy, path)?;
        let mut optimizer = Optimizer::new(learner.config.optimizer)?;
        let learners = &learner.learners;
        optimizer.load_together(learners, &policy, path, "policy", manifest.policy_updates)?;
        let reference = match &learner.reference {
            Some(Reference::Policy(reference)) => {
                let weights = reference.weights().clone();
                Some(trained.load(weights, &file("reference"))?)
            }
            _ => None,
        };
        let critic = match &learner.critic {
            Some(critic) => {
                let trained = Trained::of(&critic.model);
                let model = trained.load(critic.model.clone(), &file("critic"))?;
                let mut optimizer = Optimizer::new(critic.config.optimizer)?;
                optimizer.load_together(
                    learners,
                    &model,
                    path,
                    "critic",
                    manifest.critic_updates,
                )?;
                Some((model, optimizer))
            }
            None => None,
        };
        let rollouts = RolloutBuffer::read(path.join("rollouts.jsonl"))?;
        let (found, groups) = (rollouts.groups.len(), manifest.rollout_groups);
        if found != groups {
            let reason = format!("rollouts.jsonl has {found} groups, its manifest says {groups}");
            return Err(Error::checkpoint(path, reason));
        }
        Ok(ReadCheckpoint {
            manifest,
            policy,
            optimizer,
            reference,
            critic,
            rollouts,
        })
    }
}

/// Describes the run of the checkpoint at `path`, if it can be read.
pub(super) fn describe(path: &Path) -> Option<String> {
    let manifest: Manifest = read_manifest(path, REINFORCEMENT, FORMAT).ok()?;
    let Parts {
        seed,
        problems,
        surrogate,
        ..
    } = manifest.parts;
    Some(format!(
        "a run with seed {seed}, {problems} problems and the {surrogate} surrogate"
    ))
}
