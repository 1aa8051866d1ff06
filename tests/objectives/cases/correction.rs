//! Sampler corrections: weights and rejection.

use std::f64::consts::E;

use rlvr::loss::{
    ImportanceWeights, Rejection, RejectionScope, RejectionStatistic, RolloutLogProbs,
    SamplerCorrection, TokenWeights, WeightAction, WeightLevel,
};
use rlvr::types::PerToken;

use crate::common::assert_close;

/// Log-probs of policy and sampler.
struct Rows([PerToken; 2]);

impl Rows {
    fn new(policy: Vec<Vec<f64>>, sampler: Vec<Vec<f64>>) -> Self {
        Self([policy.into(), sampler.into()])
    }

    fn log_probs(&self) -> RolloutLogProbs<'_> {
        RolloutLogProbs::new(&self.0[0], &self.0[1]).unwrap()
    }

    fn correct(&self, correction: &SamplerCorrection, mean: Option<f64>) -> TokenWeights {
        correction.correct(self.log_probs(), mean)
    }
}

/// Rows whose log-ratio of policy to sampler is `d`.
fn rows(d: &[&[f64]]) -> Rows {
    let zeros = d.iter().map(|row| vec![0.0; row.len()]).collect();
    Rows::new(d.iter().map(|row| row.to_vec()).collect(), zeros)
}

fn flat(numbers: &PerToken) -> Vec<f64> {
    numbers.values().collect()
}

fn weights(correction: &SamplerCorrection, rows: &Rows) -> Vec<f64> {
    correction.validate().unwrap();
    flat(&rows.correct(correction, None).weights.unwrap())
}

fn left(correction: &SamplerCorrection, d: &[&[f64]]) -> Vec<bool> {
    correction.validate().unwrap();
    let kept = rows(d).correct(correction, None).kept;
    kept.values().map(|kept| kept != 0.0).collect()
}

fn only(
    scope: RejectionScope,
    statistic: RejectionStatistic,
    lower: Option<f64>,
    upper: f64,
) -> SamplerCorrection {
    SamplerCorrection::default().with_rejection(Rejection {
        scope,
        statistic,
        lower,
        upper,
    })
}

#[track_caller]
fn assert_all(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert_close(*got, *want, 1e-5, 0.0, "weight");
    }
}

#[test]
fn weights_are_truncated_or_masked_by_token_or_by_completion() {
    let one = Rows::new(vec![vec![-1.0, -1.5, -0.5]], vec![vec![-1.5, -1.0, -1.5]]);
    let short = Rows::new(vec![vec![-1.0, -0.5]], vec![vec![-1.5, -1.5]]);
    let token = SamplerCorrection::token_truncate(2.0);
    assert_all(&weights(&token, &one), &[1.648_721, 0.606_531, 2.0]);
    assert_all(&weights(&token, &short), &[1.648_721, 2.0]);
    let whole = SamplerCorrection::sequence_truncate(5.0);
    assert_all(&weights(&whole, &one), &[E; 3]);
    assert_all(&weights(&whole, &short), &[4.481_689; 2]);
    assert_all(&weights(&whole, &rows(&[&[1.0, 1.0, 1.0]])), &[5.0; 3]);
    // TRL's default: the whole completion or nothing of it.
    let trl = SamplerCorrection::sequence_mask(None, 3.0);
    assert_all(&weights(&trl, &rows(&[&[0.7, 0.5]])), &[0.0; 2]);
    assert_all(&weights(&trl, &rows(&[&[0.7, 0.3]])), &[E; 2]);
    // AReaL's clamp does not change the mask.
    let clamp = SamplerCorrection::token_truncate(5.0);
    assert_all(&weights(&clamp, &rows(&[&[0.0, 2.0]])), &[1.0, 5.0]);
    assert_eq!(left(&clamp, &[&[0.0, 2.0]]), [true, true]);
}

#[test]
fn icepop_masks_tokens_outside_its_band() {
    let icepop = SamplerCorrection::token_mask(0.5, 5.0);
    let one = Rows::new(vec![vec![-1.0; 3]], vec![vec![-0.5, -3.5, -0.8]]);
    assert_all(&weights(&icepop, &one), &[0.606_531, 0.0, 0.818_731]);
    let d = [0.4f64.ln(), 0.8f64.ln(), 6f64.ln()];
    assert_all(&weights(&icepop, &rows(&[&d])), &[0.0, 0.8, 0.0]);
    assert_eq!(left(&icepop, &[&d]), [true; 3]);
    let metrics = icepop.diagnostics(rows(&[&d]).log_probs());
    let metric = |name: &str| metrics.iter().find(|(own, _)| own == name).unwrap().1;
    assert_close(metric("rollout_is_oob_ratio"), 2.0 / 3.0, 1e-9, 0.0, "oob");
    assert_close(metric("rollout_is_std"), 0.377_123_6, 1e-6, 0.0, "std");
    assert_close(
        metric("rollout_is_eff_sample_size"),
        1.0 / 3.0,
        1e-9,
        0.0,
        "ess",
    );
}

