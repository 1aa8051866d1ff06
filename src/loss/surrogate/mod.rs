//! Surrogates: the term that is minimised at each token. A custom one implements [`SurrogateLoss`]
//! and is passed to [`Surrogate::custom`]; one of this crate is a file here and a line in the list
//! of [`Surrogate`].

mod cispo;
mod clip_cov;
mod covariance;
mod custom;
mod dppo;
mod dro;
mod gmpo;
mod kl_cov;
mod ppo_clip;
mod reinforce;
mod sapo;
mod vespo;

use std::fmt;
use std::sync::Arc;

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

pub use cispo::{Cispo, CispoBand};
pub use clip_cov::ClipCov;
pub use dppo::{BinaryDivergence, Dppo};
pub use dro::Dro;
pub use gmpo::Gmpo;
pub use kl_cov::KlCov;
pub use ppo_clip::PpoClip;
pub use reinforce::Reinforce;
pub use sapo::Sapo;
pub use vespo::Vespo;

use super::{RatioLevel, WeightLevel};
use crate::{Error, Result};

/// The input of a surrogate. Every tensor is `[B, T]` and zero at padding (except that the
/// log-ratio of a whole completion is repeated at its padding too).
#[derive(Clone, Debug)]
pub struct SurrogateInput {
    /// `ln pi(y_t)`, in nats; carries the gradient.
    pub log_probs: Tensor<2>,
    /// `ln pi_old(y_t)`; detached.
    pub old_log_probs: Tensor<2>,
    /// `d_t = ln pi(y_t) - ln pi_old(y_t)`; carries the gradient.
    pub difference: Tensor<2>,
    /// `ln r_t` at the objective's [`RatioLevel`], clamped to the objective's bounds; carries the
    /// gradient.
    pub log_ratio: Tensor<2>,
    /// `ln pi_ref(y_t)` of the reference policy or a teacher; detached. `None` if there is neither.
    pub ref_log_probs: Option<Tensor<2>>,
    /// `A_t`; detached.
    pub advantages: Tensor<2>,
    /// 1 at trained tokens, 0 elsewhere; detached.
    pub mask: Tensor<2>,
    /// The importance weights of the sampler correction; detached. Only for a surrogate that
    /// [takes](SurrogateLoss::takes_sampler_weights) them.
    pub sampler_weights: Option<Tensor<2>>,
    /// The result of [`SurrogateLoss::gather`] for the step, if the surrogate
    /// [gathers](SurrogateLoss::gathers).
    pub gathered: Option<Vec<f64>>,
}

impl SurrogateInput {
    /// Returns the ratio `r = exp(ln r)`, `[B, T]`.
    pub fn ratio(&self) -> Tensor<2> {
        self.log_ratio.clone().exp()
    }

    /// Returns the numbers gathered over the step, exactly `N` of them.
    ///
    /// # Errors
    /// [`Error::Config`] if there are none or another number of them.
    pub fn gathered<const N: usize>(&self) -> Result<[f64; N]> {
        let gathered = self.gathered.as_deref().unwrap_or_default();
        gathered.try_into().map_err(|_| {
            Error::config(
                "statistics.surrogate",
                format!("{} numbers", gathered.len()),
                format!(
                    "the {N} numbers that PolicyObjective::statistics computes over the whole step"
                ),
            )
        })
    }
}

/// The output of a surrogate.
#[derive(Clone, Debug)]
pub struct SurrogateTerm {
    /// The loss of every token, to be minimised, `[B, T]`. A loss of the whole completion is
    /// repeated at each of its tokens.
    pub loss: Tensor<2>,
    /// Tokens with A < 0 that are clipped at the lower bound, if the surrogate clips.
    pub clipped_low: Option<Tensor<2, Bool>>,
    /// Tokens with A > 0 that are clipped at the upper bound, if the surrogate clips.
    pub clipped_high: Option<Tensor<2, Bool>>,
    /// Tokens that are clipped on either side. `None`: the union of the two above.
    pub clipped: Option<Tensor<2, Bool>>,
    /// Tokens whose loss is limited by a second bound, such as dual clip or a cap on the ratio.
    pub bounded: Option<Tensor<2, Bool>>,
    /// Further per-token metrics by name; detached.
    pub measured: Vec<(&'static str, Tensor<2>)>,
}

impl SurrogateTerm {
    /// Creates a term without metrics.
    pub fn new(loss: Tensor<2>) -> Self {
        Self {
            loss,
            clipped_low: None,
            clipped_high: None,
            clipped: None,
            bounded: None,
            measured: Vec::new(),
        }
    }
}

/// How a surrogate uses the importance ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatioUse {
    /// Not at all.
    None,
    /// As the objective computes it: [`SurrogateInput::log_ratio`].
    Objective,
    /// Its own, computed from [`SurrogateInput::difference`].
    Own,
}

