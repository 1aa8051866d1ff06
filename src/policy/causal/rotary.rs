//! Rotary positions (RoFormer, arXiv 2104.09864) in the half-rotation layout of Hugging Face models.

use burn::tensor::{Device, Tensor, TensorData, s};

/// Cosines and sines of one forward pass.
///
/// With `d = Dh/2` and `w_i = theta^(-i/d)`, the pair `(x_i, x_{i+d})` of a head at position `p` is turned
/// by the angle `p w_i`. The pairs are half a head apart, not neighbours.
#[derive(Clone, Debug)]
pub(super) struct Rotary {
    /// `[R, 1, T, Dh/2]`, R = 1 if all rows stand at the same positions, else B.
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotary {
    /// Tables for `width` positions from each of `starts`. Angles are computed in f64 on the host:
    /// f32 angles are off by more than 1e-3 past position 10^4.
    pub(super) fn new(
        starts: &[usize],
        width: usize,
        head_size: usize,
        theta: f64,
        device: &Device,
    ) -> Self {
        let same = starts.iter().all(|&start| start == starts[0]);
        let starts = if same { &starts[..1] } else { starts };
        let half = head_size / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|i| theta.powf(-(i as f64) / half as f64))
            .collect();
        let mut cos = Vec::with_capacity(starts.len() * width * half);
        let mut sin = Vec::with_capacity(starts.len() * width * half);
        for &start in starts {
            for position in start..start + width {
                for frequency in &frequencies {
                    let (s, c) = (position as f64 * frequency).sin_cos();
                    cos.push(c as f32);
                    sin.push(s as f32);
                }
            }
        }
        let shape = [starts.len(), 1, width, half];
        Self {
            cos: Tensor::from_data(TensorData::new(cos, shape), device),
            sin: Tensor::from_data(TensorData::new(sin, shape), device),
        }
    }

    /// Turns the heads `[B, H, T, Dh]`.
    pub(super) fn turn(&self, heads: Tensor<4>) -> Tensor<4> {
        let half = heads.dims()[3] / 2;
        let first = heads.clone().slice(s![.., .., .., ..half]);
        let second = heads.slice(s![.., .., .., half..]);
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        Tensor::cat(
            vec![
                first.clone() * cos.clone() - second.clone() * sin.clone(),
                second * cos + first * sin,
            ],
            3,
        )
    }
}
