//! Rotary positions (RoFormer, arXiv 2104.09864) in the half-rotation layout of Hugging Face models.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::fused::rotate;

/// Cosines and sines of one forward pass.
///
/// With `d = Dh/2` and frequencies `w_i`, the pair `(x_i, x_{i+d})` of a head at position `p` is turned
/// by the angle `p w_i`. The pairs are half a head apart, not neighbours.
#[derive(Clone, Debug)]
pub(super) struct Rotary {
    /// `[R, T, Dh/2]`, R = 1 if all rows stand at the same positions, else B.
    cos: Tensor<3>,
    sin: Tensor<3>,
}

/// The angle of each pair for one step of position, and what cosines and sines are multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frequencies {
    /// `w_i`, `Dh/2` of them.
    pub angles: Vec<f64>,
    /// 1, but for YaRN.
    pub scale: f64,
}

impl Rotary {
    /// Tables of `dtype` for `width` positions from each of `starts`. Angles are computed in f64 on the host:
    /// f32 angles are off by more than 1e-3 past position 10^4.
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

    /// Turns the heads `[B, T, H, Dh]`.
    pub(super) fn turn(&self, heads: Tensor<4>) -> Tensor<4> {
        rotate(heads, &self.cos, &self.sin)
    }
}