#[test]
fn weights_may_be_divided_by_their_mean() {
    let of = |level| SamplerCorrection {
        weights: Some(ImportanceWeights {
            batch_normalize: true,
            ..ImportanceWeights::new(level, WeightAction::Truncate)
        }),
        ..SamplerCorrection::default()
    };
    let (ln_2, ln_3) = (2f64.ln(), 3f64.ln());
    // Tokens weigh 1, 2 and 3; completions 2 and 3.
    let d: [&[f64]; 2] = [&[0.0, ln_2], &[ln_3]];
    assert_all(
        &weights(&of(WeightLevel::Token), &rows(&d)),
        &[0.5, 1.0, 1.5],
    );
    assert_all(
        &weights(&of(WeightLevel::Sequence), &rows(&d)),
        &[0.8, 0.8, 1.2],
    );
    let given = rows(&d).correct(&of(WeightLevel::Token), Some(4.0));
    assert_all(&flat(&given.weights.unwrap()), &[0.25, 0.5, 0.75]);
}

#[test]
fn rejection_statistics_are_tokens_sums_means_or_maxima() {
    use RejectionScope::{SequenceMax, SequenceMean, SequenceSum, Token};
    use RejectionStatistic::{K1, K2, K3};
    let geometric = SamplerCorrection::geometric_rejection(0.9, 1.1);
    let d: [&[f64]; 2] = [&[0.5, 0.5, 0.5], &[0.1, -0.1, 0.0]];
    assert_eq!(
        left(&geometric, &d),
        [false, false, false, true, true, true]
    );
    let product = only(SequenceSum, K1, Some(0.5), 2.0);
    let d: [&[f64]; 2] = [&[0.1, 0.1, 0.1], &[1.0, 1.0, 1.0]];
    assert_eq!(left(&product, &d), [true, true, true, false, false, false]);
    // One token beyond a ratio of 100 takes its completion with it.
    let veto = only(SequenceMax, K2, None, 0.5 * 100f64.ln().powi(2));
    let d: [&[f64]; 2] = [&[0.0, 5.0], &[4.5, -4.5]];
    assert_eq!(left(&veto, &d), [false, false, true, true]);
    // k1 bounds the inverse of the weight: of e and 1/e the band [1/e, e^0.5] keeps the first.
    let band = only(Token, K1, Some((-1f64).exp()), 0.5f64.exp());
    assert_eq!(
        left(&band, &[&[0.0, -1.0, -0.3, 1.0 - 1e-9]]),
        [true, false, true, true]
    );
    assert_eq!(
        left(&only(Token, K1, Some(0.5), 9.0), &[&[0.0, 1.0, 0.0]]),
        [true, false, true]
    );
    assert_eq!(
        left(&only(Token, K1, None, 2.0), &[&[0.0, -1.0, 9.0]]),
        [true, false, true]
    );
    // Means of d^2 / 2: 2/3 and 1/6.
    let mean = |upper| only(SequenceMean, K2, None, upper);
    assert_eq!(left(&mean(0.1), &[&[0.0, 2.0, 0.0]]), [false; 3]);
    assert_eq!(left(&mean(0.5), &[&[0.0, 1.0, 0.0]]), [true; 3]);
    assert_eq!(left(&mean(0.7), &[&[0.0, 2.0, 0.0]]), [true; 3]);
    // Chained: each token within [0.4, 1.8], and the completion's k3 at most 0.03.
    let chained = only(Token, K1, Some(0.4), 1.8).with_rejection(Rejection {
        scope: SequenceMean,
        statistic: K3,
        lower: None,
        upper: 0.03,
    });
    let d: [&[f64]; 3] = [&[0.1, 0.1], &[0.1, -0.7], &[0.5, 0.5]];
    // k3 of 0.1 is 0.005, of -0.7 0.197, of 0.5 0.149; e^0.7 is above 1.8.
    assert_eq!(left(&chained, &d), [true, true, false, false, false, false]);
    let first = only(Token, K1, Some(0.4), 1.8);
    assert_eq!(left(&first, &d), [true, true, true, false, true, true]);
}

