//! Teachers: a model, or the recorded top tokens of a model.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::policy::{LogProbConfig, PolicyModel, TopLogProbs, TopTokens};
use crate::rollout::{RolloutBatch, RolloutBuffer, RolloutView};
use crate::types::Rollout;
use crate::{Error, Result, host};

/// A teacher's distributions at the tokens of a batch, detached.
#[derive(Clone, Debug)]
pub enum TeacherStates {
    /// Full distributions: hidden states `[N, T, D]` and the unembedding `[D, V]`.
    Hidden {
        /// The hidden states that predict the targets.
        hidden: Tensor<3>,
        /// The unembedding. Padding tokens, which only one of the two vocabularies has, are cut
        /// off.
        unembedding: Tensor<2>,
    },
    /// The most likely tokens, `[N, T, k]`; only for
    /// [`Divergence::TopK`](crate::policy::Divergence::TopK), which uses this `k`.
    Top(TopTokens),
}

/// Computes next-token distributions at every token of a completion: [`ModelTeacher`] with a model,
/// [`TopTeacher`] from a file. A custom teacher may query a server for the most likely tokens.
pub trait Teacher: Send {
    /// Returns the distributions at the tokens of `batch`, whose rows are `rollouts` with their
    /// `prompts`.
    ///
    /// # Errors
    /// Returns an error if the completions cannot be scored.
    fn states(
        &self,
        batch: &RolloutBatch,
        prompts: &[&[u32]],
        rollouts: &[&Rollout],
    ) -> Result<TeacherStates>;

    /// Returns the largest number of positions, prompt and completion together less one token;
    /// `None` for no limit.
    fn max_positions(&self) -> Option<usize> {
        None
    }

    /// Returns the size of the vocabulary, if it is known.
    fn vocab_size(&self) -> Option<usize> {
        None
    }
}

/// A model as a [`Teacher`]: on the student's device, of any width and depth, with the student's
/// tokens.
#[derive(Clone, Debug)]
pub struct ModelTeacher<M> {
    model: M,
}

impl<M: PolicyModel> ModelTeacher<M> {
    /// Creates a teacher from a frozen copy of `model`.
    pub fn new(model: &M) -> Self {
        Self {
            model: model.valid(),
        }
    }

    /// Returns the `k` most likely tokens at every token of the completions, for a [`TopTeacher`].
    /// Each forward pass has `micro_batch` completions.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid, `k` or `micro_batch` is 0, or a completion
    /// cannot be scored.
    pub fn top(
        &self,
        completions: &RolloutBuffer,
        k: usize,
        micro_batch: usize,
        config: &LogProbConfig,
    ) -> Result<Vec<TopRecord>> {
        if micro_batch == 0 {
            return Err(Error::config("micro_batch", 0, "at least 1"));
        }
        let view = RolloutView::new(completions);
        let all: Vec<usize> = (0..completions.len()).collect();
        let mut records = Vec::with_capacity(all.len());
        for part in all.chunks(micro_batch) {
            let device = self.model.device();
            let batch = RolloutBatch::new(&view, part, &device)?;
            let hidden = self.hidden(&batch)?;
            let top = TopTokens::of(hidden, self.model.unembedding(), k, config)?;
            for (row, &index) in part.iter().enumerate() {
                let tokens = view.rollouts()[index].tokens.clone();
                records.push(TopRecord {
                    top: top.row(row, tokens.len())?,
                    prompt: completions.groups[view.group_ids()[index]]
                        .prompt_tokens
                        .clone(),
                    tokens,
                });
            }
        }
        Ok(records)
    }

    fn hidden(&self, batch: &RolloutBatch) -> Result<Tensor<3>> {
        host::on_pool(&self.model.device(), self.model.clone(), |model| {
            batch.hidden_states(&model)
        })
    }
}

impl<M: PolicyModel> Teacher for ModelTeacher<M> {
    fn states(
        &self,
        batch: &RolloutBatch,
        _prompts: &[&[u32]],
        _rollouts: &[&Rollout],
    ) -> Result<TeacherStates> {
        Ok(TeacherStates::Hidden {
            hidden: self.hidden(batch)?,
            unembedding: self.model.unembedding(),
        })
    }

    fn max_positions(&self) -> Option<usize> {
        Some(self.model.max_positions())
    }

    fn vocab_size(&self) -> Option<usize> {
        Some(self.model.vocab_size())
    }
}

/// A completion with a teacher's most likely tokens: one line of a JSON Lines file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopRecord {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The completion's tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// The teacher's most likely tokens at each position.
    pub top: TopLogProbs,
}

/// A [`Teacher`] that reads recorded distributions. It knows the completions of its records only,
/// so it requires `on_policy` 0.
#[derive(Clone, Debug, Default)]
pub struct TopTeacher {
    records: HashMap<(Vec<u32>, Vec<u32>), TopLogProbs>,
}

impl TopTeacher {
    /// Reads JSON Lines of [`TopRecord`]s.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read, and [`Error::Data`] with file, line and
    /// reason if a line is not a record.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = BufReader::new(File::open(path).map_err(|e| Error::io(path, e))?);
        let mut records = Vec::new();
        for (index, line) in file.lines().enumerate() {
            let line = line.map_err(|e| Error::io(path, e))?;
            records.push(serde_json::from_str(&line).map_err(|e| Error::Data {
                path: path.to_path_buf(),
                line: index + 1,
                reason: e.to_string(),
            })?);
        }
        Ok(Self::from_iter(records))
    }
}

impl FromIterator<TopRecord> for TopTeacher {
    /// If a completion has several records, the last one is used.
    fn from_iter<I: IntoIterator<Item = TopRecord>>(records: I) -> Self {
        let entry = |record: TopRecord| ((record.prompt, record.tokens), record.top);
        Self {
            records: records.into_iter().map(entry).collect(),
        }
    }
}

impl Teacher for TopTeacher {
    fn states(
        &self,
        batch: &RolloutBatch,
        prompts: &[&[u32]],
        rollouts: &[&Rollout],
    ) -> Result<TeacherStates> {
        let known = |(prompt, rollout): (&&[u32], &&Rollout)| {
            let key = (prompt.to_vec(), rollout.tokens.clone());
            let top = self.records.get(&key).ok_or_else(|| {
                Error::config(
                    "teacher",
                    format!("no record of the completion {:?}", rollout.text),
                    "a TopRecord for each demonstration, with the same tokens",
                )
            })?;
            match top.ids.len() == rollout.tokens.len() {
                true => Ok(top.clone()),
                false => Err(Error::shape(
                    format!("the teacher's record of the completion {:?}", rollout.text),
                    format!("{} tokens", top.ids.len()),
                    format!("{}, as the completion has", rollout.tokens.len()),
                )),
            }
        };
        let rows = prompts.iter().zip(rollouts).map(known);
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let top = TopTokens::from_rows(&rows, &batch.targets.device())?;
        Ok(TeacherStates::Top(top))
    }
}
