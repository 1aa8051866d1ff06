//! Rotary frequencies, and how they are stretched for long contexts.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::rotary::Frequencies;
use crate::{Error, Result};

/// How the rotary frequencies `w_i = theta^(-2i/Dh)` are stretched so that a model reads contexts longer than those it
/// was trained on first. The names are those of `rope_type` in Hugging Face's `config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// `w_i` as they are.
    #[default]
    #[serde(rename = "default")]
    Unscaled,
    /// Position interpolation (arXiv 2306.15595): `w_i / factor`.
    Linear {
        /// How much longer contexts become; at least 1.
        factor: f64,
    },
    /// Llama 3.1's: a wavelength `2 pi / w_i` above `original / low_freq_factor` is stretched by `factor`, one below
    /// `original / high_freq_factor` is kept, and between the two the frequency is blended linearly in `original / wavelength`.
    Llama3 {
        /// How much longer contexts become; at least 1.
        factor: f64,
        /// Rotations within the original context below which a pair is stretched whole.
        low_freq_factor: f64,
        /// Rotations within the original context above which a pair is kept.
        high_freq_factor: f64,
        /// Positions of the pre-training.
        original_max_position_embeddings: usize,
    },
    /// YaRN (arXiv 2309.00071): pairs with more than `beta_fast` rotations within the original context are kept, those with fewer
    /// than `beta_slow` are stretched by `factor`, between them a ramp over the pairs' indices; cosines and sines are multiplied by
    /// `attention_factor`.
    Yarn {
        /// How much longer contexts become; at least 1.
        factor: f64,
        /// Positions of the pre-training.
        original_max_position_embeddings: usize,
        /// The paper's alpha and beta, in rotations: 32 and 1.
        beta_fast: f64,
        /// See `beta_fast`.
        beta_slow: f64,
        /// `0.1 ln(factor) + 1` in the paper.
        attention_factor: f64,
        /// Whether the ends of the ramp are rounded to whole pairs, as in the authors' code.
        truncate: bool,
    },
}

impl RopeScaling {
    /// Rejects invalid settings, naming field, value and range.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        let at_least_one = |factor: f64| check("factor", factor, factor >= 1.0, "at least 1");
        let positions = |count: usize| {
            let name = "original_max_position_embeddings";
            check(name, count as f64, count > 0, "at least 1")
        };
        match *self {
            Self::Unscaled => Ok(()),
            Self::Linear { factor } => at_least_one(factor),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                at_least_one(factor)?;
                positions(original)?;
                check("low_freq_factor", low, low > 0.0, "above 0")?;
                let above = format!("above low_freq_factor = {low}");
                check("high_freq_factor", high, high > low, &above)
            }
            Self::Yarn {
                factor,
                original_max_position_embeddings: original,
                beta_fast,
                beta_slow,
                attention_factor,
                ..
            } => {
                at_least_one(factor)?;
                positions(original)?;
                check("beta_slow", beta_slow, beta_slow > 0.0, "above 0")?;
                let above = format!("at least beta_slow = {beta_slow}");
                check("beta_fast", beta_fast, beta_fast >= beta_slow, &above)?;
                let name = "attention_factor";
                check(name, attention_factor, attention_factor > 0.0, "above 0")
            }
        }
    }

    /// The frequencies of heads of `head_size` on the base `theta`.
    pub(super) fn frequencies(&self, head_size: usize, theta: f64) -> Frequencies {
        let half = head_size / 2;
        let plain = |i: usize| theta.powf(-(i as f64) / half as f64);
        let mut scale = 1.0;
        let angles = match *self {
            Self::Unscaled => (0..half).map(plain).collect(),
            Self::Linear { factor } => (0..half).map(|i| plain(i) / factor).collect(),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let stretched = |w: f64| {
                    let rotations = original as f64 * w / (2.0 * PI);
                    let kept = ((rotations - low) / (high - low)).clamp(0.0, 1.0);
                    kept * w + (1.0 - kept) * w / factor
                };
                (0..half).map(plain).map(stretched).collect()
            }
            Self::Yarn {
                factor,
                original_max_position_embeddings: original,
                beta_fast,
                beta_slow,
                attention_factor,
                truncate,
            } => {
                scale = attention_factor;
                // The pair that makes so many rotations within the original context.
                let pair = |rotations: f64| {
                    let ratio = original as f64 / (rotations * 2.0 * PI);
                    head_size as f64 * ratio.ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let low = low.max(0.0);
                let mut high = high.min(head_size as f64 - 1.0);
                if low == high {
                    high += 1e-3; // as the authors' code, against a division by zero
                }
                let blended = |i: usize| {
                    let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    let w = plain(i);
                    (1.0 - stretched) * w + stretched * w / factor
                };
                (0..half).map(blended).collect()
            }
        };
        Frequencies { angles, scale }
    }
}

fn check(field: &str, value: f64, holds: bool, expected: &str) -> Result<()> {
    if value.is_finite() && holds {
        return Ok(());
    }
    let field = format!("rope_scaling.{field}");
    Err(Error::config(
        field,
        value,
        format!("a finite number, {expected}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA3: RopeScaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };

    #[test]
    fn llama3_keeps_fast_pairs_and_stretches_slow_ones() {
        let plain = RopeScaling::Unscaled.frequencies(128, 500_000.0).angles;
        let scaled = LLAMA3.frequencies(128, 500_000.0).angles;
        assert_eq!(scaled[0], 1.0);
        assert_eq!(scaled[63], plain[63] / 8.0);
        // One wavelength between the two limits: 8192/4 < 2 pi / w < 8192.
        let between = (0..64).find(|&i| {
            let wavelength = 2.0 * PI / plain[i];
            wavelength > 2048.0 && wavelength < 8192.0
        });
        let i = between.unwrap();
        assert!(scaled[i] < plain[i] && scaled[i] > plain[i] / 8.0);
    }

    #[test]
    fn yarn_goes_from_the_plain_frequencies_to_the_stretched_ones() {
        let yarn = RopeScaling::Yarn {
            factor: 4.0,
            original_max_position_embeddings: 32768,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.138_629_436_1,
            truncate: true,
        };
        let plain = RopeScaling::Unscaled.frequencies(128, 1e6).angles;
        let scaled = yarn.frequencies(128, 1e6);
        assert_eq!(scaled.angles[0], plain[0]);
        assert_eq!(scaled.angles[63], plain[63] / 4.0);
        assert!((scaled.scale - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-9);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let message = RopeScaling::Linear { factor: 0.5 }.validate().unwrap_err();
        assert_eq!(
            message.to_string(),
            "invalid `rope_scaling.factor`: 0.5; expected a finite number, at least 1"
        );
        let upside_down = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 4.0,
            high_freq_factor: 1.0,
            original_max_position_embeddings: 8192,
        };
        assert!(upside_down.validate().is_err());
    }

    #[test]
    fn it_is_written_as_hugging_face_writes_it() {
        let json = serde_json::to_value(LLAMA3).unwrap();
        assert_eq!(json["rope_type"], "llama3");
        assert_eq!(serde_json::from_value::<RopeScaling>(json).unwrap(), LLAMA3);
    }
}
