//! Initial weights, drawn on the host from one seeded generator.

use burn::module::Param;
use burn::nn::{Embedding, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::config::CausalConfig;
use super::model::CausalModel;
use super::projection::Projection;
use super::weights::WeightSource;
use crate::{Result, random};

/// The domain separator of the random streams of weights.
const WEIGHTS: u64 = 0x5745_4947_4854_5300;

impl CausalConfig {
    /// Creates a model with random weights, a pure function of the configuration and `seed` that is
    /// the same on every device. For training, use a device with [`Device::autodiff`].
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid.
    pub fn init(&self, seed: u64, device: &Device) -> Result<CausalModel> {
        self.validate()?;
        let mut weights = Initializer::new(seed, self.initializer_range, self.rms_norm_eps, device);
        Ok(CausalModel::build(self, &mut weights))
    }
}

/// Draws the weights of a model in a fixed order.
struct Initializer<'a> {
    rng: ChaCha8Rng,
    range: Option<f64>,
    norm_epsilon: f64,
    device: &'a Device,
}

impl<'a> Initializer<'a> {
    fn new(seed: u64, range: Option<f64>, norm_epsilon: f64, device: &'a Device) -> Self {
        Self {
            rng: random::generator(&[seed, WEIGHTS]),
            range,
            norm_epsilon,
            device,
        }
    }

    fn normal(&mut self, shape: [usize; 2], std: f64) -> Tensor<2> {
        let weights: Vec<f32> = (0..shape[0] * shape[1])
            .map(|_| {
                let z: f64 = StandardNormal.sample(&mut self.rng);
                (z * std) as f32
            })
            .collect();
        Tensor::from_data(TensorData::new(weights, shape), self.device)
    }
}

impl WeightSource for Initializer<'_> {
    /// Normal weights of standard deviation `range` or `1/sqrt(inputs)`; the bias is zero.
    fn linear(&mut self, _: &str, inputs: usize, outputs: usize, bias: bool) -> Projection {
        let std = self.range.unwrap_or(1.0 / (inputs as f64).sqrt());
        let weight = Param::from_tensor(self.normal([inputs, outputs], std));
        let zeros = || Param::from_tensor(Tensor::zeros([outputs], self.device));
        Projection::new(weight, bias.then(zeros))
    }

    /// Normal weights of standard deviation `range` or `1/sqrt(size)`.
    fn embedding(&mut self, _: &str, tokens: usize, size: usize) -> Embedding {
        let std = self.range.unwrap_or(1.0 / (size as f64).sqrt());
        Embedding {
            weight: Param::from_tensor(self.normal([tokens, size], std)),
        }
    }

    /// A gain of 1.
    fn norm(&mut self, _: &str, size: usize) -> RmsNorm {
        RmsNormConfig::new(size)
            .with_epsilon(self.norm_epsilon)
            .init(self.device)
    }
}
