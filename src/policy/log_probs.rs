//! From hidden states to per-token log-probs and entropies, in chunks.

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, FloatDType, Int, Tensor, s};
use serde::{Deserialize, Serialize};

use crate::fused::FusedScores;
use crate::{Error, Result};

/// How log-probs are computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogProbConfig {
    /// The temperature that the tokens were sampled with: everything is of `softmax(logits / temperature)`.
    /// Default 1.
    pub temperature: f64,
    /// Tokens whose logits exist at the same time; the peak is a few times `chunk * V` floats. Changes
    /// no value. Default 1024.
    pub chunk: usize,
}

impl Default for LogProbConfig {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            chunk: 1024,
        }
    }
}

impl LogProbConfig {
    /// Refuses a temperature that is not above 0 and an empty chunk.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Error::config(
                "temperature",
                self.temperature,
                "a finite number above 0 (greedy sampling has no log-probs to train on)",
            ));
        }
        if self.chunk == 0 {
            return Err(Error::config("chunk", self.chunk, "at least 1 token"));
        }
        Ok(())
    }
}

/// What the policy thinks of given tokens.
#[derive(Clone, Debug)]
pub struct TokenScores<const D: usize = 2> {
    /// `ln pi(y_t | y_<t)`, in nats.
    pub log_probs: Tensor<D>,
    /// `H_t = -sum_v pi_v ln pi_v`, in nats.
    pub entropies: Tensor<D>,
}

/// Log-probs and entropies from logits, differentiable.
///
/// `logits` `[N, V]`, `targets` `[N]`; both results `[N]`, of `p = softmax(logits / temperature)`:
/// `log p[target]` and `-sum_v p_v ln p_v`. A vocabulary entry with logit `-inf` has probability 0 and adds
/// nothing to the entropy. Row maxima are subtracted first, so huge logits are safe. Logits in half precision are taken to
/// f32 first: the results are f32.
pub fn logits_log_probs(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    temperature: f64,
) -> TokenScores<1> {
    let log_p = log_softmax(in_f32(logits).div_scalar(temperature), 1);
    let log_probs = log_p
        .clone()
        .gather(1, targets.unsqueeze_dim(1))
        .squeeze_dim(1);
    // p ln p -> 0 as p -> 0, but 0 * -inf is NaN; below -1e4 the exponential is 0 in f32 anyway.
    let p = log_p.clone().exp();
    let entropies = (p * log_p.clamp_min(-1e4)).sum_dim(1).neg().squeeze_dim(1);
    TokenScores {
        log_probs,
        entropies,
    }
}

/// The log-probs of [`logits_log_probs`] alone: entropies cost several passes over `[N, V]`.
pub(super) fn logits_log_probs_only(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    temperature: f64,
) -> Tensor<1> {
    let log_p = log_softmax(in_f32(logits).div_scalar(temperature), 1);
    log_p.gather(1, targets.unsqueeze_dim(1)).squeeze_dim(1)
}

/// Half precision becomes f32; anything else stays.
pub(crate) fn in_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_half(x.dtype()) {
        true => x.cast(FloatDType::F32),
        false => x,
    }
}

/// Whether `dtype` is f16 or bf16.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// `x` as `dtype`.
pub(crate) fn as_dtype<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    match x.dtype() == dtype {
        true => x,
        false => x.cast(dtype),
    }
}

/// Per-token log-probs and entropies without a gradient, for old, reference and sampler policies.
///
/// `hidden` `[B, T, D]`, `unembedding` `[D, V]`, `targets` `[B, T]` (at padding: any id of the vocabulary);
/// both results `[B, T]`, off the gradient tape. For the policy that is being trained, see
/// [`ScoredTokens`](super::ScoredTokens).
///
/// # Errors
/// If the configuration is refused or the shapes do not fit.
pub fn token_log_probs(
    hidden: Tensor<3>,
    unembedding: Tensor<2>,
    targets: Tensor<2, Int>,
    config: &LogProbConfig,
) -> Result<TokenScores> {
    let shape = hidden.dims();
    if let Some(scores) = fused_scores(&hidden, &unembedding, &targets, config, true)? {
        return Ok(TokenScores {
            log_probs: scores.log_probs().reshape([shape[0], shape[1]]),
            entropies: scores.entropies().reshape([shape[0], shape[1]]),
        });
    }
    let (mut log_probs, mut entropies) = (Vec::new(), Vec::new());
    in_chunks(hidden, unembedding, targets, config, |logits, targets| {
        let scores = logits_log_probs(logits, targets, config.temperature);
        log_probs.push(scores.log_probs);
        entropies.push(scores.entropies);
    })?;
    let joined = |parts| Tensor::<1>::cat(parts, 0).reshape([shape[0], shape[1]]);
    Ok(TokenScores {
        log_probs: joined(log_probs),
        entropies: joined(entropies),
    })
}

