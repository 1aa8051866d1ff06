//! A model with adapters: put on, off, and into the weights.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use rand::RngExt;

use super::lora::{Lora, LoraConfig};
use super::model::CausalModel;
use super::projection::Projection;
use crate::policy::{as_dtype, on_tape_of};
use crate::{Error, Result, random};

/// The word that keeps the adapters' streams apart from every other use of the run's seed.
const ADAPTERS: u64 = 0x4C4F_5241_0000_0000;

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
                let scale = lora.scale();
                let b = lora.b.map(|b| b.zeros_like());
                projection.lora = Some(Lora::new(lora.a, b, scale));
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
                    on_tape_of(as_dtype(merged, dtype), &weight)
                });
            }
        }
        self.set_require_grad(true)
    }
}
