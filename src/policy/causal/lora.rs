//! Low-rank adapters: what is trained in place of the weights.

use burn::module::{Module, Param};
use burn::tensor::module::linear;
use burn::tensor::{DType, Tensor, TensorData};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::model::CausalModel;
use super::projection::Projection;
use crate::random;
use crate::{Error, Result};

/// The word that keeps the adapters' streams apart from every other use of the run's seed.
const ADAPTERS: u64 = 0x4C4F_5241_0000_0000;

/// The adapter of one projection, `s (x A) B` (LoRA, arXiv 2106.09685): two small products; the dense `A B` never exists.
///
/// Adapters are f32 whatever the weights are; what goes in and out of them has the type of the hidden states.
#[derive(Module, Debug)]
pub struct Lora {
    /// `A`, `[inputs, rank]`.
    pub a: Param<Tensor<2>>,
    /// `B`, `[rank, outputs]`; zero before training, so that the adapted model is the model.
    pub b: Param<Tensor<2>>,
    scale: f64,
}

impl Lora {
    /// An adapter that adds `scale (x A) B`.
    pub fn new(a: Param<Tensor<2>>, b: Param<Tensor<2>>, scale: f64) -> Self {
        Self { a, b, scale }
    }

    /// `s`: `alpha / rank`, or `alpha / sqrt(rank)`.
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

    /// `s A B`, `[inputs, outputs]`.
    fn dense(&self) -> Tensor<2> {
        let product = self.a.val().inner().matmul(self.b.val().inner());
        product.mul_scalar(self.scale)
    }
}

fn as_dtype<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    match x.dtype() == dtype {
        true => x,
        false => x.cast(dtype),
    }
}

/// A projection that can have an adapter, in every block.
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
    /// Every projection.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// Its name, as in Hugging Face's checkpoints.
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

/// The adapters of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Columns of `A` and rows of `B`. Default 16.
    pub rank: usize,
    /// The product is scaled by `alpha / rank`. Default 32.
    pub alpha: f64,
    /// Scale by `alpha / sqrt(rank)` instead (rsLoRA, arXiv 2312.03732). Default false.
    pub rank_stabilized: bool,
    /// Which projections are adapted. Default: all.
    pub targets: Vec<LoraTarget>,
    /// Draws `A`. Default 0.
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
    /// Refuses what cannot be meant, naming field, value and range.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::config("lora.rank", 0, "at least 1"));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            let expected = "a finite number above 0";
            return Err(Error::config("lora.alpha", self.alpha, expected));
        }
        if self.targets.is_empty() {
            let expected = "at least one projection, as q_proj";
            return Err(Error::config("lora.targets", "[]", expected));
        }
        Ok(())
    }

    /// What the product of an adapter is multiplied by.
    pub fn scale(&self) -> f64 {
        match self.rank_stabilized {
            true => self.alpha / (self.rank as f64).sqrt(),
            false => self.alpha / self.rank as f64,
        }
    }

    /// Whether the projection called `name` (the full name, or its last part) is adapted.
    pub(crate) fn adapts(&self, name: &str) -> bool {
        let last = name.rsplit('.').next();
        self.targets
            .iter()
            .any(|target| Some(target.name()) == last)
    }
}

impl CausalModel {
    /// The model with fresh adapters, and nothing but these trained: its weights get no gradient any more, and optimizer and
    /// checkpoints hold the adapters alone. As `B` is zero it computes what it did before.
    ///
    /// `A` is drawn from `U(-1/sqrt(inputs), 1/sqrt(inputs))`, a pure function of the seed and the projection's place.
    ///
    /// # Errors
    /// If the configuration is refused or there are adapters already.
    pub fn with_lora(self, config: &LoraConfig) -> Result<Self> {
        config.validate()?;
        self.with_adapters(|index, name, projection| {
            if !config.adapts(name) {
                return Ok(None);
            }
            let [inputs, outputs] = projection.weight.dims();
            let mut rng = random::generator(&[config.seed, ADAPTERS, index]);
            let bound = 1.0 / (inputs as f64).sqrt();
            let a: Vec<f32> = (0..inputs * config.rank)
                .map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32)
                .collect();
            let device = projection.weight.device();
            let a = TensorData::new(a, [inputs, config.rank]);
            Ok(Some(Lora::new(
                Param::from_tensor(Tensor::from_data(a, (&device, DType::F32))),
                Param::from_tensor(Tensor::zeros([config.rank, outputs], (&device, DType::F32))),
                config.scale(),
            )))
        })
    }

    /// The model, frozen, with the adapters that `adapter` gives for a projection's index, full name and weights.
    pub(crate) fn with_adapters(
        self,
        mut adapter: impl FnMut(u64, &str, &Projection) -> Result<Option<Lora>>,
    ) -> Result<Self> {
        if self.has_adapters() {
            return Err(Error::config(
                "lora",
                "a model with adapters",
                "one without, or merge_lora() first",
            ));
        }
        let mut model = self.no_grad();
        for (index, (name, projection)) in model.projections_mut().enumerate() {
            projection.lora = adapter(index as u64, &name, projection)?;
        }
        Ok(model)
    }

    /// Whether there are adapters.
    pub fn has_adapters(&self) -> bool {
        self.adapters().next().is_some()
    }

    /// The adapters with the full names of their projections, as `model.layers.0.self_attn.q_proj`.
    pub fn adapters(&self) -> impl Iterator<Item = (String, &Lora)> {
        let all = self.projections();
        all.filter_map(|(name, projection)| Some((name, projection.lora.as_ref()?)))
    }

    /// The model as it is without its adapters, in the same structure: every `B` is zero. The weights are shared.
    #[must_use]
    pub fn with_adapters_off(mut self) -> Self {
        for (_, projection) in self.projections_mut() {
            if let Some(lora) = projection.lora.take() {
                let b = lora.b.map(|b| b.zeros_like());
                projection.lora = Some(Lora { b, ..lora });
            }
        }
        self
    }

    /// The model with `W + s A B` in place of `W`, rounded to the type of `W`, and without adapters. What a device with
    /// gradients holds is trained again.
    #[must_use]
    pub fn merge_lora(mut self) -> Self {
        if !self.has_adapters() {
            return self;
        }
        for (_, projection) in self.projections_mut() {
            if let Some(lora) = projection.lora.take() {
                let delta = lora.dense();
                projection.weight = projection.weight.clone().map(|weight| {
                    let dtype = weight.dtype();
                    let merged = as_dtype(weight.clone().inner(), delta.dtype()) + delta;
                    match weight.is_autodiff() {
                        true => Tensor::from_inner(as_dtype(merged, dtype)),
                        false => as_dtype(merged, dtype),
                    }
                });
            }
        }
        self.set_require_grad(true)
    }
}
