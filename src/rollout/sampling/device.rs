//! Sampling of a token for every row on the device, in f32.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData, s};

use super::SamplingConfig;
use crate::policy::in_f32;

/// Draws a token for every row of `logits` `[B, V]`, with one uniform number per row.
///
/// Temperature, greedy decoding and min-p only: see [`SamplingConfig::runs_on_device`]. A logit of
/// `-inf` is never drawn. The token is that of [`sample_token`](super::sample_token) except where
/// rounding in f32 moves the boundary between two tokens past the uniform number.
pub(in crate::rollout) fn sample_rows(
    logits: Tensor<2>,
    config: &SamplingConfig,
    uniforms: Uniforms,
) -> SampledRows {
    let logits = in_f32(logits);
    let greedy = config.temperature == 0.0;
    let temperature = if greedy { 1.0 } else { config.temperature };
    let log_p = log_softmax(logits.clone().div_scalar(temperature), 1);
    let p = log_p.clone().exp();
    // p ln p -> 0 as p -> 0, but 0 * -inf is NaN.
    let information = p.clone() * log_p.clone().clamp_min(-1e4);
    let entropies = information.sum_dim(1).neg();
    if greedy {
        let tokens = largest(logits);
        // Keeps NaN where the logits are not finite.
        let log_probs = log_p.gather(1, tokens.clone()) * 0.0;
        return SampledRows {
            tokens,
            log_probs,
            entropies,
        };
    }
    let (kept, log_mass) = match config.min_p {
        Some(least) if least > 0.0 => {
            let floor = p.clone().max_dim(1) * least;
            let kept = p.clone().mask_fill(p.lower(floor), 0.0);
            let mass = kept.clone().sum_dim(1);
            (kept / mass.clone(), Some(mass.log()))
        }
        _ => (p, None),
    };
    let tokens = invert(kept, uniforms);
    let log_probs = log_p.gather(1, tokens.clone());
    SampledRows {
        tokens,
        log_probs: match log_mass {
            Some(log_mass) => log_probs - log_mass,
            None => log_probs,
        },
        entropies,
    }
}

/// The tokens drawn for rows, with their log-probs and the entropies of the distributions, as in
/// [`Sampled`](super::Sampled). The log-prob of a row is NaN if one of its logits is NaN or `+inf`,
/// or all of them are `-inf`.
pub(in crate::rollout) struct SampledRows {
    /// `[B, 1]`.
    pub tokens: Tensor<2, Int>,
    /// `[B, 1]`.
    pub log_probs: Tensor<2>,
    /// `[B, 1]`.
    pub entropies: Tensor<2>,
}

/// Uniform numbers in [0, 1), each as the sum of two f32 numbers, `[B, N]`.
#[derive(Clone, Debug)]
pub(in crate::rollout) struct Uniforms {
    high: Tensor<2>,
    low: Tensor<2>,
}

impl Uniforms {
    /// Copies numbers for `rows` rows, row by row, to the device.
    pub fn new(uniforms: &[f64], rows: usize, device: &burn::tensor::Device) -> Self {
        let shape = [rows, uniforms.len() / rows.max(1)];
        let tensor = |part: fn(f64) -> f32| {
            let part: Vec<f32> = uniforms.iter().map(|&uniform| part(uniform)).collect();
            Tensor::from_data(TensorData::new(part, shape), device)
        };
        Self {
            high: tensor(|uniform| uniform as f32),
            low: tensor(|uniform| (uniform - f64::from(uniform as f32)) as f32),
        }
    }

    /// The numbers in column `index`, `[B, 1]`.
    pub fn column(&self, index: usize) -> Self {
        let column = |part: &Tensor<2>| part.clone().slice(s![.., index..index + 1]);
        Self {
            high: column(&self.high),
            low: column(&self.low),
        }
    }
}

/// Returns the id of the largest number of each row, the lowest among equals, `[B, 1]`.
fn largest(x: Tensor<2>) -> Tensor<2, Int> {
    let [rows, width] = x.dims();
    let ids = Tensor::<1, Int>::arange(0..width as i64, &x.device()).unsqueeze::<2>();
    let below = x.clone().lower(x.max_dim(1).expand([rows, width]));
    ids.expand([rows, width])
        .mask_fill(below, width as i64 - 1)
        .min_dim(1)
}

/// Inverts the cumulative distributions of the rows of `p` `[B, V]` at `uniforms` `[B, 1]`.
///
/// A row is divided into blocks of about `sqrt(V)` tokens: the block is found by the sums of blocks,
/// the token by the cumulative sum within the block. Few sums are long, so that little is lost to
/// rounding, and a device whose cumulative sum takes quadratic time does little work.
fn invert(p: Tensor<2>, uniforms: Uniforms) -> Tensor<2, Int> {
    let [rows, vocabulary] = p.dims();
    let width = (vocabulary as f64).sqrt().ceil() as usize;
    let blocks = vocabulary.div_ceil(width);
    let device = p.device();
    let padded = match blocks * width - vocabulary {
        0 => p,
        missing => Tensor::cat(vec![p, Tensor::zeros([rows, missing], &device)], 1),
    };
    let weights = padded.reshape([rows, blocks, width]);
    let sums = weights.clone().sum_dim(2).reshape([rows, blocks]);
    let ends = sums.clone().cumsum(1);
    let block = position(&ends, &sums, uniforms.high.clone());
    let starts = Tensor::cat(vec![Tensor::zeros([rows, 1], &device), ends], 1);
    let start = starts.gather(1, block.clone());
    // The rest is negative if the block begins within the rounding of the high part.
    let rest = (uniforms.high - start + uniforms.low).clamp_min(0.0);
    let chosen = block.clone().reshape([rows, 1, 1]);
    let weights = weights
        .gather(1, chosen.expand([rows, 1, width]))
        .reshape([rows, width]);
    let within = position(&weights.clone().cumsum(1), &weights, rest);
    block * width as i64 + within
}