/// One token of a step, the input of [`SurrogateLoss::gather`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepToken {
    /// `ln pi(y_t)`, in nats.
    pub log_prob: f64,
    /// `ln pi_old(y_t)`, in nats.
    pub old_log_prob: f64,
    /// `A_t`.
    pub advantage: f64,
    /// Its position in the completion.
    pub position: usize,
}

/// A surrogate: the term that is minimised at each token.
///
/// # The contract
///
/// - The gradient flows through `log_probs`, `difference` and `log_ratio`; all other inputs are
///   detached. Detach whatever else the method treats as constant with `inner()`.
/// - The loss of a row depends only on that row and on the gathered numbers, so a step can be split
///   into any micro-batches.
/// - Padding is zero in every input; its loss is ignored but must be finite.
///
/// `examples/surrogate.rs` trains with a custom surrogate.
///
/// ```
/// use rlvr::Result;
/// use rlvr::loss::{
///     PolicyObjective, Surrogate, SurrogateInput, SurrogateLoss, SurrogateTerm,
/// };
///
/// /// The unclipped importance-weighted policy gradient: `L = -r A`.
/// #[derive(Debug)]
/// struct Unclipped;
///
/// impl SurrogateLoss for Unclipped {
///     fn name(&self) -> &str {
///         "unclipped"
///     }
///     fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
///         Ok(SurrogateTerm::new(
///             (input.ratio() * input.advantages.clone()).neg(),
///         ))
///     }
/// }
///
/// let objective = PolicyObjective {
///     surrogate: Surrogate::custom(Unclipped),
///     ..PolicyObjective::dapo()
/// };
/// assert!(objective.validate().is_ok());
/// ```
pub trait SurrogateLoss: fmt::Debug + Send + Sync {
    /// Returns the name in errors and metrics.
    fn name(&self) -> &str;

    /// Rejects invalid settings, and ratio levels that the surrogate does not support. Default:
    /// accepts all.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    fn validate(&self, level: RatioLevel) -> Result<()> {
        let _ = level;
        Ok(())
    }

    /// Returns how the surrogate uses the ratio. Default: [`RatioUse::Objective`].
    fn ratio_use(&self) -> RatioUse {
        RatioUse::Objective
    }

    /// Returns whether each token has a separate loss, so that tokens can be selected. Default
    /// true.
    fn is_per_token(&self) -> bool {
        true
    }

    /// Returns whether the term has no gradient where the advantage is 0, so that such completions
    /// can be skipped. Default false, which is always safe.
    fn vanishes_without_advantage(&self) -> bool {
        false
    }

    /// Returns whether the surrogate uses the sampler weights inside its term; otherwise the term
    /// is multiplied by them. Default false.
    fn takes_sampler_weights(&self) -> bool {
        false
    }

    /// Rejects sampler weights of an unsupported level. Default: accepts all.
    ///
    /// # Errors
    /// [`Error::Config`] naming the surrogate.
    fn validate_sampler_weights(&self, level: WeightLevel) -> Result<()> {
        let _ = level;
        Ok(())
    }

    /// Returns whether the surrogate needs [`gather`](Self::gather) over the whole step. Default
    /// false.
    fn gathers(&self) -> bool {
        false
    }

    /// Computes the numbers that the surrogate needs of the whole step, from all of its tokens in
    /// any order. Called only if it [`gathers`](Self::gathers).
    fn gather(&self, tokens: &[StepToken]) -> Vec<f64> {
        let _ = tokens;
        Vec::new()
    }

    /// Returns the surrogate and its settings as text, by which a checkpoint detects that a run has
    /// changed. Default: the `Debug` output.
    fn fingerprint(&self) -> String {
        format!("{self:?}")
    }

    /// Computes the term of every token.
    ///
    /// # Errors
    /// Returns an error if a required input is missing.
    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm>;
}

