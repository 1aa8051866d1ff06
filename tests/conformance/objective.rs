//! Maps the golden spelling of an objective to the public API.

use rlvr::loss::{
    Aggregation, BinaryDivergence, Cispo, CispoBand, ClipCov, Denominators, Dppo, Dro, Gmpo,
    ImportanceWeights, KlCov, KlEstimator, KlPenalty, LogRatioClamp, Numerator, OffPolicyMask,
    PolicyObjective, PpoClip, RatioLevel, Reinforce, Rejection, RejectionScope, RejectionStatistic,
    SamplerCorrection, Sapo, Surrogate, TopEntropy, Vespo, WeightAction, WeightLevel,
};
use serde_json::Value;

use crate::expect::{get, text};

/// An aggregation, its denominators, and the factor of the other library.
pub struct Aggregated {
    pub how: Aggregation,
    pub by: Denominators,
    pub scale: f64,
}

/// `None` for an aggregation that is not used.
pub fn aggregation(case: &Value) -> Result<Option<Aggregated>, String> {
    if case.is_null() {
        return Ok(None);
    }
    let count = |field: &str| case[field].as_f64().unwrap_or(1.0);
    let mut by = Denominators {
        tokens: count("token_denominator"),
        sequences: count("sequence_denominator"),
        prompts: 1.0,
    };
    let how = match text(case, "mode")? {
        "token_mean" | "batch_tokens" => Aggregation::TokenMean,
        "token_sum" => Aggregation::TokenSum,
        // One row's term is repeated at each of its tokens.
        "seq_mean_token_mean" | "sequence_mean" => Aggregation::SequenceMeanTokenMean,
        "seq_mean_token_sum" => Aggregation::SequenceMeanTokenSum,
        "constant" => {
            let length = get(case, "max_completion_length")?;
            by.sequences = get(case, "token_denominator")? / length;
            Aggregation::Constant {
                length: length as usize,
            }
        }
        "seq_mean_token_sum_norm" => {
            // A fractional norm becomes the denominator.
            let norm = get(case, "length_norm")?;
            let length = norm.round().max(1.0);
            by.sequences *= norm / length;
            Aggregation::Constant {
                length: length as usize,
            }
        }
        other => return Err(format!("unknown aggregation {other}")),
    };
    Ok(Some(Aggregated {
        how,
        by,
        scale: get(case, "scale")?,
    }))
}

impl Aggregated {
    /// The denominators that give `factor`; a sum has none.
    pub fn by_at(&self, factor: f64) -> Result<Denominators, String> {
        let rest = self.scale / factor;
        if rest != 1.0 && self.how == Aggregation::TokenSum {
            return Err(format!("a token sum with a factor of its own, {rest}"));
        }
        Ok(Denominators {
            tokens: self.by.tokens / rest,
            sequences: self.by.sequences / rest,
            prompts: self.by.prompts,
        })
    }
}

