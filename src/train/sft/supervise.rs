//! Updates on demonstrations, and the bare loop over them.

use rayon::prelude::*;

use super::config::SftConfig;
use super::data::DemonstrationSet;
use super::example::Demonstration;
use crate::loss::{LossInput, PolicyObjective, StepCounts};
use crate::policy::{GradientSum, PolicyModel, ScoredTokens, require_gradients};
use crate::prompt::{ProblemOrder, Tokenizer};
use crate::rollout::{RolloutBatch, RolloutView, micro_batches};
use crate::train::{Optimizer, UpdateReport};
use crate::types::{RolloutBuffer, RolloutGroup};
use crate::{Error, Result};

/// The number of demonstrations that are encoded together when a set is checked.
const CHECKED: usize = 4096;

/// The report of one supervised update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SftReport {
    /// The number of the update, counted from 1.
    pub step: u64,
    /// Mean negative log-likelihood of a response token, in nats.
    pub loss: f64,
    /// Norm and learning rate of the update.
    pub update: UpdateReport,
}

/// Trains `policy` on demonstrated responses. The loss is the mean negative log-likelihood of the
/// response tokens; prompt tokens do not contribute.
///
/// It is the policy-gradient loss with every advantage 1, with the same batches, log-probs and
/// optimizer as reinforcement learning. `observe` is called after each update; training ends early
/// if it returns `false`. [`SftTrainer`](super::SftTrainer) makes the same updates and can be
/// stopped and resumed.
///
/// # Errors
/// Returns an error before the first update if a setting is invalid, no parameter of the policy
/// requires gradients, there are no demonstrations, the tokenizer has more tokens than the policy,
/// or a demonstration (named by its index) cannot be tokenised, has an empty prompt or is too long
/// for the policy. Returns an error later if the gradient is not finite.
pub fn supervise<M: PolicyModel>(
    policy: &mut M,
    tokenizer: &dyn Tokenizer,
    demonstrations: &[Demonstration],
    config: &SftConfig,
    mut observe: impl FnMut(&SftReport) -> bool,
) -> Result<()> {
    config.validate()?;
    let mut optimizer = Optimizer::new(config.optimizer)?;
    require_gradients(policy, "policy")?;
    let shown = Shown {
        config,
        tokenizer,
        data: &demonstrations,
    };
    let kept = shown.check(policy)?;
    for step in 0..config.steps_of(kept.len()) {
        let made = shown.update(&kept, step, policy, &mut optimizer)?;
        if !observe(&made.report) {
            break;
        }
    }
    Ok(())
}

/// A set of demonstrations with its tokenizer and settings.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub config: &'a SftConfig,
    pub tokenizer: &'a dyn Tokenizer,
    pub data: &'a dyn DemonstrationSet,
}

/// The result of one update.
pub(super) struct Made {
    pub report: SftReport,
    /// The number of demonstrations.
    pub demonstrations: usize,
    /// The number of trained tokens.
    pub tokens: usize,
}

