//! Rollouts in groups, and their file format.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::per_token::PerToken;
use super::problem::Problem;
use super::rollout::Rollout;
use crate::{Error, Result};

/// The completions of one problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutGroup {
    /// The problem, shared and not copied.
    #[serde(serialize_with = "write_shared", deserialize_with = "read_shared")]
    pub problem: Arc<Problem>,
    /// The token ids of the prompt.
    pub prompt_tokens: Vec<u32>,
    /// The completions.
    pub rollouts: Vec<Rollout>,
}

fn write_shared<S: Serializer>(
    problem: &Arc<Problem>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    problem.as_ref().serialize(serializer)
}

fn read_shared<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Arc<Problem>, D::Error> {
    Problem::deserialize(deserializer).map(Arc::new)
}

impl RolloutGroup {
    /// Creates the group of these completions.
    pub fn new(
        problem: impl Into<Arc<Problem>>,
        prompt_tokens: Vec<u32>,
        rollouts: Vec<Rollout>,
    ) -> Self {
        Self {
            problem: problem.into(),
            prompt_tokens,
            rollouts,
        }
    }

    /// Returns the number of trained tokens of all completions.
    pub fn trained_tokens(&self) -> usize {
        self.rollouts.iter().map(Rollout::trained_tokens).sum()
    }
}

/// The groups of one or more steps, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutBuffer {
    /// The groups.
    pub groups: Vec<RolloutGroup>,
}

impl RolloutBuffer {
    /// Creates an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a group.
    pub fn push(&mut self, group: RolloutGroup) {
        self.groups.push(group);
    }

    /// Returns the number of rollouts in all groups.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.rollouts.len()).sum()
    }

    /// Returns true if there is no rollout.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of trained tokens in all groups.
    pub fn tokens(&self) -> usize {
        self.rollouts().map(Rollout::trained_tokens).sum()
    }

    /// Iterates over the rollouts, group by group. Quantities "per rollout" elsewhere in the crate
    /// are in this order.
    pub fn rollouts(&self) -> impl Iterator<Item = &Rollout> {
        self.groups.iter().flat_map(|group| &group.rollouts)
    }

    /// Iterates over the rollouts mutably, in the same order.
    pub fn rollouts_mut(&mut self) -> impl Iterator<Item = &mut Rollout> {
        self.groups.iter_mut().flat_map(|group| &mut group.rollouts)
    }

    /// Returns the group of every rollout, as an index into [`groups`](Self::groups).
    pub fn group_ids(&self) -> Vec<usize> {
        let sizes = self.groups.iter().map(|group| group.rollouts.len());
        sizes
            .enumerate()
            .flat_map(|(id, size)| std::iter::repeat_n(id, size))
            .collect()
    }

    /// Returns the total [`reward`](Rollout::reward) of every rollout.
    pub fn rewards(&self) -> Vec<Option<f64>> {
        self.rollouts().map(|rollout| rollout.reward).collect()
    }

    /// Returns the [`token_rewards`](Rollout::token_rewards) of every rollout, zeros for a rollout
    /// that has none; `None` if no rollout has any.
    pub fn token_rewards(&self) -> Option<PerToken> {
        if self
            .rollouts()
            .all(|rollout| rollout.token_rewards.is_empty())
        {
            return None;
        }
        let row = |rollout: &Rollout| match rollout.token_rewards.is_empty() {
            true => vec![0.0; rollout.trained_tokens()],
            false => rollout.token_rewards.clone(),
        };
        Some(self.rollouts().map(row).collect())
    }

    /// Returns the log-prob, in nats, of every trained token under the distribution that it was
    /// sampled from.
    pub fn log_probs(&self) -> PerToken {
        let row = |rollout: &Rollout| -> Vec<f64> {
            let trained = rollout.trained(&rollout.log_probs);
            trained.map(|&log_prob| f64::from(log_prob)).collect()
        };
        self.rollouts().map(row).collect()
    }

    /// Returns the number of trained tokens of every rollout.
    pub fn lengths(&self) -> Vec<usize> {
        self.rollouts().map(Rollout::trained_tokens).collect()
    }

    /// Writes the groups as JSON Lines, one group per line.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut file = BufWriter::new(File::create(path).map_err(|e| Error::io(path, e))?);
        for group in &self.groups {
            serde_json::to_writer(&mut file, group).map_err(|e| Error::io(path, e.into()))?;
            file.write_all(b"\n").map_err(|e| Error::io(path, e))?;
        }
        let file = file
            .into_inner()
            .map_err(|e| Error::io(path, e.into_error()))?;
        file.sync_all().map_err(|e| Error::io(path, e))
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read, and [`Error::Data`] if a line is not a
    /// group.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = BufReader::new(File::open(path).map_err(|e| Error::io(path, e))?);
        let mut groups = Vec::new();
        for (index, line) in file.lines().enumerate() {
            let line = line.map_err(|e| Error::io(path, e))?;
            groups.push(serde_json::from_str(&line).map_err(|e| Error::Data {
                path: path.to_path_buf(),
                line: index + 1,
                reason: e.to_string(),
            })?);
        }
        Ok(Self { groups })
    }
}
