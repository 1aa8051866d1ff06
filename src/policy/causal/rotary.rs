//! Rotary positions (RoFormer, arXiv 2104.09864) in the half-rotation layout of Hugging Face
//! models.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::fused::rotate;

/// Cosines and sines of one forward pass.
///
/// With `d = Dh/2` and frequencies `w_i`, the pair `(x_i, x_{i+d})` of a head at position `p` is
/// rotated by the angle `p w_i`.
#[derive(Clone, Debug)]
pub(super) struct Rotary {
    /// `[R, T, Dh/2]`, with R = 1 if all rows have the same positions, otherwise B.
    cos: Tensor<3>,
    sin: Tensor<3>,
}

/// The frequencies of the rotation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frequencies {
    /// The angle of each pair per position, `w_i` `[Dh/2]`, in radians.
    pub angles: Vec<f64>,
    /// The factor of cosines and sines; 1 except for YaRN.
    pub scale: f64,
}

impl Rotary {
    /// Creates tables of `dtype` for `width` positions from each of `starts`. Angles are computed
    /// in f64 on the host: errors of f32 angles exceed 1e-3 past position 10^4.
    pub(super) fn new(
        starts: &[usize],
        width: usize,
        frequencies: &Frequencies,
        device: &Device,
        dtype: DType,
    ) -> Self {
        let same = starts.iter().all(|&start| start == starts[0]);
        let starts = if same { &starts[..1] } else { starts };
        let (half, scale) = (frequencies.angles.len(), frequencies.scale);
        let mut cos = Vec::with_capacity(starts.len() * width * half);
        let mut sin = Vec::with_capacity(starts.len() * width * half);
        for &start in starts {
            for position in start..start + width {
                for frequency in &frequencies.angles {
                    let (s, c) = (position as f64 * frequency).sin_cos();
                    cos.push((c * scale) as f32);
                    sin.push((s * scale) as f32);
                }
            }
        }
        let shape = [starts.len(), width, half];
        let table = |values| Tensor::from_data(TensorData::new(values, shape), (device, dtype));
        Self {
            cos: table(cos),
            sin: table(sin),
        }
    }

    /// Rotates the heads `[B, T, H, Dh]`.
    pub(super) fn rotate(&self, heads: Tensor<4>) -> Tensor<4> {
        rotate(heads, &self.cos, &self.sin)
    }
}
