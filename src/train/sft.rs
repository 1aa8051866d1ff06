//! Supervised fine-tuning: the warm start before reinforcement.

use serde::{Deserialize, Serialize};

use super::optimizer::{Optimizer, OptimizerConfig, UpdateReport};
use crate::loss::{LossInput, PolicyObjective, StepCounts};
use crate::policy::{GradientSum, LogProbConfig, PolicyModel, ScoredTokens, require_gradients};
use crate::prompt::{Problem, ProblemOrder, Tokenizer};
use crate::rollout::{
    Rollout, RolloutBatch, RolloutBuffer, RolloutGroup, RolloutView, micro_batches,
};
use crate::{Error, Result};

/// One demonstration: what was asked and what should be answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demonstration {
    /// The prompt.
    pub prompt: String,
    /// The response; the end-of-sequence token is added to it.
    pub response: String,
}

impl Demonstration {
    /// `response` to `prompt`.
    pub fn new(prompt: impl Into<String>, response: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            response: response.into(),
        }
    }
}

/// The settings of [`supervise`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// Updates. Default 250.
    pub steps: u64,
    /// Demonstrations an update. Default 64.
    pub batch_size: usize,
    /// Demonstrations that are forwarded together; changes speed and memory, no result beyond rounding. Default 64.
    pub micro_batch: usize,
    /// Tokens whose logits exist at the same time, see [`LogProbConfig::chunk`]; changes memory, no result beyond rounding.
    /// Default 1024.
    pub logit_chunk: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Orders the demonstrations. Default 0.
    pub seed: u64,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            steps: 250,
            batch_size: 64,
            micro_batch: 64,
            logit_chunk: LogProbConfig::default().chunk,
            optimizer: OptimizerConfig::default(),
            seed: 0,
        }
    }
}

/// What one supervised update reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SftReport {
    /// The update, counted from 1.
    pub step: u64,
    /// Mean negative log-likelihood of a response token, in nats.
    pub loss: f64,
    /// Norm and learning rate of the update.
    pub update: UpdateReport,
}

/// Trains `policy` to give the demonstrated responses: the mean negative log-likelihood of the response's tokens,
/// the prompt's being read but not learned.
///
/// It is the policy-gradient loss with every advantage 1, on the same batch, log-probs and
/// optimizer as reinforcement. `observe` is called after each update; `false` from it ends training early.
///
/// # Errors
/// Before the first update: if no parameter of the policy requires gradients, there is no demonstration, the tokenizer has more
/// tokens than the policy, or a demonstration (named by its index) cannot be tokenised, has an empty prompt or is too long for
/// the policy. Later, if the gradient is not finite.
pub fn supervise<M: PolicyModel>(
    policy: &mut M,
    tokenizer: &dyn Tokenizer,
    demonstrations: &[Demonstration],
    config: &SftConfig,
    mut observe: impl FnMut(&SftReport) -> bool,
) -> Result<()> {
    let mut optimizer = Optimizer::new(config.optimizer)?;
    for (field, value) in [
        ("sft.batch_size", config.batch_size),
        ("sft.micro_batch", config.micro_batch),
        ("sft.logit_chunk", config.logit_chunk),
    ] {
        if value == 0 {
            return Err(Error::config(field, value, "at least 1"));
        }
    }
    require_gradients(policy, "policy")?;
    if tokenizer.vocab_size() > policy.vocab_size() {
        return Err(Error::config(
            "tokenizer.vocab_size",
            tokenizer.vocab_size(),
            format!("at most the policy's {}", policy.vocab_size()),
        ));
    }
    let order = ProblemOrder::new(demonstrations.len(), config.seed)?;
    let groups: Vec<RolloutGroup> = demonstrations
        .iter()
        .enumerate()
        .map(|(index, demonstration)| {
            let group = as_group(demonstration, tokenizer)?;
            check_length(index, &group, policy.max_positions())?;
            Ok(group)
        })
        .collect::<Result<_>>()?;
    let log_probs = LogProbConfig {
        chunk: config.logit_chunk,
        ..LogProbConfig::default()
    };
    let objective = PolicyObjective::reinforce();
    let device = policy.device();
    for step in 0..config.steps {
        let mut buffer = RolloutBuffer::new();
        for index in order.indices(step * config.batch_size as u64, config.batch_size) {
            buffer.push(groups[index].clone());
        }
        let counts = StepCounts::of(&buffer.lengths());
        let view = RolloutView::new(&buffer);
        let all: Vec<usize> = (0..buffer.len()).collect();
        let mut gradients = GradientSum::default();
        let mut total = 0.0;
        for part in micro_batches(&view, &all, config.micro_batch, None) {
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
        let report = SftReport {
            step: step + 1,
            loss: total,
            update,
        };
        if !observe(&report) {
            break;
        }
    }
    Ok(())
}

/// Rejects a demonstration that a policy with `positions` positions cannot read.
fn check_length(index: usize, group: &RolloutGroup, positions: usize) -> Result<()> {
    let what = format!("demonstration {index}");
    let response: usize = group
        .rollouts
        .iter()
        .map(|rollout| rollout.tokens.len())
        .sum();
    let prompt = group.prompt_tokens.len();
    if prompt == 0 || response == 0 {
        return Err(Error::shape(
            what,
            format!("{prompt} + {response} tokens"),
            "at least one token of prompt and one of response",
        ));
    }
    // The last token is predicted and never read.
    if prompt + response - 1 > positions {
        return Err(Error::shape(
            what,
            format!("{prompt} + {response} tokens"),
            format!(
                "at most {} in all, for {positions} positions",
                positions + 1
            ),
        ));
    }
    Ok(())
}

/// A demonstration in the shape of a rollout: its tokens are what is learned.
fn as_group(demonstration: &Demonstration, tokenizer: &dyn Tokenizer) -> Result<RolloutGroup> {
    let mut tokens = tokenizer.encode(&demonstration.response)?;
    tokens.extend(tokenizer.stop_tokens().first());
    let log_probs = vec![0.0; tokens.len()];
    Ok(RolloutGroup::new(
        Problem::new(&demonstration.prompt, ""),
        tokenizer.encode_prompt(&demonstration.prompt)?,
        vec![Rollout::new(tokens, log_probs, &demonstration.response)],
    ))
}