/// As [`token_log_probs`] without the entropies.
///
/// # Errors
/// As [`token_log_probs`].
pub(crate) fn token_log_probs_only(
    hidden: Tensor<3>,
    unembedding: Tensor<2>,
    targets: Tensor<2, Int>,
    config: &LogProbConfig,
) -> Result<Tensor<2>> {
    let shape = hidden.dims();
    if let Some(scores) = fused_scores(&hidden, &unembedding, &targets, config, false)? {
        return Ok(scores.log_probs().reshape([shape[0], shape[1]]));
    }
    let mut log_probs = Vec::new();
    in_chunks(hidden, unembedding, targets, config, |logits, targets| {
        log_probs.push(logits_log_probs_only(logits, targets, config.temperature));
    })?;
    Ok(Tensor::cat(log_probs, 0).reshape([shape[0], shape[1]]))
}

/// The scores by a kernel, where there is one for these tensors; `entropy` says whether entropies are computed.
///
/// # Errors
/// As [`token_log_probs`].
pub(super) fn fused_scores(
    hidden: &Tensor<3>,
    unembedding: &Tensor<2>,
    targets: &Tensor<2, Int>,
    config: &LogProbConfig,
    entropy: bool,
) -> Result<Option<FusedScores>> {
    config.validate()?;
    let [rows, width, size] = check_shapes(hidden, unembedding, targets)?;
    Ok(FusedScores::new(
        &hidden.clone().inner().reshape([rows * width, size]),
        unembedding,
        &targets.clone().inner().reshape([rows * width]),
        config.temperature,
        config.chunk,
        entropy,
    ))
}

/// Gives `score` the logits and targets of one chunk of tokens after the other, off the tape.
fn in_chunks(
    hidden: Tensor<3>,
    unembedding: Tensor<2>,
    targets: Tensor<2, Int>,
    config: &LogProbConfig,
    mut score: impl FnMut(Tensor<2>, Tensor<1, Int>),
) -> Result<()> {
    config.validate()?;
    let [rows, width, size] = check_shapes(&hidden, &unembedding, &targets)?;
    let hidden = hidden.inner().reshape([rows * width, size]);
    let unembedding = unembedding.inner();
    let targets = targets.inner().reshape([rows * width]);
    for (from, to) in chunks(rows * width, config.chunk) {
        let logits = hidden
            .clone()
            .slice(s![from..to, ..])
            .matmul(unembedding.clone());
        score(logits, targets.clone().slice(s![from..to]));
    }
    Ok(())
}

/// `[B, T, D]` if the three fit together.
pub(super) fn check_shapes(
    hidden: &Tensor<3>,
    unembedding: &Tensor<2>,
    targets: &Tensor<2, Int>,
) -> Result<[usize; 3]> {
    let [rows, width, size] = hidden.dims();
    if targets.dims() != [rows, width] {
        return Err(Error::shape(
            "targets",
            format!("{:?}", targets.dims()),
            format!("[{rows}, {width}], as the hidden states"),
        ));
    }
    if unembedding.dims()[0] != size {
        return Err(Error::shape(
            "unembedding",
            format!("{:?}", unembedding.dims()),
            format!("[{size}, V], as the hidden states are {size} wide"),
        ));
    }
    Ok([rows, width, size])
}

/// Cuts `0..total` into ranges of at most `chunk`.
pub(super) fn chunks(total: usize, chunk: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..total)
        .step_by(chunk)
        .map(move |from| (from, (from + chunk).min(total)))
}
