//! Errors for invalid objectives, and the names in their messages.

use rlvr::loss::{
    Aggregation, BinaryDivergence, Cispo, CispoBand, ClipCov, Dppo, Gmpo, ImportanceWeights, KlCov,
    KlEstimator, KlPenalty, LogRatioClamp, LossInput, Numerator, OffPolicyMask, PolicyObjective,
    PpoClip, RatioLevel, Rejection, RejectionScope, RejectionStatistic, SamplerCorrection, Sapo,
    StepCounts, Surrogate, TopEntropy, Vespo, WeightAction, WeightLevel,
};

use super::one_row::{clip, reinforce};
use crate::common::{devices, matrix};

/// An objective, the field that its error names, and the reason or the other part.
type Refused = (PolicyObjective, &'static str, &'static str);

/// An error when it is built, and again when it is used.
fn assert_refused(cases: Vec<Refused>) {
    let (_, device) = devices().remove(0);
    let one = || matrix(&[vec![1.0]], &device);
    for (objective, field, reason) in cases {
        let built = objective.validate().unwrap_err().to_string();
        let input = LossInput::new(one(), one(), one());
        let used = objective.loss(&input, StepCounts::of(&[1])).unwrap_err();
        assert_eq!(built, used.to_string());
        let gathered = objective.statistics(&[input]).unwrap_err();
        assert_eq!(built, gathered.to_string());
        for part in [field, reason] {
            assert!(built.contains(part), "{part}: {built}");
        }
    }
}

#[test]
fn parts_that_contradict_each_other_are_both_named() {
    let at = |ratio_level, objective: PolicyObjective| PolicyObjective {
        ratio_level,
        ..objective
    };
    let clamped = |objective: PolicyObjective| PolicyObjective {
        log_ratio_clamp: Some(LogRatioClamp::symmetric(20.0)),
        ..objective
    };
    let current = SamplerCorrection {
        numerator: Numerator::Current,
        ..SamplerCorrection::token_truncate(2.0)
    };
    let with = |correction: &SamplerCorrection, objective: PolicyObjective| {
        objective.with_sampler_correction(Some(correction.clone()))
    };
    let vespo = PolicyObjective::vespo;
    let whole = SamplerCorrection::sequence_truncate(2.0);
    let reinforce = || reinforce(Aggregation::TokenMean);
    let (sequence, sum, token) = (
        RatioLevel::Sequence,
        RatioLevel::SequenceSum,
        RatioLevel::Token,
    );
    assert_refused(vec![
        (
            at(sequence, reinforce()),
            "`ratio_level`: Sequence",
            "reinforce surrogate: it has no ratio",
        ),
        (
            at(sum, PolicyObjective::dro(1.0)),
            "`ratio_level`: SequenceSum",
            "dro surrogate",
        ),
        (
            at(sequence, PolicyObjective::dppo_tv()),
            "`ratio_level`: Sequence",
            "dppo surrogate: it bounds",
        ),
        (
            at(sum, PolicyObjective::dppo_kl()),
            "`ratio_level`: SequenceSum",
            "dppo surrogate",
        ),
        (
            at(sequence, PolicyObjective::clip_cov()),
            "`ratio_level`: Sequence",
            "clip_cov surrogate",
        ),
        (
            at(sequence, PolicyObjective::kl_cov()),
            "`ratio_level`: Sequence",
            "kl_cov surrogate",
        ),
        (
            at(token, PolicyObjective::gmpo()),
            "`ratio_level`: Token",
            "Sequence with the gmpo surrogate",
        ),
        (
            at(sum, vespo()),
            "`ratio_level`: SequenceSum",
            "Token or Sequence with the vespo surrogate",
        ),
        (
            clamped(reinforce()),
            "`log_ratio_clamp`",
            "none with the reinforce surrogate",
        ),
        (
            clamped(PolicyObjective::gmpo()),
            "`log_ratio_clamp`",
            "none with the gmpo surrogate",
        ),
        (
            clamped(vespo()),
            "`log_ratio_clamp`",
            "none with the vespo surrogate",
        ),
        (
            PolicyObjective {
                top_entropy: Some(TopEntropy { share: 0.2 }),
                ..PolicyObjective::gmpo()
            },
            "`top_entropy`",
            "none with the gmpo surrogate",
        ),
        (
            with(&current, PolicyObjective::ppo()),
            "`sampler_correction.numerator`: current",
            "ppo_clip surrogate",
        ),
        (
            with(&current, PolicyObjective::cispo()),
            "`sampler_correction.numerator`: current",
            "cispo surrogate",
        ),
        (
            with(&whole, vespo()),
            "`sampler_correction.weights.level`: sequence",
            "vespo surrogate",
        ),
        (
            PolicyObjective::ppo().with_kl(Some(KlPenalty {
                straight_through: true,
                importance_corrected: true,
                ..KlPenalty::new(0.1, KlEstimator::K3)
            })),
            "`kl.straight_through`: true",
            "false with kl.importance_corrected",
        ),
    ]);
    // The same parts in valid combinations.
    for fine in [
        clamped(vespo().with_kl(Some(KlPenalty {
            importance_corrected: true,
            ..KlPenalty::new(0.1, KlEstimator::K3)
        }))),
        at(sequence, vespo()),
        at(sequence, PolicyObjective::cispo()),
        at(sum, PolicyObjective::sapo()),
        with(&current, reinforce()),
        with(&current, PolicyObjective::dro(0.1)),
        with(&whole, PolicyObjective::ppo()),
        with(
            &SamplerCorrection {
                measure_only: true,
                ..current.clone()
            },
            PolicyObjective::ppo(),
        ),
    ] {
        fine.validate().unwrap();
    }
}

