//! Objectives of papers and frameworks by name: `PolicyObjective::dapo()` or
//! `PolicyObjective::named("dapo", limit)`.
//!
//! A preset is the loss only. Its documentation states the advantages, the KL in the reward and
//! other settings that it is meant for. If two frameworks use one name for different objectives,
//! there is a preset for each.
#![doc = include_str!("presets.md")]

use super::{
    Aggregation, BinaryDivergence, Cispo, CispoBand, ClipCov, Dppo, Dro, Gmpo, KlCov, KlEstimator,
    KlPenalty, LogRatioClamp, OffPolicyMask, PolicyObjective, PpoClip, RatioLevel, Reinforce, Sapo,
    Surrogate, Vespo,
};
use crate::{Error, Result};

/// The presets of [`PolicyObjective::named`], in the order of the table.
pub const NAMES: [&str; 24] = [
    "grpo",
    "deepseek_r1",
    "deepseek_v32",
    "dr_grpo",
    "dapo",
    "trl",
    "verl",
    "ppo",
    "gspo",
    "gspo_token",
    "luspo",
    "cispo",
    "cispo_verl",
    "sapo",
    "gmpo",
    "vespo",
    "dppo_tv",
    "dppo_kl",
    "clip_cov",
    "kl_cov",
    "reinforce",
    "reinforce_plus_plus",
    "gpg",
    "rloo",
];

impl PolicyObjective {
    /// Returns the preset called `name`. `max_new_tokens` is the completion limit in tokens, by
    /// which `dr_grpo` divides.
    ///
    /// ```
    /// use rlvr::loss::PolicyObjective;
    ///
    /// assert_eq!(
    ///     PolicyObjective::named("dapo", 512)?,
    ///     PolicyObjective::dapo()
    /// );
    /// let error = PolicyObjective::named("gpro", 512).unwrap_err();
    /// assert!(error.to_string().contains("grpo, deepseek_r1"));
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if there is no such preset; the message lists [`NAMES`].
    pub fn named(name: &str, max_new_tokens: usize) -> Result<Self> {
        Ok(match name {
            "grpo" => Self::grpo(),
            "deepseek_r1" => Self::deepseek_r1(),
            "deepseek_v32" => Self::deepseek_v32(),
            "dr_grpo" => Self::dr_grpo(max_new_tokens),
            "dapo" => Self::dapo(),
            "trl" => Self::trl(),
            "verl" => Self::verl(),
            "ppo" => Self::ppo(),
            "gspo" => Self::gspo(),
            "gspo_token" => Self::gspo_token(),
            "luspo" => Self::luspo(),
            "cispo" => Self::cispo(),
            "cispo_verl" => Self::cispo_verl(),
            "sapo" => Self::sapo(),
            "gmpo" => Self::gmpo(),
            "vespo" => Self::vespo(),
            "dppo_tv" => Self::dppo_tv(),
            "dppo_kl" => Self::dppo_kl(),
            "clip_cov" => Self::clip_cov(),
            "kl_cov" => Self::kl_cov(),
            "reinforce" => Self::reinforce(),
            "reinforce_plus_plus" => Self::reinforce_plus_plus(),
            "gpg" => Self::gpg(),
            "rloo" => Self::rloo(),
            _ => {
                let expected = format!("one of {}", NAMES.join(", "));
                return Err(Error::config("objective", format!("{name:?}"), expected));
            }
        })
    }

    /// GRPO as in DeepSeekMath (arXiv 2402.03300, eq. 3): token ratios, k3 in the loss with beta =
    /// 0.04, the mean over completions of their token means. The paper does not state its clip
    /// range; 0.2 is PPO's. With [`Group`](crate::advantage::Group) advantages.
    pub fn grpo() -> Self {
        Self::clipped(0.2, 0.2, Aggregation::SequenceMeanTokenMean)
            .with_kl(Some(KlPenalty::new(0.04, KlEstimator::K3)))
    }

    /// DeepSeek-R1's second stage (arXiv 2501.12948, B.4.1): clip range 10, k3 with beta = 0.001,
    /// the reference replaced every 400 updates ([`ReferenceSync`](crate::policy::ReferenceSync)).
    ///
    /// The paper writes its ratio over whole outputs but mentions clipped tokens; this preset uses
    /// the token ratio and per-completion mean of [`grpo`](Self::grpo). With a range of 10 the
    /// lower bound has no effect and the upper one only above a ratio of 11.
    pub fn deepseek_r1() -> Self {
        Self::clipped(10.0, 10.0, Aggregation::SequenceMeanTokenMean)
            .with_kl(Some(KlPenalty::new(0.001, KlEstimator::K3)))
    }

