//! Metrics of the difference between sampler and policy and of the correction. Names are verl's
//! (there under `rollout_corr/`) and, for [`sampling_difference`], TRL's (there under `sampling/`).

use super::rejection::BOUND;
use super::{
    ImportanceWeights, Rejection, RejectionScope, RejectionStatistic, RolloutLogProbs, WeightLevel,
    WeightSum,
};
use crate::types::PerToken;

type Metrics = Vec<(String, f64)>;

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        sum += value;
        count += 1;
    }
    sum / count.max(1) as f64
}

/// Mean, sample standard deviation, maximum and minimum.
struct Spread {
    mean: f64,
    std: f64,
    max: f64,
    min: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let centre = mean(values.iter().copied());
        let squares: f64 = values.iter().map(|x| (x - centre).powi(2)).sum();
        Self {
            mean: centre,
            std: match values.len() {
                0 | 1 => 0.0,
                n => (squares / (n - 1) as f64).sqrt(),
            },
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
        }
    }
}

/// Returns the share of `values` for which `marked` is true.
fn share(values: &[f64], marked: impl Fn(f64) -> bool) -> f64 {
    mean(values.iter().map(|&x| if marked(x) { 1.0 } else { 0.0 }))
}

/// Computes `sqrt(E[x^2] - E[x]^2)`.
fn population_std(values: &[f64]) -> f64 {
    let square = mean(values.iter().map(|x| x * x));
    (square - mean(values.iter().copied()).powi(2))
        .max(0.0)
        .sqrt()
}

/// Returns the mean of each row; 0 for a row without tokens.
fn row_means(values: &PerToken) -> Vec<f64> {
    values.rows().map(|row| mean(row.iter().copied())).collect()
}

/// Implements [`RolloutLogProbs::mismatch`].
pub(super) fn mismatch(log_probs: RolloutLogProbs) -> Metrics {
    let rows = 0..log_probs.len();
    let differences = log_probs.all_log_ratios();
    let policy: Vec<f64> = row_means(log_probs.policy).iter().map(|x| -x).collect();
    // The sampler is the policy minus the log-ratio, so that tokens it could not score count as
    // equal.
    let row_differences: Vec<f64> = rows
        .clone()
        .map(|b| mean(log_probs.log_ratios(b)))
        .collect();
    let sampler: Vec<f64> = policy
        .iter()
        .zip(&row_differences)
        .map(|(p, d)| p + d)
        .collect();
    // ln mu - ln pi of the row means.
    let away: Vec<f64> = row_differences.iter().map(|d| -d).collect();
    let away_spread = Spread::of(&away);
    let whole = rows.map(|b| {
        let sum: f64 = log_probs.log_ratios(b).sum();
        (2.0 * sum.clamp(-BOUND, BOUND)).exp()
    });
    let chi2_seq = mean(whole) - 1.0;
    let exp_mean = |values: &[f64]| mean(values.iter().map(|x| x.exp()));
    let all_mean = |values: &[f64]| mean(values.iter().copied());
    let token_square = |d: &f64| d.clamp(-BOUND, BOUND).exp().powi(2);
    named([
        ("training_ppl", exp_mean(&policy)),
        ("training_log_ppl", all_mean(&policy)),
        ("rollout_ppl", exp_mean(&sampler)),
        ("rollout_log_ppl", all_mean(&sampler)),
        ("kl", mean(differences.iter().map(|d| -d))),
        ("k3_kl", mean(differences.iter().map(|d| d.exp() - d - 1.0))),
        ("log_ppl_diff", away_spread.mean),
        ("log_ppl_abs_diff", mean(away.iter().map(|x| x.abs()))),
        ("log_ppl_diff_max", away_spread.max),
        ("log_ppl_diff_min", away_spread.min),
        ("ppl_ratio", exp_mean(&away)),
        (
            "chi2_token",
            mean(differences.iter().map(token_square)) - 1.0,
        ),
        ("chi2_seq", chi2_seq),
    ])
}

fn named<const N: usize>(metrics: [(&str, f64); N]) -> Metrics {
    metrics
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
}

