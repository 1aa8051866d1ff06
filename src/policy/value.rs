//! The critic of PPO: a trunk with a scalar head.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use super::{PolicyModel, TokenBatch};
use crate::Result;

/// A model that estimates, at every token, the reward still to come.
pub trait ValueModel: Module {
    /// What the model remembers of the tokens that it has read.
    type Cache: super::PolicyCache;

    /// An empty cache for `rows` sequences.
    fn empty_cache(&self, rows: usize) -> Self::Cache;

    /// `V(s_t)` `[B, T]`: the value of the state after the row's tokens up to and including index t,
    /// so the value of the state in which the *next* token is chosen. Same contract as
    /// [`PolicyModel::forward`].
    ///
    /// # Errors
    /// As [`PolicyModel::forward`].
    fn values(&self, tokens: &TokenBatch, cache: &mut Self::Cache) -> Result<Tensor<2>>;

    /// The device that the parameters live on.
    fn device(&self) -> Device;
}

/// A policy's trunk, with parameters of its own, and one linear unit on its hidden states.
///
/// `V = hidden . w + b`. The head starts at zero, so that the first advantages are the rewards themselves.
#[derive(Module, Debug)]
pub struct ValueHead<M: PolicyModel> {
    /// The trunk.
    pub trunk: M,
    /// The head, `[D, 1]`.
    pub head: Linear,
}

impl<M: PolicyModel> ValueHead<M> {
    /// A critic on a copy of `trunk`. The copy's unembedding is carried along unused.
    pub fn new(trunk: M) -> Self {
        let device = trunk.device();
        let size = trunk.unembedding().dims()[0];
        let head = Linear {
            weight: Param::from_tensor(Tensor::zeros([size, 1], &device)),
            bias: Some(Param::from_tensor(Tensor::zeros([1], &device))),
        };
        Self { trunk, head }
    }
}

impl<M: PolicyModel> ValueModel for ValueHead<M> {
    type Cache = M::Cache;

    fn empty_cache(&self, rows: usize) -> M::Cache {
        self.trunk.empty_cache(rows)
    }

    fn values(&self, tokens: &TokenBatch, cache: &mut M::Cache) -> Result<Tensor<2>> {
        let hidden = self.trunk.forward(tokens, cache)?;
        Ok(self.head.forward(hidden).squeeze_dim(2))
    }

    fn device(&self) -> Device {
        self.trunk.device()
    }
}