#[test]
fn a_rejected_token_keeps_its_weight() {
    // verl's mask mode: ratios 0.368 and 1.649, inverses 2.718 and 0.607.
    let mask = SamplerCorrection {
        weights: SamplerCorrection::token_truncate(2.0).weights,
        ..only(
            RejectionScope::Token,
            RejectionStatistic::K1,
            Some(0.5),
            2.0,
        )
    };
    let both = Rows::new(vec![vec![-2.0; 5]; 2], vec![vec![-1.0; 5], vec![-2.5; 5]]);
    let corrected = both.correct(&mask, None);
    assert_eq!(corrected.kept, [vec![0.0; 5], vec![1.0; 5]]);
    assert_all(
        &flat(&corrected.weights.unwrap())[..6],
        &[
            0.367_879, 0.367_879, 0.367_879, 0.367_879, 0.367_879, 1.648_721,
        ],
    );
    let metrics = mask.diagnostics(both.log_probs());
    let metric = |name: &str| metrics.iter().find(|(own, _)| own == name).unwrap().1;
    assert_eq!(metric("rollout_rs_masked_fraction"), 0.5);
    assert_eq!(metric("rollout_rs_seq_masked_fraction"), 0.5);

    // Sequence masked TIS: the band decides, the weights have no bound.
    let tis = SamplerCorrection {
        weights: Some(ImportanceWeights::new(
            WeightLevel::Token,
            WeightAction::Truncate,
        )),
        ..SamplerCorrection::geometric_rejection(0.998, 1.001)
    };
    let corrected = rows(&[&[3.0, -2.999], &[3.0, 3.0]]).correct(&tis, None);
    assert_eq!(flat(&corrected.kept), [1.0, 1.0, 0.0, 0.0]);
    assert_close(
        corrected.weights.unwrap()[0][0],
        3f64.exp(),
        1e-12,
        0.0,
        "no bound",
    );
}

#[test]
fn diagnostics_are_computed_before_the_bounds_apply() {
    // Raw means of 3.5 and 1 against a bound of 2.
    let token = SamplerCorrection::token_truncate(2.0);
    let metrics = token.diagnostics(rows(&[&[3f64.ln(), 4f64.ln()], &[0.0, 0.0]]).log_probs());
    let metric = |name: &str| metrics.iter().find(|(own, _)| own == name).unwrap().1;
    assert_eq!(metric("rollout_is_seq_fraction_high"), 0.5);
    assert_eq!(metric("rollout_is_ratio_fraction_high"), 0.5);
    assert_eq!(metric("rollout_is_max"), 2.0);
    assert_eq!(metric("rollout_is_min"), 1.0);
    assert_eq!(metric("rollout_is_mean"), 1.5);
    // Weights 2, 2, 1, 1 have a variance of 1/9 of their squared mean.
    assert_close(metric("rollout_is_eff_sample_size"), 0.9, 1e-9, 0.0, "ess");
    let sum = 3f64.ln() + 4f64.ln();
    assert_close(metric("kl"), -sum / 4.0, 1e-9, 0.0, "kl");
}

#[test]
fn a_token_with_zero_sampler_probability_has_a_bounded_weight() {
    let one = Rows::new(
        vec![vec![-1.0; 3]],
        vec![vec![f64::NEG_INFINITY, -1.0, f64::NAN]],
    );
    assert_all(
        &weights(&SamplerCorrection::token_truncate(2.0), &one),
        &[2.0, 1.0, 1.0],
    );
    assert_all(
        &weights(&SamplerCorrection::token_mask(0.5, 2.0), &one),
        &[0.0, 1.0, 1.0],
    );
    assert_all(
        &weights(&SamplerCorrection::sequence_truncate(3.0), &one),
        &[3.0; 3],
    );
    assert_all(
        &weights(&SamplerCorrection::sequence_mask(None, 3.0), &one),
        &[0.0; 3],
    );
    let k3 = only(
        RejectionScope::SequenceMean,
        RejectionStatistic::K3,
        None,
        1.0,
    );
    assert_eq!(flat(&one.correct(&k3, None).kept), [0.0; 3]);

    let (policy, sampler) = (PerToken::filled(&[2], 0.0), PerToken::filled(&[3], 0.0));
    let error = RolloutLogProbs::new(&policy, &sampler).unwrap_err();
    assert!(error.to_string().contains("sampler log-probs"), "{error}");
}
