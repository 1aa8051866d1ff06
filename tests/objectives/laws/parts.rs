//! Every choice of every part of an objective, with settings that have an effect on a small batch.

use rlvr::loss::{
    Aggregation, BinaryDivergence, Cispo, CispoBand, ClipCov, Dppo, Dro, Gmpo, ImportanceWeights,
    KlCov, KlEstimator, KlPenalty, LogRatioClamp, Numerator, OffPolicyMask, PolicyObjective,
    PpoClip, RatioLevel, Reinforce, Rejection, RejectionScope, RejectionStatistic,
    SamplerCorrection, Sapo, Surrogate, TopEntropy, Vespo, WeightAction, WeightLevel,
};

/// The choices of a part, by name; the first is the simplest.
pub type Choices<T> = Vec<(&'static str, T)>;

pub fn surrogates() -> Choices<Surrogate> {
    let clip = |delta, dual_clip| {
        Surrogate::PpoClip(PpoClip {
            delta,
            dual_clip,
            ..PpoClip::default()
        })
    };
    let dppo = |divergence, low, high| {
        Surrogate::Dppo(Dppo {
            divergence,
            low,
            high,
            ratio_cap: 1.6,
        })
    };
    let cispo = |band| Surrogate::Cispo(Cispo { band });
    vec![
        ("ppo", clip(None, None)),
        ("ppo_high", Surrogate::PpoClip(PpoClip::range(0.2, 0.28))),
        ("ppo_delta", clip(Some(1.25), None)),
        ("ppo_dual", clip(None, Some(1.27))),
        ("cispo_cap", cispo(CispoBand::Cap(1.5))),
        (
            "cispo_band",
            cispo(CispoBand::AroundOne {
                low: 0.2,
                high: 0.28,
            }),
        ),
        ("sapo", Surrogate::Sapo(Sapo::default())),
        ("gmpo", Surrogate::Gmpo(Gmpo::default())),
        ("vespo", Surrogate::Vespo(Vespo::default())),
        ("dppo_tv", dppo(BinaryDivergence::Tv, 0.12, 0.13)),
        ("dppo_kl", dppo(BinaryDivergence::Kl, 0.11, 0.09)),
        ("dro", Surrogate::Dro(Dro { beta: 0.7 })),
        (
            "clip_cov",
            Surrogate::ClipCov(ClipCov {
                ratio: 1.0,
                lower: 0.013,
                upper: 0.51,
                ..ClipCov::default()
            }),
        ),
        (
            "kl_cov",
            Surrogate::KlCov(KlCov {
                ratio: 0.3,
                coef: 0.7,
            }),
        ),
        ("reinforce", Surrogate::Reinforce(Reinforce {})),
    ]
}

pub fn levels() -> Choices<RatioLevel> {
    vec![
        ("token", RatioLevel::Token),
        ("sequence", RatioLevel::Sequence),
        ("sequence_sum", RatioLevel::SequenceSum),
        ("sequence_token", RatioLevel::SequenceToken),
    ]
}

pub fn aggregations() -> Choices<Aggregation> {
    vec![
        ("token_mean", Aggregation::TokenMean),
        ("token_sum", Aggregation::TokenSum),
        (
            "sequence_mean_token_mean",
            Aggregation::SequenceMeanTokenMean,
        ),
        ("sequence_mean_token_sum", Aggregation::SequenceMeanTokenSum),
        ("constant", Aggregation::Constant { length: 7 }),
        ("prompt_mean", Aggregation::PromptMean),
    ]
}

/// Large coefficients, so that an error in the KL term shows next to the surrogate.
pub fn kls() -> Choices<Option<KlPenalty>> {
    let k = |estimator| KlPenalty::new(0.5, estimator);
    let k3 = k(KlEstimator::K3);
    vec![
        ("no_kl", None),
        ("k1", Some(k(KlEstimator::K1))),
        ("k2", Some(k(KlEstimator::K2))),
        ("k3", Some(k3)),
        ("abs", Some(k(KlEstimator::Abs))),
        (
            "straight_through",
            Some(KlPenalty {
                straight_through: true,
                ..k3
            }),
        ),
        (
            "clamped",
            Some(KlPenalty {
                log_ratio_clamp: Some(1.1),
                value_clamp: Some(0.2),
                ..k3
            }),
        ),
        (
            "corrected",
            Some(KlPenalty {
                importance_corrected: true,
                ..k3
            }),
        ),
        (
            "corrected_straight_through",
            Some(KlPenalty {
                importance_corrected: true,
                straight_through: true,
                ..k3
            }),
        ),
        (
            "kl_aggregation",
            Some(KlPenalty {
                aggregation: Some(Aggregation::SequenceMeanTokenSum),
                ..k3
            }),
        ),
    ]
}

fn weighing(level: WeightLevel, action: WeightAction, min: f64, max: f64) -> ImportanceWeights {
    ImportanceWeights {
        min: Some(min),
        max: Some(max),
        ..ImportanceWeights::new(level, action)
    }
}

fn weighted(weights: ImportanceWeights) -> SamplerCorrection {
    SamplerCorrection {
        weights: Some(weights),
        ..SamplerCorrection::default()
    }
}

pub fn rejections() -> Choices<Rejection> {
    use RejectionScope::{SequenceMax, SequenceMean, SequenceSum, Token};
    use RejectionStatistic::{K1, K2, K3};
    let rule = |scope, statistic, lower, upper| Rejection {
        scope,
        statistic,
        lower,
        upper,
    };
    vec![
        ("token_k1", rule(Token, K1, Some(0.51), 2.03)),
        ("token_k2", rule(Token, K2, None, 0.303)),
        ("token_k3", rule(Token, K3, None, 0.303)),
        ("sum_k1", rule(SequenceSum, K1, Some(0.51), 2.03)),
        ("sum_k2", rule(SequenceSum, K2, None, 0.303)),
        ("sum_k3", rule(SequenceSum, K3, None, 0.303)),
        ("mean_k1", rule(SequenceMean, K1, Some(0.71), 1.41)),
        ("mean_k2", rule(SequenceMean, K2, None, 0.203)),
        ("mean_k3", rule(SequenceMean, K3, None, 0.153)),
        ("max_k1", rule(SequenceMax, K1, None, 2.03)),
        ("max_k2", rule(SequenceMax, K2, None, 0.303)),
        ("max_k3", rule(SequenceMax, K3, None, 0.303)),
    ]
}

pub fn corrections() -> Choices<Option<SamplerCorrection>> {
    use WeightAction::{Mask, Truncate};
    use WeightLevel::{Sequence, Token};
    let rule = |name| {
        let found = rejections().into_iter().find(|(own, _)| *own == name);
        found.unwrap().1
    };
    let token = weighing(Token, Truncate, 0.61, 1.21);
    let normalized = |weights| {
        weighted(ImportanceWeights {
            batch_normalize: true,
            log_ratio_clamp: Some(0.8),
            ..weights
        })
    };
    let mut all = vec![
        ("no_correction", None),
        ("token_truncate", Some(weighted(token))),
        (
            "token_mask",
            Some(weighted(weighing(Token, Mask, 0.51, 1.26))),
        ),
        (
            "sequence_truncate",
            Some(weighted(weighing(Sequence, Truncate, 0.51, 3.0))),
        ),
        (
            "sequence_mask",
            Some(weighted(weighing(Sequence, Mask, 0.51, 3.0))),
        ),
        ("token_normalized", Some(normalized(token))),
        (
            "sequence_normalized",
            Some(normalized(ImportanceWeights::new(Sequence, Truncate))),
        ),
        (
            "current_weights",
            Some(SamplerCorrection {
                numerator: Numerator::Current,
                ..weighted(token)
            }),
        ),
        (
            "current_rejection",
            Some(
                SamplerCorrection {
                    numerator: Numerator::Current,
                    ..SamplerCorrection::default()
                }
                .with_rejection(rule("mean_k2")),
            ),
        ),
        (
            "measure_only",
            Some(
                SamplerCorrection {
                    numerator: Numerator::Current,
                    measure_only: true,
                    ..weighted(token)
                }
                .with_rejection(rule("token_k2")),
            ),
        ),
        (
            "weights_and_two_rejections",
            Some(
                normalized(token)
                    .with_rejection(rule("token_k1"))
                    .with_rejection(rule("mean_k3")),
            ),
        ),
    ];
    all.extend(rejections().into_iter().map(|(name, rejection)| {
        let correction = SamplerCorrection::default().with_rejection(rejection);
        (name, Some(correction))
    }));
    all
}

pub fn off_policy_masks() -> Choices<Option<OffPolicyMask>> {
    let mask = OffPolicyMask { threshold: 0.31 };
    vec![("no_mask", None), ("off_policy_mask", Some(mask))]
}

pub fn selections() -> Choices<Option<TopEntropy>> {
    let selection = TopEntropy { share: 0.5 };
    vec![("all_tokens", None), ("top_entropy", Some(selection))]
}

/// The coefficient of the bonus and its own aggregation.
pub fn bonuses() -> Choices<(f64, Option<Aggregation>)> {
    vec![
        ("no_bonus", (0.0, None)),
        ("bonus", (0.25, None)),
        (
            "bonus_aggregation",
            (0.25, Some(Aggregation::SequenceMeanTokenMean)),
        ),
    ]
}

/// Tight enough to clamp some ratios.
pub fn clamps() -> Choices<Option<LogRatioClamp>> {
    let clamp = LogRatioClamp {
        min: Some(-0.2),
        max: Some(0.15),
    };
    vec![("no_clamp", None), ("clamp", Some(clamp))]
}

/// The choices of all parts, to be taken by number.
pub struct Parts {
    pub surrogates: Choices<Surrogate>,
    pub levels: Choices<RatioLevel>,
    pub aggregations: Choices<Aggregation>,
    pub kls: Choices<Option<KlPenalty>>,
    pub corrections: Choices<Option<SamplerCorrection>>,
    pub masks: Choices<Option<OffPolicyMask>>,
    pub selections: Choices<Option<TopEntropy>>,
    pub bonuses: Choices<(f64, Option<Aggregation>)>,
    pub clamps: Choices<Option<LogRatioClamp>>,
}

/// The place of each part's choice.
pub type Places = [usize; 9];

impl Parts {
    pub fn all() -> Self {
        Self {
            surrogates: surrogates(),
            levels: levels(),
            aggregations: aggregations(),
            kls: kls(),
            corrections: corrections(),
            masks: off_policy_masks(),
            selections: selections(),
            bonuses: bonuses(),
            clamps: clamps(),
        }
    }

    /// One choice of each kind of KL, correction, bonus and clamp, and every choice of the other
    /// parts.
    pub fn kinds() -> Self {
        fn keep<T>(choices: &mut Choices<T>, names: &[&str]) {
            choices.retain(|(name, _)| names.contains(name));
            assert_eq!(choices.len(), names.len(), "{names:?}");
        }
        let mut parts = Self::all();
        keep(&mut parts.kls, &["no_kl", "k3", "corrected"]);
        keep(
            &mut parts.corrections,
            &["no_correction", "token_truncate", "token_k1"],
        );
        parts.bonuses.truncate(2);
        parts.clamps.truncate(2);
        parts
    }

    pub fn sizes(&self) -> Places {
        [
            self.surrogates.len(),
            self.levels.len(),
            self.aggregations.len(),
            self.kls.len(),
            self.corrections.len(),
            self.masks.len(),
            self.selections.len(),
            self.bonuses.len(),
            self.clamps.len(),
        ]
    }

    pub fn count(&self) -> usize {
        self.sizes().iter().product()
    }

    /// The combination with the number `index`.
    pub fn places(&self, mut index: usize) -> Places {
        self.sizes().map(|size| {
            let place = index % size;
            index /= size;
            place
        })
    }

    pub fn names(&self, [s, l, a, k, c, m, e, b, r]: Places) -> [&'static str; 9] {
        [
            self.surrogates[s].0,
            self.levels[l].0,
            self.aggregations[a].0,
            self.kls[k].0,
            self.corrections[c].0,
            self.masks[m].0,
            self.selections[e].0,
            self.bonuses[b].0,
            self.clamps[r].0,
        ]
    }

    pub fn objective(&self, [s, l, a, k, c, m, e, b, r]: Places) -> PolicyObjective {
        let (entropy_coef, entropy_aggregation) = self.bonuses[b].1;
        PolicyObjective {
            surrogate: self.surrogates[s].1.clone(),
            ratio_level: self.levels[l].1,
            log_ratio_clamp: self.clamps[r].1,
            aggregation: self.aggregations[a].1,
            kl: self.kls[k].1,
            entropy_coef,
            entropy_aggregation,
            top_entropy: self.selections[e].1,
            off_policy_mask: self.masks[m].1,
            sampler_correction: self.corrections[c].1.clone(),
        }
    }

    /// The parts that contradict each other, by the names in the error.
    pub fn contradictions(&self, places: Places) -> Vec<(&'static str, &'static str)> {
        let [surrogate, level, _, kl, correction, _, selection, _, clamp] = self.names(places);
        let name = match surrogate {
            "ppo" | "ppo_high" | "ppo_delta" | "ppo_dual" => "ppo_clip",
            "cispo_cap" | "cispo_band" => "cispo",
            "dppo_tv" | "dppo_kl" => "dppo",
            other => other,
        };
        let levels: &[&str] = match name {
            "reinforce" | "dro" | "dppo" | "clip_cov" | "kl_cov" => &["token"],
            "gmpo" => &["sequence"],
            "vespo" => &["token", "sequence"],
            _ => &["token", "sequence", "sequence_sum", "sequence_token"],
        };
        let has_no_ratio = ["reinforce", "dro"].contains(&name);
        let reads_no_level = has_no_ratio || ["gmpo", "vespo"].contains(&name);
        let mut found = Vec::new();
        if !levels.contains(&level) {
            found.push(("`ratio_level`", name));
        }
        if kl == "corrected_straight_through" {
            found.push(("`kl.straight_through`", "kl.importance_corrected"));
        }
        if clamp == "clamp" && reads_no_level && kl != "corrected" {
            found.push(("`log_ratio_clamp`", name));
        }
        if selection == "top_entropy" && name == "gmpo" {
            found.push(("`top_entropy`", name));
        }
        if correction == "max_k1" {
            found.push(("`sampler_correction.rejection.scope`", "k1"));
        }
        if correction == "current_weights" && !has_no_ratio {
            found.push(("`sampler_correction.numerator`", name));
        }
        let whole = ["sequence_truncate", "sequence_mask", "sequence_normalized"];
        if name == "vespo" && whole.contains(&correction) {
            found.push(("`sampler_correction.weights.level`", name));
        }
        found
    }

    /// Every valid objective that differs from a surrogate at its first valid level in one part, or
    /// in its level.
    pub fn one_by_one(&self) -> Vec<Places> {
        let mut all = Vec::new();
        for surrogate in 0..self.surrogates.len() {
            let valid = |places: &Places| self.objective(*places).validate().is_ok();
            let at = |level| [surrogate, level, 0, 0, 0, 0, 0, 0, 0];
            let levels = (0..self.levels.len()).map(at).filter(valid);
            let levels: Vec<Places> = levels.collect();
            let base = levels[0];
            all.extend(levels);
            for part in 2..base.len() {
                for choice in 1..self.sizes()[part] {
                    let mut places = base;
                    places[part] = choice;
                    all.extend(Some(places).filter(valid));
                }
            }
        }
        all
    }
}
