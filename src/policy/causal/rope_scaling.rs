//! The scaling of rotary frequencies for long contexts.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::rotary::Frequencies;
use crate::{Error, Result};

/// The scaling of the rotary frequencies `w_i = theta^(-2i/Dh)`, for contexts longer than those of
/// pre-training. The names are those of `rope_type` in Hugging Face's `config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// No scaling.
    #[default]
    #[serde(rename = "default")]
    Unscaled,
    /// Position interpolation (arXiv 2306.15595): `w_i / factor`.
    Linear {
        /// The ratio of the new to the original context length; at least 1.
        factor: f64,
    },
    /// The scaling of Llama 3.1: a frequency with a wavelength `2 pi / w_i` above
    /// `original / low_freq_factor` is divided by `factor`, one with a wavelength below
    /// `original / high_freq_factor` is unchanged, and between the two the frequency is
    /// interpolated linearly in `original / wavelength`.
    Llama3 {
        /// The ratio of the new to the original context length; at least 1.
        factor: f64,
        /// The rotations within the original context below which a frequency is divided by
        /// `factor`.
        low_freq_factor: f64,
        /// The rotations within the original context above which a frequency is unchanged.
        high_freq_factor: f64,
        /// The context length of pre-training, in tokens.
        original_max_position_embeddings: usize,
    },
    /// YaRN (arXiv 2309.00071): pairs with more than `beta_fast` rotations within the original
    /// context are unchanged, the frequencies of those with fewer than `beta_slow` are divided by
    /// `factor`, and between them is a linear ramp over the pairs' indices. Cosines and sines are
    /// multiplied by `attention_factor`.
    Yarn {
        /// The ratio of the new to the original context length; at least 1.
        factor: f64,
        /// The context length of pre-training, in tokens.
        original_max_position_embeddings: usize,
        /// The rotations above which a pair is unchanged; the paper's beta, 32.
        beta_fast: f64,
        /// The rotations below which a frequency is divided by `factor`; the paper's alpha, 1.
        beta_slow: f64,
        /// The factor of cosines and sines; `0.1 ln(factor) + 1` in the paper.
        attention_factor: f64,
        /// Whether the ends of the ramp are rounded to whole pairs, as in the authors' code.
        truncate: bool,
    },
}

impl RopeScaling {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the field, its value and the allowed range.
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

    /// Returns the frequencies for heads of size `head_size` and the base `theta`.
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
                // The index of the pair with this many rotations within the original context.
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
                    high += 1e-3; // avoids a division by zero, as in the authors' code
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
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let plain = RopeScaling::Unscaled.frequencies(128, 500_000.0).angles;
        let scaled = LLAMA3.frequencies(128, 500_000.0).angles;
        assert_eq!(scaled[0], 1.0);
        assert_eq!(scaled[63], plain[63] / 8.0);
        // A wavelength between the two limits: 8192/4 < 2 pi / w < 8192.
        let between = (0..64).find(|&i| {
            let wavelength = 2.0 * PI / plain[i];
            wavelength > 2048.0 && wavelength < 8192.0
        });
        let i = between.unwrap();
        assert!(scaled[i] < plain[i] && scaled[i] > plain[i] / 8.0);
    }

    #[test]
    fn yarn_keeps_the_first_frequency_and_divides_the_last_one() {
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
    fn validate_names_the_invalid_field() {
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
    fn serialization_uses_the_names_of_hugging_face() {
        let json = serde_json::to_value(LLAMA3).unwrap();
        assert_eq!(json["rope_type"], "llama3");
        assert_eq!(serde_json::from_value::<RopeScaling>(json).unwrap(), LLAMA3);
    }
}
