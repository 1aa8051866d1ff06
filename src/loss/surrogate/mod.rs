//! The term that is minimised at each token. A new one is one file here and one line in the list of [`Surrogate`]; a custom one is
//! an implementation of [`SurrogateLoss`], given as [`Surrogate::custom`].

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

/// What a surrogate sees; every tensor `[B, T]` and zero at padding (the log-ratio of a whole completion is repeated at its padding too).
#[derive(Clone, Debug)]
pub struct SurrogateInput {
    /// `ln pi(y_t)`, carries the gradient.
    pub log_probs: Tensor<2>,
    /// `ln pi_old(y_t)`, constant.
    pub old_log_probs: Tensor<2>,
    /// `d_t = ln pi(y_t) - ln pi_old(y_t)`, carries the gradient.
    pub difference: Tensor<2>,
    /// `ln r_t` at the objective's [`RatioLevel`], clamped as the objective says; carries the gradient.
    pub log_ratio: Tensor<2>,
    /// `ln pi_ref(y_t)` of the reference or a teacher, constant; `None` if there is neither.
    pub ref_log_probs: Option<Tensor<2>>,
    /// `A_t`, constant.
    pub advantages: Tensor<2>,
    /// 1 at tokens that are trained on, constant.
    pub mask: Tensor<2>,
    /// The sampler's importance weights, constant; only for a surrogate that [takes](SurrogateLoss::takes_sampler_weights) them.
    pub sampler_weights: Option<Tensor<2>>,
    /// What [`SurrogateLoss::gather`] said about the step; present for a surrogate that [gathers](SurrogateLoss::gathers).
    pub gathered: Option<Vec<f64>>,
}

impl SurrogateInput {
    /// `r = exp(ln r)`.
    pub fn ratio(&self) -> Tensor<2> {
        self.log_ratio.clone().exp()
    }

    /// What was gathered over the step: exactly `N` numbers.
    ///
    /// # Errors
    /// If there are none, or another number of them.
    pub fn gathered<const N: usize>(&self) -> Result<[f64; N]> {
        let gathered = self.gathered.as_deref().unwrap_or_default();
        gathered.try_into().map_err(|_| {
            Error::config(
                "statistics.surrogate",
                format!("{} numbers", gathered.len()),
                format!("the {N} that PolicyObjective::statistics gathers over the whole step"),
            )
        })
    }
}

/// What a surrogate gives.
#[derive(Clone, Debug)]
pub struct SurrogateTerm {
    /// The loss of every token, to be minimised, `[B, T]`. A loss of the whole completion is repeated at each of its tokens.
    pub loss: Tensor<2>,
    /// Tokens held back from falling further (A < 0), if the surrogate clips.
    pub clipped_low: Option<Tensor<2, Bool>>,
    /// Tokens held back from rising further (A > 0), if the surrogate clips.
    pub clipped_high: Option<Tensor<2, Bool>>,
    /// Tokens on which the surrogate's restraint acts, whichever way. `None`: those of the two above.
    pub clipped: Option<Tensor<2, Bool>>,
    /// Tokens whose loss a second bound holds: dual clip, a cap on the ratio.
    pub bounded: Option<Tensor<2, Bool>>,
    /// Anything else worth a metric, by name; off the gradient tape.
    pub measured: Vec<(&'static str, Tensor<2>)>,
}

impl SurrogateTerm {
    /// A loss with nothing to report.
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
    /// It makes its own from [`SurrogateInput::difference`].
    Own,
}

/// One token of a step, as [`SurrogateLoss::gather`] sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepToken {
    /// `ln pi(y_t)`.
    pub log_prob: f64,
    /// `ln pi_old(y_t)`.
    pub old_log_prob: f64,
    /// `A_t`.
    pub advantage: f64,
    /// Its place in the completion.
    pub position: usize,
}

