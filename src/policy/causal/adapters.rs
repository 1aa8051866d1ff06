//! Adding adapters to a model, disabling them, and merging them into the weights.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use rand::RngExt;

use super::lora::{Lora, LoraConfig};
use super::model::CausalModel;
use super::projection::Projection;
use crate::policy::{as_dtype, on_tape_of};
use crate::{Error, Result, random};

/// The domain separator of the random streams of adapters.
const ADAPTERS: u64 = 0x4C4F_5241_0000_0000;

impl CausalModel {
    /// Adds new adapters and freezes the weights: only the adapters are trained, and optimizer and
    /// checkpoints hold only them. As `B` is zero, the model computes the same as before.
    ///
    /// `A` is drawn from `U(-1/sqrt(inputs), 1/sqrt(inputs))`, a pure function of the seed and the
    /// index of the projection.
    ///
    /// ```
    /// use rlvr::policy::causal::{CausalConfig, LoraConfig};
    ///
    /// # #[cfg(feature = "flex")]
    /// # fn main() -> rlvr::Result<()> {
    /// let device = burn::tensor::Device::flex().autodiff();
    /// let model = CausalConfig {
    ///     hidden_size: 16,
    ///     ..CausalConfig::new(11)
    /// }
    /// .init(0, &device)?;
    /// let config = LoraConfig {
    ///     rank: 4,
    ///     alpha: 8.0,
    ///     ..LoraConfig::default()
    /// };
    /// let adapted = model.with_lora(&config)?;
    /// assert_eq!(adapted.adapters().count(), 2 * 7); // 2 layers with 7 projections
    /// let merged = adapted.merge_lora();
    /// assert!(!merged.has_adapters());
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "flex"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid or the model already has adapters.
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

    /// Freezes the model and adds the adapters that `adapter` returns for the index, full name and
    /// weights of each projection.
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

    /// Returns whether the model has adapters.
    pub fn has_adapters(&self) -> bool {
        self.adapters().next().is_some()
    }

    /// The adapters with the full names of their projections, such as
    /// `model.layers.0.self_attn.q_proj`.
    pub fn adapters(&self) -> impl Iterator<Item = (String, &Lora)> {
        let all = self.projections();
        all.filter_map(|(name, projection)| Some((name, projection.lora.as_ref()?)))
    }

    /// Disables the adapters by setting every `B` to zero: the structure stays the same, and the
    /// weights are shared with the original.
    #[doc(alias = "disable_adapter")]
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

    /// Merges the adapters into the weights: `W + s A B`, rounded to the type of `W`, replaces `W`,
    /// and the adapters are removed. On a device with gradients, all weights are trained again.
    #[doc(alias = "merge_and_unload")]
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
