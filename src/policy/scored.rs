//! Token log-probs with an exact gradient and without `[B, T, V]`.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, s};

use super::forward_pass::ForwardPass;
use super::log_probs::{LogProbConfig, check_shapes, chunks, logits_log_probs, token_log_probs};
use crate::Result;

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
        let scores = token_log_probs(
            pass.hidden.clone(),
            unembedding.clone(),
            targets.clone(),
            config,
        )?;
        Ok(Self {
            log_probs: scores.log_probs.autodiff().require_grad(),
            entropies: scores.entropies.autodiff().require_grad(),
            pass,
            unembedding,
            targets,
            config: *config,
        })
    }

    /// The gradients of `loss` with respect to the parameters of `model`.
    ///
    /// # Errors
    /// Never for a value made by [`new`](Self::new); shapes are checked there.
    pub fn backward<M: Module>(self, loss: Tensor<1>, model: &M) -> Result<GradientsParams> {
        let [rows, width, size] =
            check_shapes(&self.pass.hidden, &self.unembedding, &self.targets)?;
        let total = rows * width;
        let upstream = loss.backward();
        let flat = |leaf: &Tensor<2>| leaf.grad(&upstream).map(|grad| grad.reshape([total]));
        let (to_log_probs, to_entropies) = (flat(&self.log_probs), flat(&self.entropies));

        let hidden = self.pass.hidden.clone().inner().reshape([total, size]);
        let targets = self.targets.inner().reshape([total]);
        let mut hidden_gradients = Vec::new();
        let mut unembedding_gradient: Option<Tensor<2>> = None;
        let trained = self.unembedding.is_tracked();
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
            let scores = logits_log_probs(
                h.clone().matmul(w.clone()),
                targets.clone().slice(s![from..to]),
                self.config.temperature,
            );
            let pulled = |value: Tensor<1>, gradient: &Option<Tensor<1>>| {
                gradient
                    .as_ref()
                    .map(|g| (value * g.clone().slice(s![from..to])).sum())
            };
            let surrogate = match (
                pulled(scores.log_probs, &to_log_probs),
                pulled(scores.entropies, &to_entropies),
            ) {
                (Some(a), Some(b)) => a + b,
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => return Ok(GradientsParams::new()),
            };
            let mut gradients = surrogate.backward();
            hidden_gradients.extend(h.grad_remove(&mut gradients));
            if trained && let Some(new) = w.grad_remove(&mut gradients) {
                unembedding_gradient = Some(match unembedding_gradient {
                    Some(sum) => sum + new,
                    None => new,
                });
            }
        }

        let to_hidden = Tensor::cat(hidden_gradients, 0).reshape([rows, width, size]);
        let unembedding = unembedding_gradient.map(|gradient| (self.unembedding, gradient));
        self.pass.backward(to_hidden, unembedding, model)
    }
}
