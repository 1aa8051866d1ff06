//! Value models: the critic of PPO, and reward models.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};

use super::PolicyModel;
use super::forward_pass::PrefixedBatch;
use super::gradients::{GradientSum, on_tape_of};
use super::log_probs::in_f32;
use super::scored::{loss_scale, unscaled, zeroed_where_idle};
use crate::{Result, host};

/// A model that estimates the future reward at every token.
///
/// ```
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::policy::{TokenBatch, ValueHead, ValueModel};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let device = burn::tensor::Device::flex();
/// let trunk = CausalConfig { hidden_size: 16, ..CausalConfig::new(11) }.init(0, &device)?;
/// let critic = ValueHead::new(trunk);
/// let values = critic.values(&TokenBatch::from_rows(&[[1, 2, 3]], &device)?.into())?;
/// // The head starts at zero.
/// assert_eq!(values.into_data().to_vec::<f32>().unwrap(), [0.0; 3]);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
pub trait ValueModel: Module {
    /// Returns the values `V(s_t)` `[N, T]` of the batch's rows, where `s_t` is the state after the
    /// tokens up to and including index `t`, in which the *next* token is chosen. They are on the
    /// gradient tape if the parameters are. Values at padding are unspecified.
    ///
    /// # Errors
    /// Returns the errors of [`PolicyModel::forward`].
    fn values(&self, batch: &PrefixedBatch) -> Result<Tensor<2>>;

    /// Returns the same values in training, with their backward pass.
    ///
    /// The default implementation computes them on the gradient tape.
    ///
    /// # Errors
    /// Returns the errors of [`PolicyModel::forward`].
    fn value_pass(&self, batch: &PrefixedBatch) -> Result<ValuePass<'_>> {
        Ok(self.values(batch)?.into())
    }

    /// The device of the parameters.
    fn device(&self) -> Device;
}

/// Returns the value after the last token of each row, `[N]`, given `values` `[N, T]` of rows of
/// these lengths, each at least 1.
pub(crate) fn values_after_last(values: Tensor<2>, lengths: &[usize]) -> Tensor<1> {
    let last: Vec<usize> = lengths.iter().map(|length| length - 1).collect();
    let last = host::indices(&last, &values.device());
    values.gather(1, last.unsqueeze_dim(1)).squeeze_dim(1)
}

/// The backward pass from the gradient of the values to those of the parameters.
type Back<'a> = Box<dyn FnOnce(Tensor<2>) -> Result<GradientsParams> + 'a>;

/// Values `[N, T]` of a critic in training, as input of a loss, with their backward pass.
///
/// The values are on the gradient tape of the parameters (`ValuePass::from(values)`), or the model
/// recomputes activations in the backward pass ([`recomputed`](Self::recomputed)).
pub struct ValuePass<'a> {
    /// The values `[N, T]`, on the gradient tape.
    pub values: Tensor<2>,
    back: Option<Back<'a>>,
}

impl From<Tensor<2>> for ValuePass<'_> {
    /// Wraps values on the gradient tape of the parameters.
    fn from(values: Tensor<2>) -> Self {
        Self { values, back: None }
    }
}

impl<'a> ValuePass<'a> {
    /// Wraps `values` off the gradient tape. `back` maps their gradient, `[N, T]` and off the tape,
    /// to those of the parameters.
    pub fn recomputed(values: Tensor<2>, back: Back<'a>) -> Self {
        Self {
            values: values.autodiff().require_grad(),
            back: Some(back),
        }
    }

    /// Returns the gradients of `loss` with respect to the parameters of `model`; empty if the loss
    /// does not depend on the values.
    ///
    /// # Errors
    /// Returns an error if the backward pass fails.
    pub fn backward<M: Module>(self, loss: Tensor<1>, model: &M) -> Result<GradientsParams> {
        if !loss.is_tracked() {
            return Ok(GradientsParams::new());
        }
        let gradients = loss.backward();
        match self.back {
            None => Ok(GradientsParams::from_grads(gradients, model)),
            Some(back) => match self.values.grad(&gradients) {
                Some(to_values) => back(to_values),
                None => Ok(GradientsParams::new()),
            },
        }
    }
}