/// Returns the statistics of the weights, `rollout_is_*`. `rollout_is_eff_sample_size` is the
/// effective sample size as a fraction of the tokens.
pub(super) fn of_weights(config: &ImportanceWeights, log_probs: RolloutLogProbs) -> Metrics {
    let weights = config.weights(log_probs);
    let kept: Vec<f64> = weights.bounded.values().collect();
    let raw: Vec<f64> = weights.raw.values().collect();
    let high = config.max.unwrap_or(f64::INFINITY);
    let low = config.min.unwrap_or(1.0 / high);
    let sums: Vec<f64> = (0..log_probs.len())
        .map(|b| log_probs.log_ratios(b).sum())
        .collect();
    let sum_spread = Spread::of(&sums);
    let kept_spread = Spread::of(&kept);
    let (max, min, too_high, too_low) = match config.level {
        WeightLevel::Token => (
            kept_spread.max,
            kept_spread.min,
            share(&raw, |w| w > high),
            share(&raw, |w| w < low),
        ),
        WeightLevel::Sequence => (
            sum_spread.max.min(BOUND).exp(),
            sum_spread.min.exp(),
            share(&sums, |sum| sum > high.ln()),
            share(&sums, |sum| sum < low.ln()),
        ),
    };
    let bounded: Vec<f64> = kept.iter().map(|w| w.clamp(0.0, high)).collect();
    let centre = mean(bounded.iter().copied());
    let spread_of_square = mean(bounded.iter().map(|w| (w / centre).powi(2)));
    let row_kept = row_means(&weights.bounded);
    let row_raw = row_means(&weights.raw);
    let row_spread = Spread::of(&row_kept);
    let mut metrics = named([
        ("rollout_is_mean", kept_spread.mean),
        ("rollout_is_max", max),
        ("rollout_is_min", min),
        ("rollout_is_ratio_fraction_high", too_high),
        ("rollout_is_ratio_fraction_low", too_low),
        ("rollout_is_std", population_std(&bounded)),
        ("rollout_is_eff_sample_size", 1.0 / spread_of_square),
        ("rollout_is_seq_mean", row_spread.mean),
        ("rollout_is_seq_std", row_spread.std),
        ("rollout_is_seq_max", row_spread.max),
        ("rollout_is_seq_min", row_spread.min),
        (
            "rollout_is_seq_max_deviation",
            row_kept.iter().map(|w| (w - 1.0).abs()).fold(0.0, f64::max),
        ),
        (
            "rollout_is_seq_fraction_high",
            share(&row_raw, |w| w > high),
        ),
        ("rollout_is_seq_fraction_low", share(&row_raw, |w| w < low)),
        (
            "rollout_is_oob_ratio",
            share(&raw, |w| w > high || config.min.is_some_and(|min| w < min)),
        ),
    ]);
    if config.batch_normalize {
        let factor = WeightSum::of(config, log_probs).mean();
        metrics.push(("rollout_is_batch_norm_factor".into(), factor));
    }
    metrics
}

/// Returns the statistics of each rejection, `rollout_rs_{scope}_{statistic}_*`, and
/// `rollout_rs_masked_fraction` of all of them.
pub(super) fn of_rejections(rejections: &[Rejection], log_probs: RolloutLogProbs) -> Metrics {
    let mut metrics = Metrics::new();
    let mut kept = log_probs.policy.map(|_| 1.0);
    for rejection in rejections {
        of_rejection(rejection, log_probs, &mut metrics);
        rejection.reject(log_probs, &mut kept);
    }
    if !rejections.is_empty() {
        let of_tokens = mean(kept.values().map(|kept| 1.0 - kept));
        let of_rows = mean(kept.rows().map(|row| {
            let any = row.contains(&0.0);
            f64::from(u8::from(any))
        }));
        metrics.push(("rollout_rs_masked_fraction".into(), of_tokens));
        metrics.push(("rollout_rs_seq_masked_fraction".into(), of_rows));
    }
    metrics
}

