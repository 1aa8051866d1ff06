//! From logits to one token, on the host, in f64.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which distribution tokens are drawn from. The filters act in the order of the fields, each on what
/// the one before it left.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// Logits are divided by it. 0 is greedy: the largest logit, the lowest id among equals. Default 1.
    pub temperature: f64,
    /// Keep the `k` most probable tokens. Default: all.
    pub top_k: Option<usize>,
    /// Keep the fewest most probable tokens whose probabilities reach `p` together (nucleus sampling,
    /// arXiv 1904.09751), in (0, 1]. Default: all.
    pub top_p: Option<f64>,
    /// Keep tokens at least `min_p` times as probable as the most probable one (arXiv 2407.01082), in
    /// [0, 1]. Default: all.
    pub min_p: Option<f64>,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
        }
    }
}

impl SamplingConfig {
    /// The most probable token, always.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }

    /// Whether some tokens that the policy gives a probability are never drawn. Log-probs of such a
    /// sampler are not those of the policy at the same temperature.
    pub fn truncates(&self) -> bool {
        self.temperature == 0.0
            || self.top_k.is_some()
            || self.top_p.is_some_and(|p| p < 1.0)
            || self.min_p.is_some_and(|p| p > 0.0)
    }

    /// Refuses what cannot be meant, naming field, value and range.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(Error::config(
                "sampling.temperature",
                self.temperature,
                "a finite number of at least 0 (0 is greedy)",
            ));
        }
        if self.top_k == Some(0) {
            return Err(Error::config(
                "sampling.top_k",
                0,
                "at least 1 token, or none",
            ));
        }
        if let Some(p) = self.top_p
            && !(p > 0.0 && p <= 1.0)
        {
            return Err(Error::config(
                "sampling.top_p",
                p,
                "a probability in (0, 1]",
            ));
        }
        if let Some(p) = self.min_p
            && !(0.0..=1.0).contains(&p)
        {
            return Err(Error::config("sampling.min_p", p, "a share in [0, 1]"));
        }
        Ok(())
    }
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability under the distribution it was drawn from: after temperature
    /// and filters. Greedy: 0.
    pub log_prob: f64,
    /// Entropy in nats of `softmax(logits / temperature)`, before the filters (greedy: at temperature 1).
    pub entropy: f64,
}

/// Draws one token by inverting the cumulative distribution at `uniform`, a number in [0, 1).
///
/// A pure function: the same logits and number give the same token everywhere. A logit of `-inf` is
/// never drawn.
///
/// # Errors
/// If no logit is finite, or one is NaN or `+inf`.
///
/// ```
/// use rlvr::rollout::{SamplingConfig, sample_token};
/// let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY];
/// let drawn = sample_token(&logits, &SamplingConfig::default(), 0.5)?;
/// assert_eq!(drawn.token, 1); // [0, 1/3) is token 0, [1/3, 1) is token 1
/// assert!((drawn.log_prob - (2f64 / 3.0).ln()).abs() < 1e-6);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub fn sample_token(logits: &[f32], config: &SamplingConfig, uniform: f64) -> Result<Sampled> {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(Error::shape(
                format!("logit of token {id}"),
                logit,
                "a finite number or -inf (the policy's weights may have diverged)",
            ));
        }
        if logit > logits[best] {
            best = id;
        }
    }
    let top = match logits.get(best) {
        Some(&top) if top > f32::NEG_INFINITY => f64::from(top),
        _ => {
            return Err(Error::shape(
                "logits",
                format!("{} values, none of them finite", logits.len()),
                "at least one finite logit",
            ));
        }
    };
    let greedy = config.temperature == 0.0;
    let temperature = if greedy { 1.0 } else { config.temperature };
    let weights: Vec<f64> = logits
        .iter()
        .map(|&logit| ((f64::from(logit) - top) / temperature).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    let entropy = total.ln()
        - weights
            .iter()
            .filter(|&&w| w > 0.0)
            .map(|&w| w * w.ln())
            .sum::<f64>()
            / total;
    if greedy {
        return Ok(Sampled {
            token: best as u32,
            log_prob: 0.0,
            entropy,
        });
    }
    let kept = if config.truncates() {
        keep(&weights, total, config)
    } else {
        (0..weights.len()).filter(|&id| weights[id] > 0.0).collect()
    };
    let mass: f64 = kept.iter().map(|&id| weights[id]).sum();
    let mut left = uniform * mass;
    // Rounding can leave a crumb past the last token: it belongs to that one.
    let mut token = kept.last().copied().unwrap_or(best);
    for &id in &kept {
        if left < weights[id] {
            token = id;
            break;
        }
        left -= weights[id];
    }
    Ok(Sampled {
        token: token as u32,
        log_prob: (weights[token] / mass).ln(),
        entropy,
    })
}

