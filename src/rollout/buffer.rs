//! Rollouts in their groups: what one step has gathered, and what can be written and read back.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::record::Rollout;
use crate::prompt::Problem;
use crate::{Error, Result};

/// All completions of one problem, sampled from one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutGroup {
    /// What was asked.
    pub problem: Problem,
    /// The prompt as the policy read it.
    pub prompt_tokens: Vec<u32>,
    /// What was answered.
    pub rollouts: Vec<Rollout>,
}

/// The groups of one or more steps, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutBuffer {
    /// The groups.
    pub groups: Vec<RolloutGroup>,
}

impl RolloutBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a group at the end.
    pub fn push(&mut self, group: RolloutGroup) {
        self.groups.push(group);
    }

    /// The number of rollouts in all groups.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.rollouts.len()).sum()
    }

    /// Whether there is no rollout.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of completion tokens in all groups.
    pub fn tokens(&self) -> usize {
        self.rollouts().map(|rollout| rollout.tokens.len()).sum()
    }

    /// Every rollout, group by group. The order of everything that is "per rollout" elsewhere.
    pub fn rollouts(&self) -> impl Iterator<Item = &Rollout> {
        self.groups.iter().flat_map(|group| &group.rollouts)
    }

    /// Every rollout, to be changed.
    pub fn rollouts_mut(&mut self) -> impl Iterator<Item = &mut Rollout> {
        self.groups.iter_mut().flat_map(|group| &mut group.rollouts)
    }

    /// The group of every rollout, as an index into [`groups`](Self::groups).
    pub fn group_ids(&self) -> Vec<usize> {
        let sizes = self.groups.iter().map(|group| group.rollouts.len());
        sizes
            .enumerate()
            .flat_map(|(id, size)| std::iter::repeat_n(id, size))
            .collect()
    }

    /// The total reward of every rollout.
    pub fn rewards(&self) -> Vec<Option<f64>> {
        self.rollouts().map(|rollout| rollout.reward).collect()
    }

    /// The rewards of the single tokens of every rollout, zeros where a rollout has none; `None` if no rollout has any.
    pub fn token_rewards(&self) -> Option<Vec<Vec<f64>>> {
        if self
            .rollouts()
            .all(|rollout| rollout.token_rewards.is_empty())
        {
            return None;
        }
        let row = |rollout: &Rollout| match rollout.token_rewards.is_empty() {
            true => vec![0.0; rollout.tokens.len()],
            false => rollout.token_rewards.clone(),
        };
        Some(self.rollouts().map(row).collect())
    }

    /// The trained tokens of every rollout.
    pub fn lengths(&self) -> Vec<usize> {
        self.rollouts()
            .map(|rollout| rollout.tokens.len())
            .collect()
    }

    /// Writes the groups as JSON Lines, one group a line.
    ///
    /// # Errors
    /// If the file cannot be written.
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

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is not a group: file, line and reason.
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
