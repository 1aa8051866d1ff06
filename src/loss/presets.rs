//! Papers as presets.

use super::{Aggregation, KlEstimator, KlPenalty, PolicyObjective, PpoClip, RatioLevel, Surrogate};

impl PolicyObjective {
    /// GRPO as in DeepSeekMath (arXiv 2402.03300, eq. 3): token ratios, k3 in the loss with beta = 0.04, the mean
    /// of each completion first, then of the completions. The paper does not state its clip range; 0.2 is
    /// PPO's. With [`Group`](crate::advantage::Group) advantages.
    pub fn grpo() -> Self {
        Self::clipped(0.2, 0.2, Aggregation::SequenceMeanTokenMean).with_kl(Some(KlPenalty {
            coef: 0.04,
            estimator: KlEstimator::K3,
        }))
    }

    /// DeepSeek-R1's second stage (arXiv 2501.12948, B.4.1): clip range 10, k3 with beta = 0.001, the reference
    /// replaced every 400 updates ([`ReferenceSync`](crate::policy::ReferenceSync)).
    ///
    /// The paper writes its ratio over whole outputs and speaks of clipped tokens; here it is the token
    /// ratio and per-completion mean of [`grpo`](Self::grpo), whose settings it continues. With a range of 10 the
    /// lower bound never binds and the upper one only beyond a ratio of 11.
    pub fn deepseek_r1() -> Self {
        Self::clipped(10.0, 10.0, Aggregation::SequenceMeanTokenMean).with_kl(Some(KlPenalty {
            coef: 0.001,
            estimator: KlEstimator::K3,
        }))
    }

    /// Dr. GRPO (arXiv 2503.20783): no KL, and a constant denominator so that length does not change a token's
    /// weight. `max_new_tokens` is the completion limit. With [`GroupMean`](crate::advantage::GroupMean)
    /// advantages.
    pub fn dr_grpo(max_new_tokens: usize) -> Self {
        Self::clipped(
            0.2,
            0.2,
            Aggregation::Constant {
                length: max_new_tokens,
            },
        )
    }

    /// DAPO (arXiv 2503.14476, eq. 8): clip-higher (0.2, 0.28), token mean, no KL. Its dynamic sampling and
    /// overlong shaping are not part of the loss. With [`Group`](crate::advantage::Group) advantages.
    pub fn dapo() -> Self {
        Self::clipped(0.2, 0.28, Aggregation::TokenMean)
    }

    /// PPO (arXiv 1707.06347, eq. 7) with a clip range of 0.2 and the token mean. With
    /// [`Gae`](crate::advantage::Gae) advantages and a [`value_loss`](crate::loss::value_loss); a KL term, if any, usually
    /// goes into the reward.
    pub fn ppo() -> Self {
        Self::clipped(0.2, 0.2, Aggregation::TokenMean)
    }

    /// The clipped surrogate at token level, with nothing added.
    fn clipped(low: f64, high: f64, aggregation: Aggregation) -> Self {
        Self {
            surrogate: Surrogate::PpoClip(PpoClip::range(low, high)),
            ratio_level: RatioLevel::Token,
            aggregation,
            kl: None,
            entropy_coef: 0.0,
        }
    }
}