    /// DeepSeek-V3.2 (arXiv 2512.02556, sec. 3.1): GRPO with an importance-corrected, unbiased KL
    /// and the off-policy sequence mask. With [`GroupMean`](crate::advantage::GroupMean)
    /// advantages: the paper does not divide by the standard deviation.
    ///
    /// The paper does not state clip range, beta and mask threshold; this preset uses 0.2, R1's
    /// 0.001, and 0.5 nats per token.
    pub fn deepseek_v32() -> Self {
        Self {
            kl: Some(KlPenalty {
                importance_corrected: true,
                ..KlPenalty::new(0.001, KlEstimator::K3)
            }),
            off_policy_mask: Some(OffPolicyMask { threshold: 0.5 }),
            ..Self::clipped(0.2, 0.2, Aggregation::SequenceMeanTokenMean)
        }
    }

    /// Dr. GRPO (arXiv 2503.20783): no KL, and a constant denominator, so that length does not
    /// change the weight of a token. `max_new_tokens` is the completion limit in tokens. With
    /// [`GroupMean`](crate::advantage::GroupMean) advantages.
    pub fn dr_grpo(max_new_tokens: usize) -> Self {
        let length = max_new_tokens;
        Self::clipped(0.2, 0.2, Aggregation::Constant { length })
    }

    /// DAPO (arXiv 2503.14476, eq. 8): clip-higher (0.2, 0.28), token mean, no KL. Its dynamic
    /// sampling and overlong shaping are not part of the loss. With
    /// [`Group`](crate::advantage::Group) advantages.
    pub fn dapo() -> Self {
        Self::clipped(0.2, 0.28, Aggregation::TokenMean)
    }

    /// The default objective of TRL 1.16's `GRPOTrainer`: `loss_type="dapo"` with a symmetric range
    /// of 0.2 and no KL. With [`Group`](crate::advantage::Group) advantages. With vLLM it adds
    /// [`SamplerCorrection::sequence_mask(None, 3.0)`](super::SamplerCorrection::sequence_mask).
    pub fn trl() -> Self {
        Self::clipped(0.2, 0.2, Aggregation::TokenMean)
    }

    /// The default objective of verl 0.9's actor: a range of 0.2, dual clip with c = 3, log-ratios
    /// clamped to ±20, token mean, no KL in the loss. With the advantages that `adv_estimator`
    /// names; verl's default is GAE.
    pub fn verl() -> Self {
        let clip = PpoClip {
            dual_clip: Some(3.0),
            ..PpoClip::range(0.2, 0.2)
        };
        Self {
            log_ratio_clamp: Some(LogRatioClamp::symmetric(20.0)),
            ..Self::new(Surrogate::PpoClip(clip), Aggregation::TokenMean)
        }
    }

    /// PPO (arXiv 1707.06347, eq. 7) with a clip range of 0.2 and the token mean. With
    /// [`Gae`](crate::advantage::Gae) advantages and a [`value_loss`](crate::loss::value_loss); a
    /// KL term, if any, usually is part of the reward.
    pub fn ppo() -> Self {
        Self::clipped(0.2, 0.2, Aggregation::TokenMean)
    }

    /// GSPO (arXiv 2507.18071, eq. 5): one ratio per completion, clipped to (3e-4, 4e-4) as in the
    /// paper; also TRL's `importance_sampling_level="sequence"`. With
    /// [`Group`](crate::advantage::Group) advantages.
    pub fn gspo() -> Self {
        Self {
            ratio_level: RatioLevel::Sequence,
            ..Self::clipped(3e-4, 4e-4, Aggregation::SequenceMeanTokenMean)
        }
    }

    /// GSPO-token (arXiv 2507.18071, eq. 13), called `gspo` in verl: the value of
    /// [`gspo`](Self::gspo)'s ratio with the gradient of the token itself, clamped below `e^10`.
    /// The same gradient as `gspo` if the advantage is constant over the completion.
    pub fn gspo_token() -> Self {
        Self {
            ratio_level: RatioLevel::SequenceToken,
            log_ratio_clamp: Some(LogRatioClamp {
                min: None,
                max: Some(10.0),
            }),
            ..Self::gspo()
        }
    }

    /// LUSPO (arXiv 2602.05261): [`gspo`](Self::gspo) with each completion weighted by its length,
    /// which removes GSPO's bias towards short ones.
    pub fn luspo() -> Self {
        Self {
            aggregation: Aggregation::SequenceMeanTokenSum,
            ..Self::gspo()
        }
    }

    /// CISPO as in MiniMax-M1 (arXiv 2506.13585) and TRL: the detached ratio is capped at 5,
    /// without a lower bound; token mean.
    pub fn cispo() -> Self {
        let band = CispoBand::Cap(5.0);
        Self::new(Surrogate::Cispo(Cispo { band }), Aggregation::TokenMean)
    }