/// The ids that survive the filters, in ascending order.
fn keep(weights: &[f64], total: f64, config: &SamplingConfig) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..weights.len()).filter(|&id| weights[id] > 0.0).collect();
    // Stable: equals stay in the order of their ids.
    ids.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let mut mass = total;
    if let Some(k) = config.top_k {
        ids.truncate(k);
        mass = ids.iter().map(|&id| weights[id]).sum();
    }
    if let Some(p) = config.top_p {
        let mut reached = 0.0;
        let needed = ids.iter().position(|&id| {
            reached += weights[id];
            reached >= p * mass
        });
        ids.truncate(needed.map_or(ids.len(), |last| last + 1));
    }
    if let Some(p) = config.min_p {
        let floor = p * weights[ids[0]];
        ids.retain(|&id| weights[id] >= floor);
    }
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logits(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() as f32).collect()
    }

    /// Token and probability drawn at `uniform`.
    fn draw(probabilities: &[f64], config: &SamplingConfig, uniform: f64) -> (u32, f64) {
        let drawn = sample_token(&logits(probabilities), config, uniform).unwrap();
        (drawn.token, drawn.log_prob.exp())
    }

    #[test]
    fn filters_act_in_order_and_renormalise() {
        let p = [0.1, 0.4, 0.3, 0.15, 0.05];
        let near = |(token, got): (u32, f64), want: (u32, f64)| {
            assert_eq!(token, want.0);
            assert!((got - want.1).abs() < 1e-6, "{got} {want:?}");
        };
        let all = SamplingConfig::default();
        near(draw(&p, &all, 0.05), (0, 0.1));
        near(draw(&p, &all, 0.45), (1, 0.4));
        near(draw(&p, &all, 0.9999), (4, 0.05));
        let top_k = SamplingConfig {
            top_k: Some(2),
            ..all
        };
        near(draw(&p, &top_k, 0.0), (1, 4.0 / 7.0));
        near(draw(&p, &top_k, 0.6), (2, 3.0 / 7.0));
        let top_p = SamplingConfig {
            top_p: Some(0.75),
            ..all
        };
        near(draw(&p, &top_p, 0.999), (3, 0.15 / 0.85));
        let min_p = SamplingConfig {
            min_p: Some(0.5),
            ..all
        };
        near(draw(&p, &min_p, 0.999), (2, 3.0 / 7.0));
        // top-k leaves 0.4 and 0.3; half of what is left is reached by the first alone.
        let both = SamplingConfig {
            top_k: Some(2),
            top_p: Some(0.5),
            ..all
        };
        near(draw(&p, &both, 0.999), (1, 1.0));
        let cold = SamplingConfig {
            temperature: 0.5,
            ..all
        };
        let squares: f64 = p.iter().map(|p| p * p).sum();
        near(draw(&p, &cold, 0.0), (0, 0.01 / squares));
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        let drawn = sample_token(&[1.0, 3.0, 3.0], &SamplingConfig::greedy(), 0.9).unwrap();
        assert_eq!((drawn.token, drawn.log_prob), (1, 0.0));
    }

    #[test]
    fn entropy_of_known_distributions() {
        let entropy = |logits: &[f32]| {
            sample_token(logits, &SamplingConfig::default(), 0.3)
                .unwrap()
                .entropy
        };
        assert!((entropy(&[5.0; 8]) - 8f64.ln()).abs() < 1e-12);
        assert!(entropy(&[0.0, f32::NEG_INFINITY]).abs() < 1e-12);
        let expected = -(0.25 * 0.25f64.ln() + 0.75 * 0.75f64.ln());
        assert!((entropy(&logits(&[0.25, 0.75])) - expected).abs() < 1e-6);
    }

    #[test]
    fn broken_logits_are_errors_that_name_them() {
        let all = SamplingConfig::default();
        let nan = sample_token(&[0.0, f32::NAN], &all, 0.5)
            .unwrap_err()
            .to_string();
        assert!(nan.contains("token 1"), "{nan}");
        assert!(sample_token(&[f32::NEG_INFINITY; 3], &all, 0.5).is_err());
        assert!(sample_token(&[], &all, 0.5).is_err());
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        for (config, field) in [
            (
                SamplingConfig {
                    temperature: -1.0,
                    ..Default::default()
                },
                "temperature",
            ),
            (
                SamplingConfig {
                    top_k: Some(0),
                    ..Default::default()
                },
                "top_k",
            ),
            (
                SamplingConfig {
                    top_p: Some(0.0),
                    ..Default::default()
                },
                "top_p",
            ),
            (
                SamplingConfig {
                    min_p: Some(1.5),
                    ..Default::default()
                },
                "min_p",
            ),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }

    proptest! {
        /// Over a grid of uniforms, each token comes as often as its probability says.
        #[test]
        fn inversion_reproduces_the_distribution(
            raw in prop::collection::vec(-4f32..4.0, 1..12),
            temperature in 0.3f64..3.0,
        ) {
            let config = SamplingConfig { temperature, ..Default::default() };
            let steps = 4000;
            let mut counts = vec![0usize; raw.len()];
            let mut probs = vec![0f64; raw.len()];
            for i in 0..steps {
                let drawn =
                    sample_token(&raw, &config, (i as f64 + 0.5) / steps as f64).unwrap();
                counts[drawn.token as usize] += 1;
                probs[drawn.token as usize] = drawn.log_prob.exp();
            }
            for (count, p) in counts.iter().zip(&probs) {
                prop_assert!((*count as f64 / steps as f64 - p).abs() < 2.0 / steps as f64 + 1e-9
                    || *p == 0.0);
            }
            prop_assert!((probs.iter().sum::<f64>() - 1.0).abs() < 0.01);
        }
    }
}
