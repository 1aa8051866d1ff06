//! Training of a reward model on preference pairs or labelled responses.

mod data;
mod examples;
mod loss;
mod metrics;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::optimizer::{Optimizer, OptimizerConfig, UpdateReport};
use crate::policy::{
    GradientSum, PolicyModel, TokenBatch, ValueHead, ValueModel, require_gradients,
    values_after_last,
};
use crate::prompt::{ProblemOrder, Tokenizer};
use crate::{Error, Result, host};
pub use data::{LabeledResponse, PreferencePair, RewardExamples};
use examples::{Example, micro_batches, read, rows};
pub use metrics::RewardModelMetrics;
use metrics::Scored;

/// The settings of [`train_reward_model`] and [`evaluate_reward_model`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardModelConfig {
    /// Passes over the examples; reward models overfit after a few. Default 1.
    pub epochs: u64,
    /// Examples per update; the last update of an epoch may have fewer. Default 64.
    pub batch_size: usize,
    /// The largest number of tokens, padding included, in one forward pass; a longer example has
    /// its own. Affects speed and memory, and results only by rounding. Default 16384.
    pub max_tokens_per_micro_batch: usize,
    /// The coefficient of the mean of `(chosen + rejected)^2`, which keeps the scores of pairs
    /// around zero; pairs alone do not determine the zero. 0.01 is usual. Default 0.
    pub centering: f64,
    /// Whether the prompt is encoded as a user turn and the response as the model's reply
    /// ([`Tokenizer::encode_prompt`]), rather than both as one text. Default false.
    pub conversation: bool,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The seed of the order of the examples. Default 0.
    pub seed: u64,
}

impl Default for RewardModelConfig {
    fn default() -> Self {
        Self {
            epochs: 1,
            batch_size: 64,
            max_tokens_per_micro_batch: 16_384,
            centering: 0.0,
            conversation: false,
            optimizer: OptimizerConfig::default(),
            seed: 0,
        }
    }
}

