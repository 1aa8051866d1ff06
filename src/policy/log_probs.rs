//! Per-token log-probs and entropies from hidden states, in chunks.

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, FloatDType, Int, Tensor, s};
use serde::{Deserialize, Serialize};

use crate::fused::FusedScores;
use crate::{Error, Result};

/// The configuration of log-probs and entropies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogProbConfig {
    /// The temperature that the tokens were sampled with: the distribution is
    /// `softmax(logits / temperature)`. Default 1.
    pub temperature: f64,
    /// The number of tokens whose logits are in memory at the same time; the peak is a few times
    /// `chunk * V` floats. Does not change the results. Default 1024.
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
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the temperature is not finite and above 0, or `chunk` is 0.
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

/// Log-probs and entropies of given tokens, from [`token_log_probs`] or [`logits_log_probs`].
#[derive(Clone, Debug)]
pub struct TokenScores<const D: usize = 2> {
    /// `ln pi(y_t | y_<t)`, in nats.
    pub log_probs: Tensor<D>,
    /// `H_t = -sum_v pi_v ln pi_v`, in nats.
    pub entropies: Tensor<D>,
}

/// Computes log-probs `ln p[target]` and entropies `-sum_v p_v ln p_v` of
/// `p = softmax(logits / temperature)`, differentiable.
///
/// `logits` is `[N, V]` and `targets` `[N]`; both results are `[N]`. A vocabulary entry with logit
/// `-inf` has probability 0 and adds nothing to the entropy. Row maxima are subtracted first, so
/// that large logits do not overflow. Logits in half precision are cast to f32, and the results are
/// f32.
///
/// ```
/// use burn::tensor::{Int, Tensor};
/// use rlvr::policy::logits_log_probs;
///
/// # #[cfg(feature = "flex")]
/// # fn main() {
/// let device = burn::tensor::Device::flex();
/// let logits = Tensor::<2>::from_data([[0.0, 0.0]], &device);
/// let targets = Tensor::<1, Int>::from_data([1], &device);
/// let scores = logits_log_probs(logits, targets, 1.0);
/// let (log_prob, entropy): (f32, f32) = (
///     scores.log_probs.into_scalar(),
///     scores.entropies.into_scalar(),
/// );
/// assert!((log_prob + 2f32.ln()).abs() < 1e-6 && (entropy - 2f32.ln()).abs() < 1e-6);
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
///
/// # Panics
/// Panics if the shapes do not match.
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

/// Returns only the log-probs of [`logits_log_probs`]; the entropies take several more passes over
/// `[N, V]`.
pub(super) fn logits_log_probs_only(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    temperature: f64,
) -> Tensor<1> {
    let log_p = log_softmax(in_f32(logits).div_scalar(temperature), 1);
    log_p.gather(1, targets.unsqueeze_dim(1)).squeeze_dim(1)
}

/// Casts half precision to f32; other types are unchanged.
pub(crate) fn in_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_half(x.dtype()) {
        true => x.cast(FloatDType::F32),
        false => x,
    }
}

/// Returns whether `dtype` is f16 or bf16.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Returns `x` as `dtype`.
pub(crate) fn as_dtype<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    match x.dtype() == dtype {
        true => x,
        false => x.cast(dtype),
    }
}

/// Computes per-token log-probs and entropies without a gradient, for old, reference and sampler
/// policies.
///
/// `hidden` is `[B, T, D]`, `unembedding` `[D, V]` and `targets` `[B, T]`, with any id of the
/// vocabulary at padding. Both results are `[B, T]`, in nats and detached. For the policy that is
/// being trained, see [`ScoredTokens`](super::ScoredTokens).
///
/// # Errors
/// Returns an error if the configuration is invalid or the shapes do not match.
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

/// As [`token_log_probs`], without the entropies.
///
/// # Errors
/// Returns the errors of [`token_log_probs`].
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

/// Computes the scores by a kernel if there is one for these tensors, with entropies if `entropy`.
///
/// # Errors
/// Returns the errors of [`token_log_probs`].
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

/// Calls `score` with the logits and targets of each chunk of tokens, off the gradient tape.
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

/// Checks the shapes and returns `[B, T, D]`.
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
    check_unembedding(unembedding, size)?;
    Ok([rows, width, size])
}

/// Rejects an unembedding that is not `[size, V]`.
pub(super) fn check_unembedding(unembedding: &Tensor<2>, size: usize) -> Result<()> {
    if unembedding.dims()[0] == size {
        return Ok(());
    }
    Err(Error::shape(
        "unembedding",
        format!("{:?}", unembedding.dims()),
        format!("[{size}, V], as the hidden states are {size} wide"),
    ))
}

/// Splits `0..total` into ranges of at most `chunk`.
pub(super) fn chunks(total: usize, chunk: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..total)
        .step_by(chunk)
        .map(move |from| (from, (from + chunk).min(total)))
}
