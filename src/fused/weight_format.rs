//! How the weights of a policy are stored while it generates.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How a policy's matrices are stored while it generates.
///
/// Decoding reads every matrix once for each token of a batch, so fewer bytes are less time. The
/// completions are then sampled from a policy that differs from the trained one by the rounding of
/// its weights: their log-probs are those of the sampler, and a
/// [`SamplerCorrection`](crate::loss::SamplerCorrection) weighs them by the ratio of both
/// (truncated importance sampling, as for inference engines of lower precision). A trainer returns
/// an error without one. Training and evaluation always use the trained weights.
///
/// Activations, norms, biases, adapters and the embedding of the input stay `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    /// The trained weights themselves.
    #[default]
    Trained,
    /// A copy rounded to bfloat16, 2 bytes a weight. Needs the `flex` device and `f32` weights.
    Bf16,
    /// A copy quantised to 8 bits with one scale for each output channel (symmetric, the largest
    /// magnitude is 127), 1 byte a weight. Needs the `flex` device and `f32` weights.
    Int8,
}

impl WeightFormat {
    /// The name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trained => "trained",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl std::str::FromStr for WeightFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Trained, Self::Bf16, Self::Int8]
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| Error::config("weight format", name, "trained, bf16 or int8"))
    }
}
