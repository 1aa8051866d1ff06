//! Weights and rejections where sampler and policy disagree.

use std::f64::consts::E;

use rlvr::loss::{
    ImportanceWeights, Rejection, RejectionScope, RejectionStatistic, SamplerCorrection,
    SamplerRows, WeightAction, WeightLevel,
};

use crate::common::assert_close;

/// Rows whose log-ratio of policy to sampler is `d`; NaN is no token.
fn rows(d: &[&[f64]]) -> SamplerRows {
    SamplerRows {
        policy: d.iter().map(|row| row.to_vec()).collect(),
        sampler: d.iter().map(|row| vec![0.0; row.len()]).collect(),
        mask: d
            .iter()
            .map(|row| row.iter().map(|d| !d.is_nan()).collect())
            .collect(),
    }
}

fn weights(correction: &SamplerCorrection, rows: &SamplerRows) -> Vec<f64> {
    correction.validate().unwrap();
    correction.correct(rows, None).weights.unwrap().concat()
}

fn left(correction: &SamplerCorrection, d: &[&[f64]]) -> Vec<bool> {
    correction.validate().unwrap();
    correction.correct(&rows(d), None).mask.concat()
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
    let one = SamplerRows {
        policy: vec![vec![-1.0, -1.5, -0.5]],
        sampler: vec![vec![-1.5, -1.0, -1.5]],
        mask: vec![vec![true; 3]],
    };
    let holed = SamplerRows {
        mask: vec![vec![true, false, true]],
        ..one.clone()
    };
    let token = SamplerCorrection::token_truncate(2.0);
    assert_all(&weights(&token, &one), &[1.648_721, 0.606_531, 2.0]);
    assert_all(&weights(&token, &holed), &[1.648_721, 0.0, 2.0]);
    let whole = SamplerCorrection::sequence_truncate(5.0);
    assert_all(&weights(&whole, &one), &[E; 3]);
    assert_all(&weights(&whole, &holed), &[4.481_689, 0.0, 4.481_689]);
    assert_all(&weights(&whole, &rows(&[&[1.0, 1.0, 1.0]])), &[5.0; 3]);
    // TRL's default: the whole completion or nothing of it.
    let trl = SamplerCorrection::sequence_mask(None, 3.0);
    assert_all(&weights(&trl, &rows(&[&[0.7, 0.5]])), &[0.0; 2]);
    assert_all(&weights(&trl, &rows(&[&[0.7, 0.3]])), &[E; 2]);
    // AReaL's clamp leaves the mask alone.
    let clamp = SamplerCorrection::token_truncate(5.0);
    assert_all(&weights(&clamp, &rows(&[&[0.0, 2.0]])), &[1.0, 5.0]);
    assert_eq!(left(&clamp, &[&[0.0, 2.0]]), [true, true]);
}

#[test]
fn icepop_silences_tokens_outside_of_its_band() {
    let icepop = SamplerCorrection::token_mask(0.5, 5.0);
    let one = SamplerRows {
        policy: vec![vec![-1.0; 3]],
        sampler: vec![vec![-0.5, -3.5, -0.8]],
        mask: vec![vec![true; 3]],
    };
    assert_all(&weights(&icepop, &one), &[0.606_531, 0.0, 0.818_731]);
    let d = [0.4f64.ln(), 0.8f64.ln(), 6f64.ln()];
    assert_all(&weights(&icepop, &rows(&[&d])), &[0.0, 0.8, 0.0]);
    assert_eq!(left(&icepop, &[&d]), [true; 3]);
    let metrics = icepop.diagnostics(&rows(&[&d]));
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
    let d: [&[f64]; 2] = [&[0.0, ln_2], &[ln_3, f64::NAN]];
    assert_all(
        &weights(&of(WeightLevel::Token), &rows(&d)),
        &[0.5, 1.0, 1.5, 0.0],
    );
    assert_all(
        &weights(&of(WeightLevel::Sequence), &rows(&d)),
        &[0.8, 0.8, 1.2, 0.0],
    );
    let given = of(WeightLevel::Token).correct(&rows(&d), Some(4.0));
    assert_all(&given.weights.unwrap().concat(), &[0.25, 0.5, 0.75, 0.0]);
}

#[test]
fn rejections_look_at_tokens_sums_means_or_maxima() {
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
    let both = SamplerRows {
        policy: vec![vec![-2.0; 5]; 2],
        sampler: vec![vec![-1.0; 5], vec![-2.5; 5]],
        mask: vec![vec![true; 5]; 2],
    };
    let corrected = mask.correct(&both, None);
    assert_eq!(corrected.mask, [[false; 5], [true; 5]]);
    assert_all(
        &corrected.weights.unwrap().concat()[..6],
        &[
            0.367_879, 0.367_879, 0.367_879, 0.367_879, 0.367_879, 1.648_721,
        ],
    );
    let metrics = mask.diagnostics(&both);
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
    let corrected = tis.correct(&rows(&[&[3.0, -2.999], &[3.0, 3.0]]), None);
    assert_eq!(corrected.mask.concat(), [true, true, false, false]);
    assert_close(
        corrected.weights.unwrap()[0][0],
        3f64.exp(),
        1e-12,
        0.0,
        "no bound",
    );
}

#[test]
fn diagnostics_count_what_the_bounds_hide() {
    // Raw means of 3.5 and 1 against a bound of 2.
    let token = SamplerCorrection::token_truncate(2.0);
    let metrics = token.diagnostics(&rows(&[&[3f64.ln(), 4f64.ln()], &[0.0, 0.0]]));
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
fn what_the_sampler_thought_impossible_has_a_bounded_weight() {
    let one = SamplerRows {
        policy: vec![vec![-1.0, -1.0, -1.0]],
        sampler: vec![vec![f64::NEG_INFINITY, -1.0, f64::NAN]],
        mask: vec![vec![true; 3]],
    };
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
    assert_eq!(k3.correct(&one, None).mask.concat(), [false; 3]);
}
