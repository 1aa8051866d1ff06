//! Sampling of a token from logits: on the host in f64, or for all rows on the device.

mod device;

use serde::{Deserialize, Serialize};

use super::exp::exp;
use crate::fused::vectorised;
use crate::{Error, Result};
pub(super) use device::{SampledRows, Uniforms, sample_rows};

/// The distribution that tokens are drawn from. The filters apply in the order of the fields, each
/// to the tokens that the previous one kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// The divisor of the logits. 0 is greedy: the largest logit, and the lowest id among equals.
    /// Default: 1.
    pub temperature: f64,
    /// Keeps the `k` most probable tokens. Default: all.
    pub top_k: Option<usize>,
    /// Keeps the smallest set of most probable tokens whose total probability reaches `p`, in (0,
    /// 1] (nucleus sampling, arXiv 1904.09751). Default: all.
    pub top_p: Option<f64>,
    /// Keeps tokens at least `min_p` times as probable as the most probable one, in [0, 1] (arXiv
    /// 2407.01082). Default: all.
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
    /// Returns greedy sampling: always the most probable token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }

    /// Whether some tokens of nonzero probability are never drawn. The log-probs of such a sampler
    /// differ from those of the policy at the same temperature.
    pub(crate) fn truncates(&self) -> bool {
        self.temperature == 0.0
            || self.top_k.is_some()
            || self.top_p.is_some_and(|p| p < 1.0)
            || self.min_p.is_some_and(|p| p > 0.0)
    }

    /// Whether [`sample_rows`] can draw from this distribution: top-k and top-p need a ranking of
    /// the vocabulary, which is computed on the host.
    pub(super) fn runs_on_device(&self) -> bool {
        self.temperature == 0.0 || (self.top_k.is_none() && self.top_p.is_none_or(|p| p >= 1.0))
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the field, its value and the expected range.
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
pub(super) struct Sampled {
    /// The token id.
    pub token: u32,
    /// The log-prob, in nats, under the distribution that the token was drawn from: after
    /// temperature and filters. Greedy: 0.
    pub log_prob: f64,
    /// The entropy, in nats, of `softmax(logits / temperature)`, before the filters (greedy: at
    /// temperature 1).
    pub entropy: f64,
}

/// Draws one token by inverting the cumulative distribution at `uniform`, a number in [0, 1).
///
/// A pure function: the same logits and `uniform` give the same token on every platform. A logit of
/// `-inf` is never drawn. `weights` is scratch space; reusing it saves an allocation of eight bytes
/// per token of the vocabulary.
///
/// # Errors
/// Returns an error if no logit is finite, or one is NaN or `+inf`.
pub(super) fn sample_token(
    logits: &[f32],
    config: &SamplingConfig,
    uniform: f64,
    weights: &mut Vec<f64>,
) -> Result<Sampled> {
    let best = largest(logits)?;
    let top = f64::from(logits[best]);
    let greedy = config.temperature == 0.0;
    let temperature = if greedy { 1.0 } else { config.temperature };
    let [total, weighted] = vectorised(
        #[inline(always)]
        || weigh(logits, top, temperature, weights),
    );
    let entropy = total.ln() - weighted / total;
    if greedy {
        return Ok(Sampled {
            token: best as u32,
            log_prob: 0.0,
            entropy,
        });
    }
    let kept = Kept::of(weights, total, config);
    let truncates = config.truncates();
    let kept = |&(id, &weight): &(usize, &f64)| kept.contains(id, weight);
    let mass = match truncates {
        true => weights
            .iter()
            .enumerate()
            .filter(kept)
            .map(|(_, w)| w)
            .sum(),
        false => total,
    };
    let mut left = uniform * mass;
    // Without filters, blocks of tokens before the drawn one are skipped by their sums.
    let mut start = 0;
    while !truncates && start + BLOCK < weights.len() {
        let sum = sum(&weights[start..start + BLOCK]);
        if left < sum {
            break;
        }
        left -= sum;
        start += BLOCK;
    }
    let ids = weights.iter().enumerate();
    let token = ids.clone().skip(start).filter(kept).find(|&(_, weight)| {
        let found = left < *weight;
        left -= weight;
        found
    });
    // A rounding residue past the last token belongs to the last token.
    let token = token.or_else(|| ids.rev().find(kept));
    let token = token.map_or(best, |(id, _)| id);
    Ok(Sampled {
        token: token as u32,
        log_prob: (weights[token] / mass).ln(),
        entropy,
    })
}

/// The number of independent partial sums, chosen to fill vector registers.
const LANES: usize = 8;

/// The number of weights that are skipped by their sum.
const BLOCK: usize = 64 * LANES;

/// Writes the weights `w = exp(x)` of `x = (logit - top) / temperature`, and returns the sums of
/// `w` and of `w x`: the entropy is `ln(sum w) - sum(w x) / sum w`.
#[inline(always)]
fn weigh(logits: &[f32], top: f64, temperature: f64, weights: &mut Vec<f64>) -> [f64; 2] {
    weights.clear();
    weights.resize(logits.len(), 0.0);
    let (mut totals, mut products) = ([0.0; LANES], [0.0; LANES]);
    let mut add = |lane: usize, logit: f32, weight: &mut f64| {
        let x = (f64::from(logit) - top) / temperature;
        *weight = exp(x);
        totals[lane] += *weight;
        // x may be infinite if the weight is 0.
        products[lane] += if *weight > 0.0 { *weight * x } else { 0.0 };
    };
    let (logits, logits_left) = logits.as_chunks::<LANES>();
    let (weights, weights_left) = weights.as_chunks_mut::<LANES>();
    for (logits, weights) in logits.iter().zip(weights) {
        for lane in 0..LANES {
            add(lane, logits[lane], &mut weights[lane]);
        }
    }
    for (lane, (&logit, weight)) in logits_left.iter().zip(weights_left).enumerate() {
        add(lane, logit, weight);
    }
    [totals, products].map(|lanes| lanes.iter().sum())
}

/// Sums weights in lanes.
fn sum(weights: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (weights, left) = weights.as_chunks::<LANES>();
    for weights in weights {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += weight;
        }
    }
    sums.iter().chain(left).sum()
}