/// `k1`, `k2`, `k3`, `abs`, and whether a `+` follows.
pub fn estimator(name: &str) -> Result<(KlEstimator, bool), String> {
    let (plain, straight_through) = match name.strip_suffix('+') {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    let estimator = match plain {
        "k1" => KlEstimator::K1,
        "k2" => KlEstimator::K2,
        "k3" => KlEstimator::K3,
        "abs" => KlEstimator::Abs,
        other => return Err(format!("unknown KL estimator {other}")),
    };
    Ok((estimator, straight_through))
}

fn surrogate(case: &Value) -> Result<Surrogate, String> {
    let (low, high) = (get(case, "clip_low"), get(case, "clip_high"));
    let dppo = |divergence| -> Result<Surrogate, String> {
        Ok(Surrogate::Dppo(Dppo {
            divergence,
            low: get(case, "clip_low")?,
            high: get(case, "clip_high")?,
            ratio_cap: get(case, "ratio_cap")?,
        }))
    };
    Ok(match text(case, "surrogate")? {
        "ppo_clip" | "gspo_token" => Surrogate::PpoClip(PpoClip {
            low: low?,
            high: high?,
            delta: case["delta"].as_f64(),
            dual_clip: case["dual_clip"].as_f64(),
        }),
        "cispo" => Surrogate::Cispo(Cispo {
            band: match text(case, "clip_kind")? {
                "ratio_upper" => CispoBand::Cap(high?),
                "ratio_around_one" => CispoBand::AroundOne {
                    low: low?,
                    high: high?,
                },
                other => return Err(format!("unknown clip kind {other} of cispo")),
            },
        }),
        "sapo" => Surrogate::Sapo(Sapo {
            tau_pos: get(case, "tau_pos")?,
            tau_neg: get(case, "tau_neg")?,
        }),
        "vespo" => Surrogate::Vespo(Vespo {
            k_pos: get(case, "k_pos")?,
            lambda_pos: get(case, "lambda_pos")?,
            k_neg: get(case, "k_neg")?,
            lambda_neg: get(case, "lambda_neg")?,
        }),
        "gmpo" => Surrogate::Gmpo(Gmpo {
            low: low?,
            high: high?,
        }),
        "gpg" | "reinforce" => Surrogate::Reinforce(Reinforce {}),
        "dro" => Surrogate::Dro(Dro {
            beta: get(case, "dro_beta")?,
        }),
        "dppo_tv" => dppo(BinaryDivergence::Tv)?,
        "dppo_kl" => dppo(BinaryDivergence::Kl)?,
        "clip_cov" => Surrogate::ClipCov(ClipCov {
            low: low?,
            high: high?,
            ratio: get(case, "clip_cov_ratio")?,
            lower: get(case, "clip_cov_lb")?,
            upper: get(case, "clip_cov_ub")?,
        }),
        "kl_cov" => Surrogate::KlCov(KlCov {
            ratio: get(case, "kl_cov_ratio")?,
            coef: get(case, "kl_cov_coef")?,
        }),
        other => return Err(format!("unknown surrogate {other}")),
    })
}

/// The correction of a case, if it has one. `numerator: "current"` is verl's bypass.
pub fn correction(case: &Value) -> Result<Option<SamplerCorrection>, String> {
    if case.is_null() {
        return Ok(None);
    }
    let level = match case["level"].as_str() {
        Some("token") => Some(WeightLevel::Token),
        Some("sequence") => Some(WeightLevel::Sequence),
        Some(other) => return Err(format!("unknown weight level {other}")),
        None => None,
    };
    let weights = level.map(|level| -> Result<ImportanceWeights, String> {
        Ok(ImportanceWeights {
            level,
            action: match text(case, "action")? {
                "truncate" => WeightAction::Truncate,
                "mask" => WeightAction::Mask,
                other => return Err(format!("unknown weight action {other}")),
            },
            min: case["min"].as_f64(),
            max: case["max"].as_f64(),
            batch_normalize: case["batch_normalize"] == true,
            log_ratio_clamp: case["log_ratio_clamp"].as_f64(),
        })
    });
    let none = Vec::new();
    let rejection = case["rejection"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .map(|one| {
            Ok(Rejection {
                scope: match text(one, "scope")? {
                    "token" => RejectionScope::Token,
                    "seq_sum" => RejectionScope::SequenceSum,
                    "seq_mean" => RejectionScope::SequenceMean,
                    "seq_max" => RejectionScope::SequenceMax,
                    other => return Err(format!("unknown rejection scope {other}")),
                },
                statistic: match text(one, "statistic")? {
                    "k1" => RejectionStatistic::K1,
                    "k2" => RejectionStatistic::K2,
                    "k3" => RejectionStatistic::K3,
                    other => return Err(format!("unknown rejection statistic {other}")),
                },
                lower: one["lower"].as_f64(),
                upper: get(one, "upper")?,
            })
        });
    let correction = SamplerCorrection {
        weights: weights.transpose()?,
        rejection: rejection.collect::<Result<_, String>>()?,
        numerator: match text(case, "numerator")? {
            "old" => Numerator::Old,
            "current" => Numerator::Current,
            other => return Err(format!("unknown numerator {other}")),
        },
        measure_only: case["applied"] == "none",
    };
    let nothing = correction.weights.is_none() && correction.rejection.is_empty();
    Ok((!nothing).then_some(correction))
}

/// The objective of a case.
pub fn objective(case: &Value) -> Result<PolicyObjective, String> {
    let surrogate = surrogate(case)?;
    let clamp = LogRatioClamp {
        min: case["log_ratio_min"].as_f64(),
        max: case["log_ratio_max"].as_f64(),
    };
    // VESPO's bounds are its own constants.
    if matches!(surrogate, Surrogate::Vespo(_)) && clamp != LogRatioClamp::symmetric(20.0) {
        return Err(format!("vespo with other bounds than ±20: {clamp:?}"));
    }
    let own_clamp = matches!(surrogate, Surrogate::Vespo(_)) || clamp == LogRatioClamp::default();
    let kl = match case["beta"].as_f64() {
        None | Some(0.0) => None,
        Some(coef) => {
            let (estimator, straight_through) = estimator(text(case, "kl_estimator")?)?;
            Some(KlPenalty {
                coef,
                estimator,
                straight_through,
                log_ratio_clamp: case["kl_log_ratio_clamp"].as_f64(),
                value_clamp: case["kl_value_clamp"].as_f64(),
                importance_corrected: case["kl_is_corrected"] == true,
                aggregation: aggregation(&case["kl_aggregation"])?.map(|one| one.how),
            })
        }
    };
    Ok(PolicyObjective {
        surrogate,
        ratio_level: match (text(case, "surrogate")?, case["ratio_level"].as_str()) {
            ("gspo_token", _) => RatioLevel::SequenceToken,
            (_, Some("sequence")) => RatioLevel::Sequence,
            (_, Some("token") | None) => RatioLevel::Token,
            (_, Some(other)) => return Err(format!("unknown ratio level {other}")),
        },
        log_ratio_clamp: (!own_clamp).then_some(clamp),
        aggregation: aggregation(&case["aggregation"])?
            .ok_or("no aggregation")?
            .how,
        kl,
        entropy_coef: get(case, "entropy_coef")?,
        entropy_aggregation: aggregation(&case["entropy_aggregation"])?.map(|one| one.how),
        top_entropy: match get(case, "top_entropy_quantile")? {
            1.0 => None,
            share => Some(TopEntropy { share }),
        },
        off_policy_mask: case["off_policy_mask_threshold"]
            .as_f64()
            .map(|threshold| OffPolicyMask { threshold }),
        sampler_correction: correction(&case["sampler_correction"])?,
    })
}
