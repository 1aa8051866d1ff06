//! Token log-probs with an exact gradient and without `[B, T, V]`.

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

/// Log-probs and entropies of the policy that is being trained, ready for a loss.
///
/// Any loss that reads the policy only through [`log_probs`](Self::log_probs) and
/// [`entropies`](Self::entropies) can be built on it. The two are leaves: [`backward`](Self::backward)
/// first takes the loss to them, then recomputes the logits chunk by chunk to take their gradients to
/// the hidden states and the unembedding, and at last runs once through the trunk. The result is the
/// gradient of the unchunked formula; the price is one more product with the unembedding.
///
/// ```text
/// let pass = policy.forward_pass(&batch)?;
/// let scored = ScoredTokens::new(pass, policy.unembedding(), targets, &config)?;
/// let loss = objective.loss(&LossInput { log_probs: scored.log_probs.clone(), .. }, &counts)?;
/// let gradients = scored.backward(loss.loss, &policy);
/// ```
#[derive(Debug)]
pub struct ScoredTokens {
    /// `[B, T]`, a leaf that requires a gradient.
    pub log_probs: Tensor<2>,
    /// `[B, T]`, a leaf that requires a gradient.
    pub entropies: Tensor<2>,
    /// The scores with their backward pass, where there is a kernel.
    fused: Option<FusedScores>,
    pass: ForwardPass,
    unembedding: Tensor<2>,
    targets: Tensor<2, Int>,
    config: LogProbConfig,
}

impl ScoredTokens {
    /// Scores `targets` `[B, T]` under the hidden states `[B, T, D]` of `pass` and `unembedding` `[D, V]`. Hidden states on the
    /// gradient tape are a pass as well. An unembedding that is not trained gets no gradient, and none is computed.
    ///
    /// # Errors
    /// If the configuration is refused or the shapes do not fit.
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

    /// The gradients of `loss` with respect to the parameters of `model`, in f32 also for weights in half precision; empty if the
    /// loss depends on no token.
    ///
    /// Through a model in f16 the loss is multiplied by a power of two, which the gradients are divided by in f32: small ones
    /// would vanish otherwise.
    ///
    /// # Errors
    /// If the device cannot give back what the power of two is chosen by.
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

/// What the gradients of the losses of all tokens, absolute values summed, are scaled to in f16.
///
/// A gradient of a parameter is then at most this times the largest derivative of a token's log-prob (65504 is the largest f16
/// number), and the share of one token in a micro-batch of ten thousand is 0.1, where f16 has all its digits.
const F16_PULL: f64 = 1024.0;

/// The power of two that a loss is multiplied by on its way through a model of `dtype`: 1, except for f16, in which small gradients
/// would vanish. `pull` holds the absolute gradients at the tokens' numbers.
///
/// # Errors
/// If the device cannot give their sum back.
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

/// `gradients` divided by `scale`.
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

/// Hidden states `[N, D]` with zeros at tokens that no gradient comes to, such as padding: what stands there is unspecified, and
/// 0 times NaN is NaN.
pub(super) fn zeroed_where_idle(hidden: Tensor<2>, pull: Tensor<1>) -> Tensor<2> {
    let shape = hidden.dims();
    let idle = pull.equal_scalar(0.0);
    hidden.mask_fill(idle.unsqueeze_dim::<2>(1).expand(shape), 0.0)
}