/// A surrogate: what is minimised at each token.
///
/// # The contract
///
/// - Its gradient runs through `log_probs`, `difference` and `log_ratio`; everything else is constant. What the method treats as a
///   constant is taken off the tape with `inner()`.
/// - The loss of a row depends on nothing but that row and what was gathered: so a step can be split into any micro-batches.
/// - Padding is zero in every input and its loss is never read, but it must be finite.
///
/// `examples/surrogate.rs` trains with one that is not in this crate.
///
/// ```
/// use rlvr::Result;
/// use rlvr::loss::{PolicyObjective, Surrogate, SurrogateInput, SurrogateLoss, SurrogateTerm};
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
///         Ok(SurrogateTerm::new((input.ratio() * input.advantages.clone()).neg()))
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
    /// The name by which errors and metrics call it.
    fn name(&self) -> &str;

    /// Rejects settings that make no sense by themselves or with the ratio level. Default: nothing is refused.
    ///
    /// # Errors
    /// [`Error::Config`] naming both parts.
    fn validate(&self, level: RatioLevel) -> Result<()> {
        let _ = level;
        Ok(())
    }

    /// How it uses the ratio. Default: [`RatioUse::Objective`].
    fn ratio_use(&self) -> RatioUse {
        RatioUse::Objective
    }

    /// Whether each token has a loss of its own, so that tokens can be selected. Default true.
    fn is_per_token(&self) -> bool {
        true
    }

    /// Whether its term has no gradient where the advantage is 0, so that such completions need not be computed. Default false: it is
    /// the safe answer.
    fn vanishes_without_advantage(&self) -> bool {
        false
    }

    /// Whether it uses the sampler's weights inside its term; otherwise its term is multiplied by them. Default false.
    fn takes_sampler_weights(&self) -> bool {
        false
    }

    /// Rejects weights of the sampler at this level. Default: none is refused.
    ///
    /// # Errors
    /// [`Error::Config`] naming the surrogate.
    fn validate_sampler_weights(&self, level: WeightLevel) -> Result<()> {
        let _ = level;
        Ok(())
    }

    /// Whether it compares tokens with the others of the step. Default false.
    fn gathers(&self) -> bool {
        false
    }

    /// What it has to know about the whole step, from all of its tokens in any order. Called only if it [`gathers`](Self::gathers).
    fn gather(&self, tokens: &[StepToken]) -> Vec<f64> {
        let _ = tokens;
        Vec::new()
    }

    /// The surrogate and its settings, by which a checkpoint tells whether it belongs to a run. Default: as `Debug` writes it.
    fn fingerprint(&self) -> String {
        format!("{self:?}")
    }

    /// The term of every token.
    ///
    /// # Errors
    /// If something it needs was not given.
    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm>;
}

/// Writes the enum of all surrogates.
macro_rules! surrogates {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The surrogate of an objective: one of those in this crate, or a custom one.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Surrogate {
            $($(#[$doc])* $name($name),)+
            /// A custom surrogate.
            ///
            /// A file has its name and fingerprint only. What is read from such a file can be compared with the surrogate itself, and
            /// is refused by [`PolicyObjective::validate`](super::PolicyObjective::validate).
            #[serde(with = "custom")]
            Custom(Arc<dyn SurrogateLoss>),
        }

        $(impl From<$name> for Surrogate {
            fn from(surrogate: $name) -> Self {
                Self::$name(surrogate)
            }
        })+

        impl Surrogate {
            /// A custom surrogate.
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
    /// The clipped ratio of PPO, GRPO and most of their relatives.
    PpoClip,
    /// The plain policy gradient; GPG's objective.
    Reinforce,
    /// The policy gradient under a clipped, constant ratio.
    Cispo,
    /// A sigmoid gate around the ratio instead of a clip.
    Sapo,
    /// The geometric mean of clipped token ratios.
    Gmpo,
    /// A smooth, constant weight of the whole completion's ratio.
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
    /// The bounds `low` and `high` of a surrogate that has them.
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

/// Rejects every level but those given, because of `reason`.
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