/// Returns the index of the first of `ends` `[B, N]` that is above `x` `[B, 1]`, at most the last
/// index whose weight is not 0.
fn position(ends: &Tensor<2>, weights: &Tensor<2>, x: Tensor<2>) -> Tensor<2, Int> {
    let shape = ends.dims();
    let passed = ends.clone().lower_equal(x.expand(shape)).int().sum_dim(1);
    let ids = Tensor::<1, Int>::arange(0..shape[1] as i64, &ends.device()).unsqueeze::<2>();
    let empty = weights.clone().lower_equal_scalar(0.0);
    let last = ids.expand(shape).mask_fill(empty, 0).max_dim(1);
    passed.min_pair(last)
}

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use super::super::sample_token;
    use super::*;
    use burn::tensor::Device;
    use proptest::prelude::*;

    /// The tokens, log-probs and entropies drawn from one row of logits at many uniform numbers.
    fn sample(raw: &[f32], config: &SamplingConfig, at: &[f64]) -> Vec<(u32, f64, f64)> {
        let device = Device::flex();
        let rows = at.len();
        let data = TensorData::new(raw.repeat(rows), [rows, raw.len()]);
        let drawn = sample_rows(
            Tensor::from_data(data, &device),
            config,
            Uniforms::new(at, rows, &device),
        );
        let tokens: Vec<u32> = drawn.tokens.into_data().iter().collect();
        let floats = |x: Tensor<2>| x.into_data().iter::<f64>().collect::<Vec<_>>();
        let (log_probs, entropies) = (floats(drawn.log_probs), floats(drawn.entropies));
        (0..rows)
            .map(|row| (tokens[row], log_probs[row], entropies[row]))
            .collect()
    }

    proptest! {
        /// The device draws the tokens that the host draws, except within rounding of a boundary.
        #[test]
        fn tokens_are_those_of_the_host(
            raw in prop::collection::vec(prop_oneof![9 => -9f32..9.0, 1 => Just(f32::NEG_INFINITY)], 1..400),
            finite in -2f32..2.0,
            at in prop::collection::vec(0f64..1.0, 1..20),
            temperature in prop_oneof![Just(0.0), Just(1.0), 0.3f64..3.0],
            min_p in prop::option::of(0f64..1.0),
        ) {
            let mut raw = raw;
            raw[0] = finite;
            let config = SamplingConfig { temperature, min_p, ..SamplingConfig::default() };
            for (drawn, &uniform) in sample(&raw, &config, &at).iter().zip(&at) {
                let draw = |uniform: f64| {
                    sample_token(&raw, &config, uniform.clamp(0.0, 1.0 - 1e-16), &mut Vec::new())
                };
                let near = [draw(uniform - 1e-6)?, draw(uniform)?, draw(uniform + 1e-6)?];
                let token = near.iter().find(|near| near.token == drawn.0);
                let Some(token) = token else {
                    return Err(TestCaseError::fail(format!("{drawn:?} at {uniform}: {near:?}")));
                };
                prop_assert!((token.log_prob - drawn.1).abs() < 1e-5 * (1.0 + token.log_prob.abs()));
                prop_assert!((token.entropy - drawn.2).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_large_vocabulary_is_drawn_in_proportion() {
        // 151,936 tokens in descending order of probability; half of the mass is on the first 1000.
        let raw: Vec<f32> = (0..151_936)
            .map(|id: i32| match id < 1000 {
                true => (0.5f32 / 1000.0).ln(),
                false => (0.5f32 / 150_936.0).ln(),
            })
            .collect();
        let count = 64;
        let at: Vec<f64> = (0..count)
            .map(|i| (i as f64 + 0.5) / count as f64)
            .collect();
        for (drawn, uniform) in sample(&raw, &SamplingConfig::default(), &at)
            .iter()
            .zip(&at)
        {
            let wanted = match *uniform < 0.5 {
                true => uniform * 2000.0,
                false => 1000.0 + (uniform - 0.5) * 2.0 * 150_936.0,
            };
            // 1.3e-5 of the mass.
            assert!(
                (f64::from(drawn.0) - wanted).abs() <= 4.0,
                "{drawn:?} {wanted}"
            );
        }
    }

    #[test]
    fn the_ends_of_the_unit_interval_draw_tokens_that_have_a_weight() {
        let lowest = f32::NEG_INFINITY;
        let raw = [lowest, lowest, 0.0, lowest, 1.0, lowest, lowest];
        let last = 1.0 - (-53f64).exp2();
        let drawn = sample(&raw, &SamplingConfig::default(), &[0.0, last]);
        assert_eq!([drawn[0].0, drawn[1].0], [2, 4]);
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        let drawn = sample(&[1.0, 3.0, 3.0], &SamplingConfig::greedy(), &[0.9]);
        assert_eq!((drawn[0].0, drawn[0].1), (1, 0.0));
    }

    #[test]
    fn logits_that_are_not_finite_have_no_log_prob() {
        let lowest = f32::NEG_INFINITY;
        for config in [SamplingConfig::default(), SamplingConfig::greedy()] {
            for raw in [[0.0, f32::NAN], [f32::INFINITY, 0.0], [lowest, lowest]] {
                assert!(sample(&raw, &config, &[0.5])[0].1.is_nan(), "{raw:?}");
            }
        }
    }
}