/// Defines the enum of all surrogates, which delegates to its variants.
macro_rules! surrogates {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The surrogate of an objective: one of this crate, or a custom one.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Surrogate {
            $($(#[$doc])* $name($name),)+
            /// A custom surrogate.
            ///
            /// A file stores only its name and fingerprint. A surrogate read from such a file
            /// compares equal to the original, but
            /// [`PolicyObjective::validate`](super::PolicyObjective::validate) returns an error.
            #[serde(with = "custom")]
            Custom(Arc<dyn SurrogateLoss>),
        }

        $(impl From<$name> for Surrogate {
            fn from(surrogate: $name) -> Self {
                Self::$name(surrogate)
            }
        })+

        impl Surrogate {
            /// Wraps a custom surrogate.
            pub fn custom(surrogate: impl SurrogateLoss + 'static) -> Self {
                Self::Custom(Arc::new(surrogate))
            }

            fn inner(&self) -> &dyn SurrogateLoss {
                match self {
                    $(Self::$name(surrogate) => surrogate,)+
                    Self::Custom(surrogate) => surrogate.as_ref(),
                }
            }
        }
    };
}

// One line per surrogate.
surrogates! {
    /// The clipped ratio of PPO, GRPO and most of their variants.
    PpoClip,
    /// The plain policy gradient; GPG's objective.
    Reinforce,
    /// The policy gradient weighted by a clipped, detached ratio.
    Cispo,
    /// A sigmoid gate on the ratio instead of a clip.
    Sapo,
    /// The geometric mean of clipped token ratios.
    Gmpo,
    /// The policy gradient weighted by a smooth, detached function of the completion's ratio.
    Vespo,
    /// A trust region on the probability of each token.
    Dppo,
    /// The policy gradient with a squared log-ratio penalty.
    Dro,
    /// PPO-clip without the tokens of large covariance.
    ClipCov,
    /// The unclipped ratio with a penalty on the tokens of largest covariance.
    KlCov,
}

impl Surrogate {
    /// Returns the bounds `low` and `high` of a surrogate that has them.
    pub(crate) fn clip_range(&mut self) -> Option<(&mut f64, &mut f64)> {
        match self {
            Self::PpoClip(PpoClip { low, high, .. })
            | Self::Gmpo(Gmpo { low, high })
            | Self::Dppo(Dppo { low, high, .. })
            | Self::ClipCov(ClipCov { low, high, .. })
            | Self::Cispo(Cispo {
                band: CispoBand::AroundOne { low, high },
            }) => Some((low, high)),
            _ => None,
        }
    }
}

impl SurrogateLoss for Surrogate {
    fn name(&self) -> &str {
        self.inner().name()
    }
    fn validate(&self, level: RatioLevel) -> Result<()> {
        self.inner().validate(level)
    }
    fn ratio_use(&self) -> RatioUse {
        self.inner().ratio_use()
    }
    fn is_per_token(&self) -> bool {
        self.inner().is_per_token()
    }
    fn vanishes_without_advantage(&self) -> bool {
        self.inner().vanishes_without_advantage()
    }
    fn takes_sampler_weights(&self) -> bool {
        self.inner().takes_sampler_weights()
    }
    fn validate_sampler_weights(&self, level: WeightLevel) -> Result<()> {
        self.inner().validate_sampler_weights(level)
    }
    fn gathers(&self) -> bool {
        self.inner().gathers()
    }
    fn gather(&self, tokens: &[StepToken]) -> Vec<f64> {
        self.inner().gather(tokens)
    }
    fn fingerprint(&self) -> String {
        self.inner().fingerprint()
    }
    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        self.inner().term(input)
    }
}

/// Rejects every level except `allowed`, because of `reason`.
fn only(surrogate: &str, level: RatioLevel, allowed: &[RatioLevel], reason: &str) -> Result<()> {
    if allowed.contains(&level) {
        return Ok(());
    }
    let names: Vec<_> = allowed.iter().map(|level| format!("{level:?}")).collect();
    Err(Error::config(
        "ratio_level",
        format!("{level:?}"),
        format!(
            "{} with the {surrogate} surrogate: {reason}",
            names.join(" or ")
        ),
    ))
}

/// Rejects a number that is not finite and at least 0.
fn not_negative(field: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::config(field, value, "a finite number of at least 0"))
}

/// Rejects a number that is not finite and above 0.
fn positive(field: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::config(field, value, "a finite number above 0"))
}