impl std::fmt::Debug for ValuePass<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValuePass")
            .field("values", &self.values.dims())
            .field("recomputed", &self.back.is_some())
            .finish()
    }
}

/// A critic: a copy of a policy's trunk with a linear unit on its hidden states,
/// `V = hidden . w + b`.
///
/// The head starts at zero, so that the first advantages are the rewards themselves. The head and
/// the values are f32; hidden states in half precision are cast.
#[derive(Module, Debug)]
pub struct ValueHead<M: PolicyModel> {
    /// The trunk.
    pub trunk: M,
    /// The head, `[D, 1]`.
    pub head: Linear,
}

impl<M: PolicyModel> ValueHead<M> {
    /// Creates a critic on `trunk`, whose unembedding is kept but not used.
    pub fn new(trunk: M) -> Self {
        let device = trunk.device();
        let size = trunk.unembedding().dims()[0];
        let head = Linear {
            weight: Param::from_tensor(Tensor::zeros([size, 1], &device)),
            bias: Some(Param::from_tensor(Tensor::zeros([1], &device))),
        };
        Self { trunk, head }
    }

    /// Removes the bias `b`, as in the reward models of `transformers`. Pairs of responses do not
    /// determine it.
    #[must_use]
    pub fn without_bias(mut self) -> Self {
        self.head.bias = None;
        self
    }

    /// Returns the values `[N]` of `hidden` `[N, D]`.
    fn value(&self, hidden: Tensor<2>) -> Tensor<1> {
        self.head.forward(in_f32(hidden)).squeeze_dim(1)
    }
}

impl<M: PolicyModel> ValueModel for ValueHead<M> {
    fn values(&self, batch: &PrefixedBatch) -> Result<Tensor<2>> {
        let hidden = self.trunk.hidden_states(batch)?;
        let [rows, width, size] = hidden.dims();
        let values = self.value(hidden.reshape([rows * width, size]));
        Ok(values.reshape([rows, width]))
    }

    /// Uses the trunk's [`forward_pass`](PolicyModel::forward_pass), so that gradient checkpointing
    /// of the trunk applies.
    fn value_pass(&self, batch: &PrefixedBatch) -> Result<ValuePass<'_>> {
        let pass = self.trunk.forward_pass(batch)?;
        let hidden = pass.hidden.clone().inner();
        let [rows, width, size] = hidden.dims();
        let hidden = hidden.reshape([rows * width, size]);
        let values = self.value(hidden.clone()).inner().reshape([rows, width]);
        let back = move |to_values: Tensor<2>| {
            let to_values = to_values.reshape([rows * width]);
            let pull = to_values.clone().abs();
            let scale = loss_scale(hidden.dtype(), &pull)?;
            let hidden = zeroed_where_idle(hidden, pull);
            let hidden = on_tape_of(hidden, &self.head.weight.val()).require_grad();
            let pulled = (self.value(hidden.clone()) * to_values.mul_scalar(scale)).sum();
            let mut gradients = pulled.backward();
            let to_hidden = hidden.grad_remove(&mut gradients);
            let mut sum = GradientSum::default();
            sum.add(self, GradientsParams::from_grads(gradients, &self.head));
            if let Some(to_hidden) = to_hidden {
                let to_hidden = to_hidden.reshape([rows, width, size]);
                sum.add(self, pass.backward(to_hidden, None, &self.trunk)?);
            }
            Ok(unscaled(sum.finish(), scale, self))
        };
        Ok(ValuePass::recomputed(values, Box::new(back)))
    }

    fn device(&self) -> Device {
        self.trunk.device()
    }
}