#[test]
fn invalid_sampler_corrections_are_errors() {
    let of = |correction| PolicyObjective::ppo().with_sampler_correction(Some(correction));
    let weights = |weights| {
        of(SamplerCorrection {
            weights: Some(weights),
            ..SamplerCorrection::default()
        })
    };
    let plain = |action| ImportanceWeights::new(WeightLevel::Token, action);
    let rejection = |scope, statistic, lower, upper| {
        of(SamplerCorrection::default().with_rejection(Rejection {
            scope,
            statistic,
            lower,
            upper,
        }))
    };
    let bounded = |min, max| {
        weights(ImportanceWeights {
            min,
            max,
            ..plain(WeightAction::Truncate)
        })
    };
    use RejectionScope::{SequenceMax, Token};
    use RejectionStatistic::{K1, K2, K3};
    let field = "`sampler_correction.";
    assert_refused(vec![
        (
            of(SamplerCorrection::default()),
            "`sampler_correction`: neither",
            "at least one",
        ),
        (
            of(SamplerCorrection {
                measure_only: true,
                ..SamplerCorrection::default()
            }),
            "`sampler_correction`: neither",
            "at least one",
        ),
        (
            weights(plain(WeightAction::Mask)),
            field,
            "mask without bounds",
        ),
        (
            bounded(Some(1.1), None),
            "weights.min`: 1.1",
            "between 0 and 1",
        ),
        (
            bounded(Some(-0.1), None),
            "weights.min`: -0.1",
            "between 0 and 1",
        ),
        (
            bounded(Some(f64::NAN), None),
            "weights.min`",
            "between 0 and 1",
        ),
        (bounded(None, Some(0.9)), "weights.max`: 0.9", "at least 1"),
        (bounded(None, Some(f64::NAN)), "weights.max`", "at least 1"),
        (
            weights(ImportanceWeights {
                log_ratio_clamp: Some(0.0),
                ..plain(WeightAction::Truncate)
            }),
            "weights.log_ratio_clamp`: 0",
            "above 0",
        ),
        (
            rejection(SequenceMax, K1, None, 2.0),
            "rejection.scope`: sequence_max",
            "k1",
        ),
        (
            rejection(Token, K2, Some(0.5), 2.0),
            "rejection.lower`: 0.5",
            "statistic k2",
        ),
        (
            rejection(Token, K3, Some(0.5), 2.0),
            "rejection.lower`: 0.5",
            "statistic k3",
        ),
        (
            rejection(Token, K1, Some(0.0), 2.0),
            "rejection.lower`: 0",
            "above 0",
        ),
        (
            rejection(Token, K1, Some(1.5), 2.0),
            "rejection.lower`: 1.5",
            "at most 1",
        ),
        (
            rejection(Token, K1, None, 0.5),
            "rejection.upper`: 0.5",
            "at least 1",
        ),
        (
            rejection(Token, K3, None, 0.0),
            "rejection.upper`: 0",
            "above 0",
        ),
        (
            rejection(Token, K2, None, f64::NAN),
            "rejection.upper`",
            "above 0",
        ),
    ]);
}