/// Returns the id of the largest logit, the lowest among equals.
fn largest(logits: &[f32]) -> Result<usize> {
    let mut tops = [f32::NEG_INFINITY; LANES];
    let mut broken = [false; LANES];
    let mut look = |lane: usize, logit: f32| {
        tops[lane] = if logit > tops[lane] {
            logit
        } else {
            tops[lane]
        };
        broken[lane] |= logit.is_nan() | (logit == f32::INFINITY);
    };
    let (whole, left) = logits.as_chunks::<LANES>();
    for lanes in whole {
        for (lane, &logit) in lanes.iter().enumerate() {
            look(lane, logit);
        }
    }
    left.iter()
        .enumerate()
        .for_each(|(lane, &logit)| look(lane, logit));
    let is_broken = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    if broken.contains(&true)
        && let Some(id) = logits.iter().position(is_broken)
    {
        return Err(Error::shape(
            format!("logit of token {id}"),
            logits[id],
            "a finite number or -inf (the policy's weights may have diverged)",
        ));
    }
    let top = tops.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if top == f32::NEG_INFINITY {
        return Err(Error::shape(
            "logits",
            format!("{} values, none of them finite", logits.len()),
            "at least one finite logit",
        ));
    }
    let best = logits.iter().position(|&logit| logit == top);
    Ok(best.unwrap_or_default())
}

/// The tokens that the filters keep.
struct Kept {
    /// The smallest weight that min-p keeps.
    least: f64,
    /// Weight and id of the last token that top-k and top-p keep, in descending order of weight
    /// and, among equals, ascending order of ids.
    last: (f64, usize),
}

