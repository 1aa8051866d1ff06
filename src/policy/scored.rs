//! Token log-probs and entropies with an exact gradient, without `[B, T, V]` in memory.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Int, Tensor, s};

use super::forward_pass::ForwardPass;
use super::gradients::GradientSum;
use super::log_probs::{
    LogProbConfig, TokenScores, check_shapes, chunks, fused_scores, in_f32, logits_log_probs,
    logits_log_probs_only, token_log_probs,
};
use crate::fused::FusedScores;
use crate::{Result, host};

/// Log-probs and entropies of the policy that is being trained, as inputs of a loss.
///
/// The loss may be any function of [`log_probs`](Self::log_probs) and
/// [`entropies`](Self::entropies). The two are leaves of the gradient tape:
/// [`backward`](Self::backward) first differentiates the loss with respect to them, then recomputes
/// the logits chunk by chunk to get the gradients of the hidden states and the unembedding, and
/// finally runs one backward pass through the trunk. The result is the gradient of the unchunked
/// formula, at the cost of one more product with the unembedding.
///
/// ```
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::policy::{LogProbConfig, PolicyModel, ScoredTokens, TokenBatch};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let device = burn::tensor::Device::flex().autodiff();
/// let policy = CausalConfig {
///     hidden_size: 16,
///     ..CausalConfig::new(11)
/// }
/// .init(0, &device)?;
/// let batch = TokenBatch::from_rows(&[[1, 2, 3]], &device)?.into();
/// let targets = TokenBatch::from_rows(&[[2, 3, 4]], &device)?.ids;
/// let pass = policy.forward_pass(&batch)?;
/// let config = LogProbConfig::default();
/// let scored = ScoredTokens::new(pass, policy.unembedding(), targets, &config)?;
/// let loss = scored.log_probs.clone().mean().neg();
/// let gradients = scored.backward(loss, &policy)?;
/// assert!(gradients.get::<1>(policy.norm.gamma.id).is_some());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct ScoredTokens {
    /// The log-probs `[B, T]`, in nats; a leaf that requires a gradient.
    pub log_probs: Tensor<2>,
    /// The entropies `[B, T]`, in nats; a leaf that requires a gradient.
    pub entropies: Tensor<2>,
    /// The scores with their backward pass, if there is a kernel.
    fused: Option<FusedScores>,
    pass: ForwardPass,
    unembedding: Tensor<2>,
    targets: Tensor<2, Int>,
    config: LogProbConfig,
}

impl ScoredTokens {
    /// Scores `targets` `[B, T]` under the hidden states `[B, T, D]` of `pass` and `unembedding`
    /// `[D, V]`.
    ///
    /// `pass` may also be a tensor of hidden states on the gradient tape. The gradient of the
    /// unembedding is computed only if it is trained.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid or the shapes do not match.
    pub fn new(
        pass: impl Into<ForwardPass>,
        unembedding: Tensor<2>,
        targets: Tensor<2, Int>,
        config: &LogProbConfig,
    ) -> Result<Self> {
        let pass = pass.into();
        let device = pass.hidden.device();
        host::on_pool(&device, pass, |pass| {
            Self::of(pass, unembedding, targets, config)
        })
    }

    fn of(
        pass: ForwardPass,
        unembedding: Tensor<2>,
        targets: Tensor<2, Int>,
        config: &LogProbConfig,
    ) -> Result<Self> {
        let shape = targets.dims();
        let fused = fused_scores(&pass.hidden, &unembedding, &targets, config, true)?;
        let scores = match &fused {
            Some(fused) => TokenScores {
                log_probs: fused.log_probs().reshape(shape),
                entropies: fused.entropies().reshape(shape),
            },
            None => token_log_probs(
                pass.hidden.clone(),
                unembedding.clone(),
                targets.clone(),
                config,
            )?,
        };
        Ok(Self {
            log_probs: scores.log_probs.autodiff().require_grad(),
            entropies: scores.entropies.autodiff().require_grad(),
            fused,
            pass,
            unembedding,
            targets,
            config: *config,
        })
    }

    /// Returns the gradients of `loss` with respect to the parameters of `model`; empty if the loss
    /// depends on no token. They are f32, also for weights in half precision.
    ///
    /// For a model in f16 the loss is multiplied by a power of two, and the gradients are divided
    /// by it in f32, since small gradients would vanish otherwise.
    ///
    /// # Errors
    /// Returns an error if the backward pass fails, or a tensor cannot be read from the device.
    pub fn backward<M: Module>(self, loss: Tensor<1>, model: &M) -> Result<GradientsParams> {
        let device = self.pass.hidden.device();
        host::on_pool(&device, model.clone(), |model| self.pull(loss, &model))
    }