impl RewardModelConfig {
    /// Returns the number of updates of a training run on `examples` examples, for a learning-rate
    /// schedule.
    pub fn updates(&self, examples: usize) -> u64 {
        self.epochs * examples.div_ceil(self.batch_size.max(1)) as u64
    }

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`], which names the field, its value and what is expected.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("batch_size", self.batch_size),
            (
                "max_tokens_per_micro_batch",
                self.max_tokens_per_micro_batch,
            ),
        ] {
            if value == 0 {
                let field = format!("reward_model.{field}");
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        if !(self.centering.is_finite() && self.centering >= 0.0) {
            let expected = "a finite number of at least 0";
            return Err(Error::config(
                "reward_model.centering",
                self.centering,
                expected,
            ));
        }
        self.optimizer.validate()
    }
}

/// The report of one update of [`train_reward_model`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RewardModelReport {
    /// The number of the update, counted from 1.
    pub step: u64,
    /// The metrics of the update's examples before the update.
    pub metrics: RewardModelMetrics,
    /// Norm and learning rate of the update.
    pub update: UpdateReport,
}

/// Trains `model` to score good responses higher than bad ones.
///
/// ```text
/// pairs:   mean of -log sigmoid(r_chosen - r_rejected - margin)
///                  + centering (r_chosen + r_rejected)^2
/// labels:  mean of -y log sigmoid(r) - (1 - y) log sigmoid(-r)
/// ```
///
/// The first is the model of Bradley and Terry as InstructGPT trains it (arXiv 2203.02155, equation
/// 1), with the margin of Llama 2 (arXiv 2307.09288, equation 2) and the centering of Eisenstein et
/// al. (arXiv 2312.09244, equation 2); the second is the binary cross-entropy. The score `r` is
/// that of [`ModelReward`](crate::reward::ModelReward) for a completed response: the value after
/// its stop token. The mean is over the examples of an update, independent of micro-batches.
/// `observe` is called after each update; training ends early if it returns `false`.
///
/// ```
/// use rlvr::policy::ValueHead;
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::prompt::{CharTokenizer, Tokenizer};
/// use rlvr::reward::ModelReward;
/// use rlvr::train::*;
/// use std::sync::Arc;
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let tokenizer = CharTokenizer::new("0123456789+=", &[])?;
/// let config = CausalConfig {
///     hidden_size: 16,
///     intermediate_size: 24,
///     ..CausalConfig::new(tokenizer.vocab_size())
/// };
/// let policy = config.init(0, &burn::tensor::Device::flex().autodiff())?;
///
/// let pairs = vec![
///     PreferencePair::new("2+2=", "4", "5"),
///     PreferencePair::new("1+2=", "3", "33"),
/// ];
/// let config = RewardModelConfig {
///     epochs: 20,
///     optimizer: OptimizerConfig::new(Schedule::constant(3e-3)), // pretrained: 1e-5
///     ..RewardModelConfig::default()
/// };
/// let mut model = ValueHead::new(policy).without_bias();
/// train_reward_model(&mut model, &tokenizer, &pairs, &config, |_| true)?;
/// assert_eq!(
///     evaluate_reward_model(&model, &tokenizer, &pairs, &config)?.accuracy,
///     1.0
/// );
/// let reward = ModelReward::new(model, Arc::new(tokenizer));
/// # let _ = reward;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
///
/// # Errors
/// Returns an error before the first update if a setting is invalid, no parameter of the model
/// requires gradients, there are no examples, the tokenizer has more tokens than the model, or an
/// example (named by its index) cannot be tokenised, is empty, is too long for the model, or has an
/// invalid margin or label. Returns an error later if the loss or the gradient is not finite.
#[doc(alias = "RewardTrainer")]
pub fn train_reward_model<'a, M: PolicyModel>(
    model: &mut ValueHead<M>,
    tokenizer: &dyn Tokenizer,
    examples: impl Into<RewardExamples<'a>>,
    config: &RewardModelConfig,
    mut observe: impl FnMut(&RewardModelReport) -> bool,
) -> Result<()> {
    config.validate()?;
    let mut optimizer = Optimizer::new(config.optimizer)?;
    require_gradients(model, "reward model")?;
    let examples = examples.into();
    if config.centering != 0.0 && matches!(examples, RewardExamples::Labeled(_)) {
        let expected = "0 with labels, which determine the zero";
        return Err(Error::config(
            "reward_model.centering",
            config.centering,
            expected,
        ));
    }
    let examples = read(examples, model, tokenizer, config)?;
    let order = ProblemOrder::new(examples.len(), config.seed)?;
    let mut step = 0;
    for epoch in 0..config.epochs {
        let indices = order.indices(epoch * examples.len() as u64, examples.len());
        for batch in indices.chunks(config.batch_size) {
            let mut scored = Vec::new();
            let mut gradients = GradientSum::default();
            for part in micro_batches(&examples, batch, config.max_tokens_per_micro_batch) {
                let part: Vec<&Example> = part.into_iter().map(|at| &examples[at]).collect();
                let pass = model.value_pass(&token_batch(&part, &model.device())?.into())?;
                let scores = scores(pass.values.clone(), &part);
                scored.extend(on_host(scores.clone(), &part)?);
                let loss = loss_of(scores, &part, config.centering);
                let share = loss.div_scalar(batch.len() as f64);
                gradients.add(model, pass.backward(share, model)?);
            }
            let metrics = RewardModelMetrics::of(&scored);
            if !metrics.loss.is_finite() {
                return Err(Error::NonFinite {
                    what: "the loss of the reward model".into(),
                    value: metrics.loss,
                    step,
                    advice: "lower the learning rate".into(),
                });
            }
            let update = optimizer.step(model, gradients.finish())?;
            step += 1;
            let report = RewardModelReport {
                step,
                metrics,
                update,
            };
            if !observe(&report) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Computes the metrics of `model` on held-out examples. Of `config` it uses `conversation` and
/// `max_tokens_per_micro_batch`.
///
/// # Errors
/// Returns the errors of [`train_reward_model`] about settings and examples, and an error if the
/// loss is not finite.
pub fn evaluate_reward_model<'a, M: PolicyModel>(
    model: &ValueHead<M>,
    tokenizer: &dyn Tokenizer,
    examples: impl Into<RewardExamples<'a>>,
    config: &RewardModelConfig,
) -> Result<RewardModelMetrics> {
    config.validate()?;
    let model = model.valid();
    let examples = read(examples.into(), &model, tokenizer, config)?;
    let all: Vec<usize> = (0..examples.len()).collect();
    let mut scored = Vec::new();
    for part in micro_batches(&examples, &all, config.max_tokens_per_micro_batch) {
        let part: Vec<&Example> = part.into_iter().map(|at| &examples[at]).collect();
        let values = model.values(&token_batch(&part, &model.device())?.into())?;
        scored.extend(on_host(scores(values, &part), &part)?);
    }
    let metrics = RewardModelMetrics::of(&scored);
    match metrics.loss.is_finite() {
        true => Ok(metrics),
        false => Err(Error::NonFinite {
            what: "the loss of the reward model".into(),
            value: metrics.loss,
            step: 0,
            advice: "its weights are not finite: train it with a lower learning rate".into(),
        }),
    }
}

fn token_batch(part: &[&Example], device: &Device) -> Result<TokenBatch> {
    TokenBatch::from_rows(&rows(part), device)
}

/// Returns the scores of the rows of a micro-batch, given their values.
fn scores(values: Tensor<2>, part: &[&Example]) -> Tensor<1> {
    let lengths: Vec<usize> = rows(part).iter().map(|row| row.len()).collect();
    values_after_last(values, &lengths)
}

/// Returns the scores of each example on the host.
fn on_host(scores: Tensor<1>, part: &[&Example]) -> Result<Vec<Scored>> {
    let scores = host::floats(scores, "the reward model's scores")?;
    let score = |at: usize| f64::from(scores[at]);
    let each = part.iter().enumerate().map(|(at, example)| match example {
        Example::Pair { margin, .. } => Scored::Pair {
            chosen: score(at),
            rejected: score(part.len() + at),
            margin: *margin,
        },
        Example::Labeled { label, .. } => Scored::Labeled {
            score: score(at),
            label: *label,
        },
    });
    Ok(each.collect())
}

/// Returns the sum of the losses of a micro-batch.
fn loss_of(scores: Tensor<1>, part: &[&Example], centering: f64) -> Tensor<1> {
    let count = part.len();
    let targets: Vec<f32> = part.iter().map(|one| one.target() as f32).collect();
    let targets = Tensor::from_data(TensorData::new(targets, [count]), &scores.device());
    match part.first() {
        Some(Example::Pair { .. }) => {
            let [chosen, rejected] = [0, count].map(|start| scores.clone().narrow(0, start, count));
            let mut loss = loss::pairwise(chosen.clone(), rejected.clone(), targets).sum();
            if centering != 0.0 {
                loss = loss
                    + loss::centering(chosen, rejected)
                        .sum()
                        .mul_scalar(centering);
            }
            loss
        }
        _ => loss::pointwise(scores, targets).sum(),
    }
}