impl Shown<'_> {
    /// Encodes every demonstration, checks that it fits `policy`, and returns the indices of those
    /// that are not skipped.
    pub fn check<M: PolicyModel>(&self, policy: &M) -> Result<Vec<usize>> {
        if self.tokenizer.vocab_size() > policy.vocab_size() {
            return Err(Error::config(
                "tokenizer.vocab_size",
                self.tokenizer.vocab_size(),
                format!("at most the policy's {}", policy.vocab_size()),
            ));
        }
        let positions = policy.max_positions();
        let most = self.config.skip_longer_than.unwrap_or(usize::MAX);
        let fits = |index: usize| {
            let group = self.encode(index)?;
            let skipped = tokens(&group) > most;
            if !skipped {
                check_length(&self.data.name(index), &group, positions)?;
            }
            Ok(!skipped)
        };
        let mut kept = Vec::new();
        for start in (0..self.data.len()).step_by(CHECKED) {
            let block = start..self.data.len().min(start + CHECKED);
            let found: Vec<Result<bool>> = block.clone().into_par_iter().map(fits).collect();
            for (index, fits) in block.zip(found) {
                if fits? {
                    kept.push(index);
                }
            }
        }
        match (kept.len(), self.data.len()) {
            (0, 0) => Err(Error::config(
                "demonstrations",
                "none",
                "at least one demonstration",
            )),
            (0, all) => Err(Error::config(
                "sft.skip_longer_than",
                most,
                format!("at least the length of the shortest of the {all} demonstrations"),
            )),
            (kept_count, all) => {
                let skipped = all - kept_count;
                if skipped > 0 {
                    tracing::warn!(
                        skipped,
                        all,
                        most,
                        "skipped demonstrations that are too long"
                    );
                }
                Ok(kept)
            }
        }
    }

    fn encode(&self, index: usize) -> Result<RolloutGroup> {
        let example = self.data.get(index)?;
        let encoded = example.encode(self.tokenizer);
        encoded.map_err(|error| error.within(&self.data.name(index)))
    }

    fn buffer(&self, indices: impl Iterator<Item = usize>) -> Result<RolloutBuffer> {
        let groups = indices.map(|index| self.encode(index));
        Ok(RolloutBuffer {
            groups: groups.collect::<Result<_>>()?,
        })
    }

    fn parts(&self, view: &RolloutView<'_>) -> Vec<Vec<usize>> {
        let all: Vec<usize> = (0..view.rollouts().len()).collect();
        let (rows, tokens) = (
            self.config.micro_batch,
            self.config.max_tokens_per_micro_batch,
        );
        micro_batches(view, &all, rows, tokens)
    }

    /// Makes the update of `step`, counted from 0, on its part of the `kept` demonstrations.
    pub fn update<M: PolicyModel>(
        &self,
        kept: &[usize],
        step: u64,
        policy: &mut M,
        optimizer: &mut Optimizer,
    ) -> Result<Made> {
        let (start, count) = self.config.batch(step, kept.len());
        if count == 0 {
            let epochs = self.config.epochs.unwrap_or(0);
            let expected = "a larger number: all epochs are done";
            return Err(Error::config("sft.epochs", epochs, expected));
        }
        let order = ProblemOrder::new(kept.len(), self.config.seed)?;
        let indices = order.indices(start, count).into_iter();
        let buffer = self.buffer(indices.map(|at| kept[at]))?;
        let counts = StepCounts::of(&buffer.lengths());
        let view = RolloutView::new(&buffer);
        let (log_probs, objective) = (self.config.log_probs(), PolicyObjective::reinforce());
        let device = policy.device();
        let mut gradients = GradientSum::default();
        let mut total = 0.0;
        for part in self.parts(&view) {
            let batch = RolloutBatch::new(&view, &part, &device)?;
            let scored = ScoredTokens::new(
                batch.forward_pass(policy)?,
                policy.unembedding(),
                batch.targets.clone(),
                &log_probs,
            )?;
            let input = LossInput::new(
                scored.log_probs.clone(),
                batch.mask.clone(),
                batch.mask.clone(),
            );
            let loss = objective.loss(&input, counts)?;
            total += loss.sums.read()?.sum("loss").unwrap_or(f64::NAN);
            gradients.add(policy, scored.backward(loss.loss, policy)?);
        }
        let update = optimizer.step(policy, gradients.finish())?;
        Ok(Made {
            report: SftReport {
                step: step + 1,
                loss: total,
                update,
            },
            demonstrations: count,
            tokens: buffer.tokens(),
        })
    }

    /// Returns the mean negative log-likelihood of a trained token over the demonstrations `kept`,
    /// in nats, without gradients.
    pub fn loss<M: PolicyModel>(&self, kept: &[usize], policy: &M) -> Result<f64> {
        let (policy, log_probs) = (policy.valid(), self.config.log_probs());
        let device = policy.device();
        let (mut sum, mut count) = (0.0, 0);
        for indices in kept.chunks(self.config.batch_size) {
            let buffer = self.buffer(indices.iter().copied())?;
            let view = RolloutView::new(&buffer);
            for part in self.parts(&view) {
                let batch = RolloutBatch::new(&view, &part, &device)?;
                let found = batch.log_probs(&policy, &log_probs)?;
                let found = batch.unpad(found, "held-out log-probs")?;
                sum -= found.values().sum::<f64>();
                count += batch.tokens();
            }
        }
        Ok(sum / count.max(1) as f64)
    }
}

/// Returns the number of tokens of an encoded demonstration.
fn tokens(group: &RolloutGroup) -> usize {
    let answered = group.rollouts.iter().map(|rollout| rollout.tokens.len());
    group.prompt_tokens.len() + answered.sum::<usize>()
}

/// Rejects a demonstration that does not fit a policy with `positions` positions.
fn check_length(name: &str, group: &RolloutGroup, positions: usize) -> Result<()> {
    let (all, prompt) = (tokens(group), group.prompt_tokens.len());
    let response = all - prompt;
    if prompt == 0 || response == 0 {
        return Err(Error::shape(
            name,
            format!("{prompt} + {response} tokens"),
            "at least one token of prompt and one of response",
        ));
    }
    // The last token is predicted but not read.
    if all - 1 > positions {
        return Err(Error::shape(
            name,
            format!("{prompt} + {response} tokens"),
            format!(
                "at most {} in all, for {positions} positions",
                positions + 1
            ),
        ));
    }
    Ok(())
}