    fn pull<M: Module>(self, loss: Tensor<1>, model: &M) -> Result<GradientsParams> {
        let [rows, width, size] =
            check_shapes(&self.pass.hidden, &self.unembedding, &self.targets)?;
        let total = rows * width;
        if !loss.is_tracked() {
            return Ok(GradientsParams::new());
        }
        let upstream = loss.backward();
        let flat = |leaf: &Tensor<2>| leaf.grad(&upstream).map(|grad| grad.reshape([total]));
        let (to_log_probs, to_entropies) = (flat(&self.log_probs), flat(&self.entropies));
        let trained = self.unembedding.is_tracked();
        if let Some(fused) = self.fused {
            if to_log_probs.is_none() && to_entropies.is_none() {
                return Ok(GradientsParams::new());
            }
            let (to_hidden, to_unembedding) = fused.backward(to_log_probs, to_entropies, trained);
            let to_hidden = to_hidden.reshape([rows, width, size]);
            let unembedding = to_unembedding.map(|gradient| (self.unembedding, gradient));
            return self.pass.backward(to_hidden, unembedding, model);
        }
        let present: Vec<Tensor<1>> = to_log_probs.iter().chain(&to_entropies).cloned().collect();
        let Some(pull) = present.into_iter().map(Tensor::abs).reduce(|a, b| a + b) else {
            return Ok(GradientsParams::new());
        };
        let scale = loss_scale(self.pass.hidden.dtype(), &pull)?;
        let scaled = |gradient: Option<Tensor<1>>| match scale {
            1.0 => gradient,
            scale => gradient.map(|gradient| gradient.mul_scalar(scale)),
        };
        let (to_log_probs, to_entropies) = (scaled(to_log_probs), scaled(to_entropies));

        let hidden = self.pass.hidden.clone().inner().reshape([total, size]);
        let hidden = zeroed_where_idle(hidden, pull);
        let targets = self.targets.inner().reshape([total]);
        let mut hidden_gradients = Vec::new();
        let mut unembedding_gradient: Option<Tensor<2>> = None;
        for (from, to) in chunks(total, self.config.chunk) {
            let h = hidden
                .clone()
                .slice(s![from..to, ..])
                .autodiff()
                .require_grad();
            let mut w = self.unembedding.clone().inner();
            if trained {
                w = w.autodiff().require_grad();
            }
            let logits = h.clone().matmul(w.clone());
            let targets = targets.clone().slice(s![from..to]);
            let temperature = self.config.temperature;
            let pulled = |value: Tensor<1>, gradient: &Tensor<1>| {
                (value * gradient.clone().slice(s![from..to])).sum()
            };
            let surrogate = match (&to_log_probs, &to_entropies) {
                (Some(to_log_probs), None) => {
                    let log_probs = logits_log_probs_only(logits, targets, temperature);
                    pulled(log_probs, to_log_probs)
                }
                (to_log_probs, to_entropies) => {
                    let scores = logits_log_probs(logits, targets, temperature);
                    let parts = [
                        to_log_probs.as_ref().map(|to| pulled(scores.log_probs, to)),
                        to_entropies.as_ref().map(|to| pulled(scores.entropies, to)),
                    ];
                    match parts.into_iter().flatten().reduce(|a, b| a + b) {
                        Some(surrogate) => surrogate,
                        None => return Ok(GradientsParams::new()),
                    }
                }
            };
            let mut gradients = surrogate.backward();
            hidden_gradients.extend(h.grad_remove(&mut gradients));
            if trained && let Some(new) = w.grad_remove(&mut gradients) {
                let new = in_f32(new);
                unembedding_gradient = Some(match unembedding_gradient {
                    Some(sum) => sum + new,
                    None => new,
                });
            }
        }

        let to_hidden = Tensor::cat(hidden_gradients, 0).reshape([rows, width, size]);
        let unembedding = unembedding_gradient.map(|gradient| (self.unembedding, gradient));
        let gradients = self.pass.backward(to_hidden, unembedding, model)?;
        Ok(unscaled(gradients, scale, model))
    }
}

/// The sum of absolute gradients of all tokens that a loss is scaled to in f16.
///
/// The gradient of a parameter is then at most this times the largest derivative of a token's
/// log-prob (65504 is the largest f16 number), and the share of one token in a micro-batch of ten
/// thousand is 0.1, where f16 has full precision.
const F16_PULL: f64 = 1024.0;

/// Returns the power of two by which a loss is multiplied for a model of `dtype`: 1 except for f16,
/// in which small gradients would vanish. `pull` has the absolute gradients of the tokens.
///
/// # Errors
/// Returns an error if their sum cannot be read from the device.
pub(super) fn loss_scale(dtype: DType, pull: &Tensor<1>) -> Result<f64> {
    if dtype != DType::F16 {
        return Ok(1.0);
    }
    let sum: f32 = host::floats(pull.clone().sum(), "loss gradient")?
        .into_iter()
        .sum();
    if !(sum.is_finite() && sum > 0.0) {
        return Ok(1.0);
    }
    let exponent = (F16_PULL / f64::from(sum)).log2().floor();
    Ok(exponent.clamp(-64.0, 64.0).exp2())
}

/// Returns `gradients` divided by `scale`.
pub(super) fn unscaled<M: Module>(
    gradients: GradientsParams,
    scale: f64,
    model: &M,
) -> GradientsParams {
    if scale == 1.0 {
        return gradients;
    }
    let mut sum = GradientSum::default();
    sum.add_scaled(model, gradients, 1.0 / scale);
    sum.finish()
}

/// Sets the hidden states `[N, D]` of tokens without a gradient, such as padding, to zero: they are
/// unspecified, and 0 times NaN is NaN.
pub(super) fn zeroed_where_idle(hidden: Tensor<2>, pull: Tensor<1>) -> Tensor<2> {
    let shape = hidden.dims();
    let idle = pull.equal_scalar(0.0);
    hidden.mask_fill(idle.unsqueeze_dim::<2>(1).expand(shape), 0.0)
}