impl Kept {
    fn contains(&self, id: usize, weight: f64) -> bool {
        let (lowest, last) = self.last;
        weight > 0.0
            && weight >= self.least
            && (weight > lowest || (weight == lowest && id <= last))
    }

    fn of(weights: &[f64], total: f64, config: &SamplingConfig) -> Self {
        let last = last_ranked(weights, total, config.top_k, config.top_p);
        Self {
            // The largest weight is exp(0) = 1.
            least: config.min_p.unwrap_or(0.0),
            last: last.unwrap_or((0.0, usize::MAX)),
        }
    }
}

/// The size of the first part of a ranking that is sorted; each later part is [`RANKED_GROWTH`]
/// times larger.
const RANKED_FIRST: usize = 256;
const RANKED_GROWTH: usize = 4;

/// Returns the last token that top-k and top-p keep; `None` if they keep all.
fn last_ranked(
    weights: &[f64],
    total: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
) -> Option<(f64, usize)> {
    let top_p = top_p.filter(|&p| p < 1.0);
    if top_k.is_none() && top_p.is_none() {
        return None;
    }
    let order = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    // The total weight of tokens below the floor is too small to matter. The factor 1/2 covers the
    // rounding of sums, which is far below 1e-5 for any vocabulary.
    let floor = match (top_k, top_p) {
        (None, Some(p)) if 1.0 - p > 1e-5 => (1.0 - p) * total / (2.0 * weights.len() as f64),
        _ => 0.0,
    };
    let mut ranked: Vec<(f64, usize)> = weights
        .iter()
        .enumerate()
        .filter(|&(_, &weight)| weight > floor)
        .map(|(id, &weight)| (weight, id))
        .collect();
    let mut mass = total;
    if let Some(k) = top_k {
        if k < ranked.len() {
            ranked.select_nth_unstable_by(k - 1, order);
            ranked.truncate(k);
        }
        ranked.sort_unstable_by(order);
        mass = ranked.iter().map(|&(weight, _)| weight).sum();
    }
    let Some(p) = top_p else {
        return ranked.pop();
    };
    // The ranking is sorted only as far as needed.
    let (mut reached, mut start, mut size) = (0.0, 0, RANKED_FIRST);
    while start < ranked.len() {
        let end = ranked.len().min(start + size);
        if end < ranked.len() {
            ranked[start..].select_nth_unstable_by(end - start - 1, order);
        }
        ranked[start..end].sort_unstable_by(order);
        for &(weight, id) in &ranked[start..end] {
            reached += weight;
            if reached >= p * mass {
                return Some((weight, id));
            }
        }
        (start, size) = (end, size * RANKED_GROWTH);
    }
    ranked.pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(logits: &[f32], config: &SamplingConfig, uniform: f64) -> Result<Sampled> {
        sample_token(logits, config, uniform, &mut Vec::new())
    }

    fn logits(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() as f32).collect()
    }

    /// The token drawn at `uniform`, and its probability.
    fn draw(probabilities: &[f64], config: &SamplingConfig, uniform: f64) -> (u32, f64) {
        let drawn = sample(&logits(probabilities), config, uniform).unwrap();
        (drawn.token, drawn.log_prob.exp())
    }

    #[test]
    fn filters_apply_in_order_and_renormalise() {
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
        // top-k keeps 0.4 and 0.3; the first alone reaches half of their sum.
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
        let drawn = sample(&[1.0, 3.0, 3.0], &SamplingConfig::greedy(), 0.9).unwrap();
        assert_eq!((drawn.token, drawn.log_prob), (1, 0.0));
    }

    /// The ids that the filters keep, by a full sort.
    fn sorted(logits: &[f32], config: &SamplingConfig) -> Vec<usize> {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |&logit: &f32| exp((f64::from(logit) - f64::from(top)) / config.temperature);
        let weights: Vec<f64> = logits.iter().map(weight).collect();
        let mut ids: Vec<usize> = (0..weights.len()).filter(|&id| weights[id] > 0.0).collect();
        let mut mass: f64 = weights.iter().sum();
        ids.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        if let Some(k) = config.top_k {
            ids.truncate(k);
            mass = ids.iter().map(|&id| weights[id]).sum();
        }
        if let Some(p) = config.top_p.filter(|&p| p < 1.0) {
            let mut reached = 0.0;
            let needed = ids.iter().position(|&id| {
                reached += weights[id];
                reached >= p * mass
            });
            ids.truncate(needed.map_or(ids.len(), |last| last + 1));
        }
        ids.retain(|&id| weights[id] >= config.min_p.unwrap_or(0.0));
        ids.sort_unstable();
        ids
    }

    #[test]
    fn entropies_of_known_distributions() {
        let entropy = |logits: &[f32]| {
            sample(logits, &SamplingConfig::default(), 0.3)
                .unwrap()
                .entropy
        };
        assert!((entropy(&[5.0; 8]) - 8f64.ln()).abs() < 1e-12);
        assert!(entropy(&[0.0, f32::NEG_INFINITY]).abs() < 1e-12);
        let expected = -(0.25 * 0.25f64.ln() + 0.75 * 0.75f64.ln());
        assert!((entropy(&logits(&[0.25, 0.75])) - expected).abs() < 1e-6);
    }

    #[test]
    fn errors_name_the_logit_that_is_not_finite() {
        let all = SamplingConfig::default();
        let nan = sample(&[0.0, f32::NAN], &all, 0.5).unwrap_err().to_string();
        assert!(nan.contains("token 1"), "{nan}");
        assert!(sample(&[f32::NEG_INFINITY; 3], &all, 0.5).is_err());
        assert!(sample(&[], &all, 0.5).is_err());
    }

    #[test]
    fn settings_outside_their_range_are_errors() {
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
        /// The partial ranking keeps the same tokens as a full sort.
        #[test]
        fn filters_keep_what_a_full_sort_keeps(
            // Few distinct values, so that ties occur, some of them at the cut.
            raw in prop::collection::vec(-40i16..8, 1..3000),
            step in prop::sample::select(vec![0.001f32, 0.1, 1.0, 30.0]),
            temperature in 0.5f64..2.0,
            top_k in prop::option::of(1usize..2000),
            top_p in prop::option::of(prop_oneof![0.01f64..1.0, 0.999f64..1.0, Just(1.0 - 1e-9), Just(1.0)]),
            min_p in prop::option::of(0.0f64..1.0),
        ) {
            let mut raw: Vec<f32> = raw.iter().map(|&x| f32::from(x) * step).collect();
            if raw.len() > 2 {
                raw[1] = f32::NEG_INFINITY;
            }
            let config = SamplingConfig { temperature, top_k, top_p, min_p };
            let mut weights = Vec::new();
            sample_token(&raw, &config, 0.5, &mut weights).unwrap();
            let kept = Kept::of(&weights, weights.iter().sum(), &config);
            let ids: Vec<usize> =
                (0..raw.len()).filter(|&id| kept.contains(id, weights[id])).collect();
            prop_assert_eq!(ids, sorted(&raw, &config));
        }

        /// The entropy matches its definition.
        #[test]
        fn entropy_is_the_expected_information(
            raw in prop::collection::vec(-20f32..20.0, 1..200),
            temperature in 0.3f64..3.0,
        ) {
            let config = SamplingConfig { temperature, ..Default::default() };
            let weights: Vec<f64> =
                raw.iter().map(|&logit| (f64::from(logit) / temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            let expected: f64 =
                weights.iter().map(|w| w / total).map(|p| -p * p.ln()).sum();
            let entropy = sample(&raw, &config, 0.5).unwrap().entropy;
            prop_assert!((entropy - expected).abs() < 1e-10, "{} {}", entropy, expected);
        }

        /// Over a grid of uniforms, each token is drawn in proportion to its probability.
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
                    sample(&raw, &config, (i as f64 + 0.5) / steps as f64).unwrap();
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