    /// CISPO as in verl: the detached ratio is clamped to [0.8, 1.2], log-ratios to ±20; token
    /// mean.
    pub fn cispo_verl() -> Self {
        let band = CispoBand::AroundOne {
            low: 0.2,
            high: 0.2,
        };
        Self {
            log_ratio_clamp: Some(LogRatioClamp::symmetric(20.0)),
            ..Self::new(Surrogate::Cispo(Cispo { band }), Aggregation::TokenMean)
        }
    }

    /// SAPO (arXiv 2511.20347): the sigmoid gate with temperatures 1 and 1.05; the mean over
    /// completions of their token means.
    pub fn sapo() -> Self {
        let sapo = Surrogate::Sapo(Sapo::default());
        Self::new(sapo, Aggregation::SequenceMeanTokenMean)
    }

    /// GMPO (arXiv 2507.20673): the geometric mean of token ratios, clipped to ±0.4 in log space;
    /// the mean over completions.
    pub fn gmpo() -> Self {
        let gmpo = Surrogate::Gmpo(Gmpo::default());
        Self {
            ratio_level: RatioLevel::Sequence,
            ..Self::new(gmpo, Aggregation::SequenceMeanTokenMean)
        }
    }

    /// VESPO (arXiv 2602.10693) with TRL's settings (k, lambda) = (2, 3) for A >= 0 and (3, 2)
    /// otherwise; token mean.
    pub fn vespo() -> Self {
        Self::new(Surrogate::Vespo(Vespo::default()), Aggregation::TokenMean)
    }

    /// DPPO with total variation (arXiv 2602.04879): tokens may move by 0.15 in probability; ratio
    /// capped at 20 (3 in verl's configuration); token mean.
    pub fn dppo_tv() -> Self {
        Self::dppo(BinaryDivergence::Tv, 0.15)
    }

    /// DPPO with the binary KL divergence (arXiv 2602.04879): tokens may move by 0.05 nats; ratio
    /// capped at 20; token mean.
    pub fn dppo_kl() -> Self {
        Self::dppo(BinaryDivergence::Kl, 0.05)
    }

    fn dppo(divergence: BinaryDivergence, threshold: f64) -> Self {
        let dppo = Dppo {
            divergence,
            low: threshold,
            high: threshold,
            ratio_cap: 20.0,
        };
        Self {
            log_ratio_clamp: Some(LogRatioClamp::symmetric(20.0)),
            ..Self::new(Surrogate::Dppo(dppo), Aggregation::TokenMean)
        }
    }

    /// DRO (arXiv 2405.19107) per token, as in verl; token mean. There is no published default of
    /// `beta`.
    pub fn dro(beta: f64) -> Self {
        Self::new(Surrogate::Dro(Dro { beta }), Aggregation::TokenMean)
    }

    /// Clip-Cov (arXiv 2505.22617): tokens with a covariance between 1 and 5, at most 0.02 % of
    /// all, get no gradient; token mean.
    pub fn clip_cov() -> Self {
        let clip_cov = Surrogate::ClipCov(ClipCov::default());
        Self::new(clip_cov, Aggregation::TokenMean)
    }

    /// KL-Cov (arXiv 2505.22617): the 0.02 % of tokens with the largest covariance get a penalty on
    /// the log-ratio; token mean.
    pub fn kl_cov() -> Self {
        Self::new(Surrogate::KlCov(KlCov::default()), Aggregation::TokenMean)
    }

    /// REINFORCE (Williams, 1992): the plain policy gradient, token mean. On-policy only.
    pub fn reinforce() -> Self {
        let reinforce = Surrogate::Reinforce(Reinforce {});
        Self::new(reinforce, Aggregation::TokenMean)
    }

    /// REINFORCE++ (arXiv 2501.03262): PPO's clip without a critic, token mean; the KL (k1) is part
    /// of the reward, and advantages are whitened over the batch.
    pub fn reinforce_plus_plus() -> Self {
        Self::ppo()
    }

    /// GPG (arXiv 2504.02546): the plain policy gradient with advantages rescaled by the share of
    /// groups that have a signal.
    pub fn gpg() -> Self {
        Self::reinforce()
    }

    /// RLOO (arXiv 2402.14740) as in TRL's `RLOOTrainer`: the ratio of the whole completion,
    /// clipped to 0.2, the mean over completions; with leave-one-out advantages and the KL in the
    /// reward (k1, 0.05). verl's `rloo` is only an estimator: use [`verl`](Self::verl) with
    /// leave-one-out advantages.
    pub fn rloo() -> Self {
        Self {
            ratio_level: RatioLevel::SequenceSum,
            ..Self::clipped(0.2, 0.2, Aggregation::SequenceMeanTokenMean)
        }
    }

    /// PPO-clip with token ratios and nothing else.
    fn clipped(low: f64, high: f64, aggregation: Aggregation) -> Self {
        Self::new(Surrogate::PpoClip(PpoClip::range(low, high)), aggregation)
    }
}
