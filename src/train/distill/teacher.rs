//! Who says what the student should have said: a model, or what a model once said.

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

/// What a teacher says of the tokens of a batch.
#[derive(Clone, Debug)]
pub enum TeacherStates {
    /// Everything: hidden states `[N, T, D]`, off the gradient tape, and the unembedding `[D, V]`.
    Hidden {
        /// The hidden states that predict the targets.
        hidden: Tensor<3>,
        /// The unembedding. A vocabulary that differs from the student's in tokens that the tokenizer does not have is cut to it.
        unembedding: Tensor<2>,
    },
    /// Its most likely tokens, `[N, T, k]`; for [`Divergence::TopK`](crate::policy::Divergence::TopK) alone, which then takes its `k` from here.
    Top(TopTokens),
}

/// Says at every token of a completion what it would say there: [`ModelTeacher`] from its weights, [`TopTeacher`] from a file. Another
/// implementation may ask a server for the most likely tokens.
pub trait Teacher: Send {
    /// What it says of the completions of `batch`, whose rows are `rollouts` with their `prompts`.
    ///
    /// # Errors
    /// If the completions cannot be read.
    fn states(
        &self,
        batch: &RolloutBatch,
        prompts: &[&[u32]],
        rollouts: &[&Rollout],
    ) -> Result<TeacherStates>;

    /// The most tokens that it reads of prompt and completion together, less one; `None` if it does not matter.
    fn max_positions(&self) -> Option<usize> {
        None
    }

    /// The size of its vocabulary, if it is known.
    fn vocab_size(&self) -> Option<usize> {
        None
    }
}

/// A model on the student's device, of any width and depth, with its tokens.
#[derive(Clone, Debug)]
pub struct ModelTeacher<M> {
    model: M,
}

impl<M: PolicyModel> ModelTeacher<M> {
    /// Frozen as it is.
    pub fn new(model: &M) -> Self {
        Self {
            model: model.valid(),
        }
    }

    /// The `k` most likely tokens at every token of the completions, for a [`TopTeacher`]; `micro_batch` of them are forwarded together.
    ///
    /// # Errors
    /// If the configuration is refused, `k` or `micro_batch` is 0, or a completion cannot be read.
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

/// A completion with what a teacher said of it: a line of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopRecord {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The completion's tokens, the end included.
    pub tokens: Vec<u32>,
    /// The teacher's most likely tokens at each of them.
    pub top: TopLogProbs,
}

/// A teacher that was asked before: it knows the completions of its records and no others, so it goes with demonstrations alone.
#[derive(Clone, Debug, Default)]
pub struct TopTeacher {
    records: HashMap<(Vec<u32>, Vec<u32>), TopLogProbs>,
}

impl TopTeacher {
    /// Reads JSON Lines of [`TopRecord`]s.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is not a record: file, line and reason.
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
    /// Of two records of the same completion the last counts.
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
