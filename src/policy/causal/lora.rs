//! Low-rank adapters (LoRA).

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::fused::linear;
use crate::policy::as_dtype;
use crate::{Error, Result};

/// The adapter of one projection, `s (x A) B` (LoRA, arXiv 2106.09685), computed as two small
/// products.
///
/// Adapters are f32 whatever the type of the weights; their inputs and outputs have the type of the
/// hidden states.
#[derive(Module, Debug)]
pub struct Lora {
    /// `A`, `[inputs, rank]`.
    pub a: Param<Tensor<2>>,
    /// `B`, `[rank, outputs]`; zero before training, so that the adapted model computes the same.
    pub b: Param<Tensor<2>>,
    scale: f64,
}

impl Lora {
    /// Creates an adapter that adds `scale (x A) B`.
    pub(crate) fn new(a: Param<Tensor<2>>, b: Param<Tensor<2>>, scale: f64) -> Self {
        Self { a, b, scale }
    }

    /// Returns `s`: `alpha / rank`, or `alpha / sqrt(rank)`.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let dtype = x.dtype();
        let low = linear(as_dtype(x, self.a.dtype()), self.a.val(), None);
        as_dtype(
            linear(low, self.b.val(), None).mul_scalar(self.scale),
            dtype,
        )
    }

    /// Returns `s A B`, `[inputs, outputs]`, detached.
    pub(super) fn dense(&self) -> Tensor<2> {
        let product = self.a.val().inner().matmul(self.b.val().inner());
        product.mul_scalar(self.scale)
    }
}

/// A projection of every block that can have an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names of the projections say it")]
pub enum LoraTarget {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

impl LoraTarget {
    /// All projections.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// Returns the name of the projection in Hugging Face checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }
}

/// The configuration of a model's adapters; see
/// [`CausalModel::with_lora`](super::CausalModel::with_lora).
#[doc(alias = "peft_config")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// The number of columns of `A` and rows of `B`. Default 16.
    pub rank: usize,
    /// The product is scaled by `alpha / rank`. Default 32.
    pub alpha: f64,
    /// Whether to scale by `alpha / sqrt(rank)` instead (rsLoRA, arXiv 2312.03732). Default false.
    pub rank_stabilized: bool,
    /// The projections with an adapter. Default: all.
    pub targets: Vec<LoraTarget>,
    /// The seed of `A`. Default 0.
    pub seed: u64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            rank_stabilized: false,
            targets: LoraTarget::ALL.to_vec(),
            seed: 0,
        }
    }
}

impl LoraConfig {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the rank is 0, `alpha` is not a finite number above 0, or there
    /// are no targets.
    pub fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::config("lora.rank", 0, "at least 1"));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            let expected = "a finite number above 0";
            return Err(Error::config("lora.alpha", self.alpha, expected));
        }
        if self.targets.is_empty() {
            let expected = "at least one projection, such as q_proj";
            return Err(Error::config("lora.targets", "[]", expected));
        }
        Ok(())
    }

    /// The factor of the product of an adapter: `alpha / rank`, or `alpha / sqrt(rank)`.
    pub(crate) fn scale(&self) -> f64 {
        match self.rank_stabilized {
            true => self.alpha / (self.rank as f64).sqrt(),
            false => self.alpha / self.rank as f64,
        }
    }

    /// Returns whether the projection with this full name has an adapter.
    pub(crate) fn adapts(&self, name: &str) -> bool {
        let last = name.rsplit('.').next();
        self.targets
            .iter()
            .any(|target| Some(target.name()) == last)
    }
}