fn of_rejection(rejection: &Rejection, log_probs: RolloutLogProbs, metrics: &mut Metrics) {
    let scope = match rejection.scope {
        RejectionScope::Token => "token",
        RejectionScope::SequenceSum => "seq_sum",
        RejectionScope::SequenceMean => "seq_mean",
        RejectionScope::SequenceMax => "seq_max",
    };
    let prefix = format!("rollout_rs_{scope}_{}_", rejection.statistic.name());
    let mut put = |name: &str, value: f64| metrics.push((format!("{prefix}{name}"), value));

    let (lower, upper) = rejection.bounds();
    let is_low = |x: f64| lower.is_some_and(|lower| x < lower);
    let per_row: Vec<Vec<f64>> = (0..log_probs.len())
        .map(|b| rejection.statistics(log_probs, b))
        .collect();
    let per_token = per_row.concat();
    // For each row with tokens: its statistic, or the mean over its tokens.
    let sequences: Vec<f64> = per_row
        .iter()
        .filter(|row| !row.is_empty())
        .map(|row| mean(row.iter().copied()))
        .collect();
    let extremes = match rejection.scope {
        RejectionScope::Token => &per_token,
        _ => &sequences,
    };
    let spread = Spread::of(extremes);
    let floor = lower.unwrap_or(match rejection.statistic {
        RejectionStatistic::K1 => f64::NEG_INFINITY,
        RejectionStatistic::K2 | RejectionStatistic::K3 => 0.0,
    });
    let clamped: Vec<f64> = per_token.iter().map(|x| x.clamp(floor, upper)).collect();
    put("mean", mean(per_token.iter().copied()));
    put("max", spread.max);
    put("min", spread.min);
    put("fraction_high", share(extremes, |x| x > upper));
    put("fraction_low", share(extremes, is_low));
    put("std", population_std(&clamped));

    let spread = Spread::of(&sequences);
    put("seq_mean", spread.mean);
    put("seq_std", spread.std);
    put("seq_max", spread.max);
    put("seq_min", spread.min);
    put(
        "seq_max_deviation",
        sequences.iter().map(|x| x.abs()).fold(0.0, f64::max),
    );
    put("seq_fraction_high", share(&sequences, |x| x > upper));
    if rejection.statistic == RejectionStatistic::K1 {
        put("seq_fraction_low", share(&sequences, is_low));
    }
    put(
        "masked_fraction",
        share(&per_token, |x| !rejection.passes(x)),
    );
    let any: Vec<f64> = per_row
        .iter()
        .filter(|row| !row.is_empty())
        .map(|row| f64::from(u8::from(row.iter().any(|&x| !rejection.passes(x)))))
        .collect();
    put("seq_masked_fraction", mean(any));
}

/// Implements [`RolloutLogProbs::sampling_difference`].
pub(super) fn sampling_difference(
    log_probs: RolloutLogProbs,
    weights: Option<&ImportanceWeights>,
) -> Metrics {
    let differences = log_probs.all_log_ratios();
    let sizes: Vec<f64> = differences
        .into_iter()
        .zip(log_probs.sampler.values())
        .filter(|(_, sampler)| !sampler.is_nan())
        .map(|(d, _)| d.abs())
        .collect();
    let mut metrics = named([
        ("sampling_logp_difference/mean", mean(sizes.iter().copied())),
        (
            "sampling_logp_difference/max",
            sizes.iter().copied().fold(0.0, f64::max),
        ),
    ]);
    if let Some(config) = weights {
        let bounded = config.weights(log_probs).bounded;
        let ratios: Vec<f64> = match config.level {
            WeightLevel::Token => bounded.values().collect(),
            // A completion without tokens has the empty product 1, before the bounds.
            WeightLevel::Sequence => bounded
                .rows()
                .map(|row| row.first().copied().unwrap_or(1.0))
                .collect(),
        };
        let spread = Spread::of(&ratios);
        metrics.extend(named([
            ("importance_sampling_ratio/min", spread.min),
            ("importance_sampling_ratio/mean", spread.mean),
            ("importance_sampling_ratio/max", spread.max),
        ]));
    }
    metrics
}