#[test]
fn invalid_settings_are_errors_with_field_and_reason() {
    let ppo = PolicyObjective::ppo;
    let part = PpoClip::default();
    let kl = |coef| ppo().with_kl(Some(KlPenalty::new(coef, KlEstimator::K3)));
    let held = |log_ratio_clamp, value_clamp| {
        ppo().with_kl(Some(KlPenalty {
            log_ratio_clamp,
            value_clamp,
            ..KlPenalty::new(0.1, KlEstimator::K3)
        }))
    };
    let of = |surrogate| PolicyObjective::new(surrogate, Aggregation::TokenMean);
    let cispo = |band| of(Surrogate::Cispo(Cispo { band }));
    let around = |low, high| cispo(CispoBand::AroundOne { low, high });
    let sapo = |tau_pos, tau_neg| of(Surrogate::Sapo(Sapo { tau_pos, tau_neg }));
    let gmpo = |low, high| PolicyObjective {
        ratio_level: RatioLevel::Sequence,
        ..of(Surrogate::Gmpo(Gmpo { low, high }))
    };
    let dppo = |low, high, ratio_cap| {
        of(Surrogate::Dppo(Dppo {
            divergence: BinaryDivergence::Tv,
            low,
            high,
            ratio_cap,
        }))
    };
    let vespo = |k_pos, lambda_neg| {
        of(Surrogate::Vespo(Vespo {
            k_pos,
            lambda_neg,
            ..Vespo::default()
        }))
    };
    let clip_cov = |ratio, lower, upper| {
        of(Surrogate::ClipCov(ClipCov {
            ratio,
            lower,
            upper,
            ..ClipCov::default()
        }))
    };
    let kl_cov = |ratio, coef| of(Surrogate::KlCov(KlCov { ratio, coef }));
    let clamp = |min, max| PolicyObjective {
        log_ratio_clamp: Some(LogRatioClamp { min, max }),
        ..ppo()
    };
    let constant = Aggregation::Constant { length: 0 };
    let delta = |delta| {
        clip(PpoClip {
            delta: Some(delta),
            ..part
        })
    };
    let dual = |c| {
        clip(PpoClip {
            dual_clip: Some(c),
            ..part
        })
    };
    assert_refused(vec![
        (
            clip(PpoClip::range(-0.1, 0.2)),
            "ppo_clip.low`: -0.1",
            "at least 0",
        ),
        (
            clip(PpoClip::range(f64::NAN, 0.2)),
            "ppo_clip.low",
            "finite",
        ),
        (
            clip(PpoClip::range(0.2, -0.1)),
            "ppo_clip.high`: -0.1",
            "at least 0",
        ),
        (
            clip(PpoClip::range(0.2, f64::INFINITY)),
            "ppo_clip.high",
            "finite",
        ),
        (delta(1.2), "ppo_clip.delta`: 1.2", "above 1 + high = 1.2"),
        (delta(f64::NAN), "ppo_clip.delta", "finite"),
        (delta(f64::INFINITY), "ppo_clip.delta", "finite"),
        (dual(1.0), "ppo_clip.dual_clip`: 1", "above 1"),
        (dual(f64::INFINITY), "ppo_clip.dual_clip", "finite"),
        (
            clip(PpoClip {
                delta: Some(2.0),
                dual_clip: Some(3.0),
                ..part
            }),
            "ppo_clip.delta",
            "none when dual_clip is set",
        ),
        (
            PolicyObjective::dr_grpo(0),
            "aggregation.constant.length`: 0",
            "at least 1",
        ),
        (kl(0.0), "kl.coef`: 0", "above 0, or no KL term"),
        (kl(-0.1), "kl.coef`: -0.1", "above 0"),
        (kl(f64::NAN), "kl.coef", "finite"),
        (ppo().with_entropy_coef(f64::NAN), "entropy_coef", "finite"),
        (
            ppo().with_entropy_coef(f64::INFINITY),
            "entropy_coef",
            "finite",
        ),
        (
            cispo(CispoBand::Cap(0.9)),
            "cispo.band.cap`: 0.9",
            "at least 1",
        ),
        (
            cispo(CispoBand::Cap(f64::INFINITY)),
            "cispo.band.cap",
            "finite",
        ),
        (
            around(-0.1, 0.2),
            "cispo.band.around_one.low`: -0.1",
            "at least 0",
        ),
        (
            around(0.1, f64::NAN),
            "cispo.band.around_one.high",
            "finite",
        ),
        (sapo(0.0, 1.0), "sapo.tau_pos`: 0", "above 0"),
        (sapo(1.0, -1.0), "sapo.tau_neg`: -1", "above 0"),
        (gmpo(-0.4, 0.4), "gmpo.low`: -0.4", "at least 0"),
        (gmpo(0.4, f64::INFINITY), "gmpo.high", "finite"),
        (vespo(0.0, 2.0), "vespo.k_pos`: 0", "above 0"),
        (vespo(2.0, f64::NAN), "vespo.lambda_neg", "finite"),
        (dppo(0.0, 0.1, 3.0), "dppo.low`: 0", "above 0"),
        (dppo(0.1, -0.1, 3.0), "dppo.high`: -0.1", "above 0"),
        (dppo(0.1, 0.1, 1.0), "dppo.ratio_cap`: 1", "above 1"),
        (PolicyObjective::dro(-1.0), "dro.beta`: -1", "above 0"),
        (clip_cov(0.0, 1.0, 5.0), "clip_cov.ratio`: 0", "share"),
        (
            clip_cov(0.1, 5.0, 1.0),
            "clip_cov.lower`: 5",
            "below clip_cov.upper = 1",
        ),
        (kl_cov(1.1, 1.0), "kl_cov.ratio`: 1.1", "share"),
        (kl_cov(0.1, 0.0), "kl_cov.coef`: 0", "above 0"),
        (
            clamp(Some(0.1), None),
            "log_ratio_clamp.min`: 0.1",
            "below 0",
        ),
        (
            clamp(None, Some(-0.1)),
            "log_ratio_clamp.max`: -0.1",
            "above 0",
        ),
        (held(Some(0.0), None), "kl.log_ratio_clamp`: 0", "above 0"),
        (held(None, Some(f64::NAN)), "kl.value_clamp", "finite"),
        (
            ppo().with_kl(Some(KlPenalty {
                aggregation: Some(constant),
                ..KlPenalty::new(0.1, KlEstimator::K3)
            })),
            "aggregation.constant.length`: 0",
            "at least 1",
        ),
        (
            PolicyObjective {
                entropy_aggregation: Some(constant),
                ..ppo().with_entropy_coef(0.1)
            },
            "aggregation.constant.length`: 0",
            "at least 1",
        ),
        (
            PolicyObjective {
                top_entropy: Some(TopEntropy { share: 1.0 }),
                ..ppo()
            },
            "top_entropy.share`: 1",
            "below 1",
        ),
        (
            PolicyObjective {
                top_entropy: Some(TopEntropy { share: 0.0 }),
                ..ppo()
            },
            "top_entropy.share`: 0",
            "above 0",
        ),
        (
            PolicyObjective {
                off_policy_mask: Some(OffPolicyMask { threshold: 0.0 }),
                ..ppo()
            },
            "off_policy_mask.threshold`: 0",
            "above 0",
        ),
    ]);
    // A range above 1 is DeepSeek-R1's, and a negative entropy bonus is a penalty: both are valid.
    for fine in [
        PolicyObjective::deepseek_r1(),
        ppo().with_entropy_coef(-0.01),
        clip(PpoClip::range(0.0, 0.0)),
        delta(1.3),
        dual(1.1),
        cispo(CispoBand::Cap(1.0)),
    ] {
        fine.validate().unwrap();
    }
}

#[test]
fn a_penalty_in_the_reward_has_neither_gradient_nor_aggregation() {
    let plain = KlPenalty::new(0.1, KlEstimator::K1);
    plain.validate_in_reward().unwrap();
    let clamped = KlPenalty {
        value_clamp: Some(10.0),
        ..plain
    };
    clamped.validate_in_reward().unwrap();
    for (penalty, field) in [
        (
            KlPenalty {
                straight_through: true,
                ..plain
            },
            "`kl.straight_through`",
        ),
        (
            KlPenalty {
                importance_corrected: true,
                ..plain
            },
            "`kl.importance_corrected`",
        ),
        (
            KlPenalty {
                aggregation: Some(Aggregation::TokenMean),
                ..plain
            },
            "`kl.aggregation`",
        ),
    ] {
        penalty.validate().unwrap();
        let message = penalty.validate_in_reward().unwrap_err().to_string();
        assert!(
            message.contains(field) && message.contains("in a reward"),
            "{message}"
        );
    }
}
