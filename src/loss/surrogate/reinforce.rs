//! The plain policy gradient: REINFORCE.

use serde::{Deserialize, Serialize};

use super::{RatioUse, SurrogateInput, SurrogateLoss, SurrogateTerm, only};
use crate::Result;
use crate::loss::RatioLevel;

/// REINFORCE (Williams, 1992): `L = -A ln pi(y_t)`; with [`Gpg`](crate::advantage::Gpg) advantages
/// the objective of GPG (arXiv 2504.02546). On-policy only: there is no ratio, so a second pass
/// over the same rollouts is biased unless a [`SamplerCorrection`](crate::loss::SamplerCorrection)
/// with the current policy as numerator weights it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reinforce {}

impl SurrogateLoss for Reinforce {
    fn name(&self) -> &str {
        "reinforce"
    }

    fn validate(&self, level: RatioLevel) -> Result<()> {
        let reason = "it has no ratio";
        only("reinforce", level, &[RatioLevel::Token], reason)
    }

    fn ratio_use(&self) -> RatioUse {
        RatioUse::None
    }

    fn vanishes_without_advantage(&self) -> bool {
        true
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let gain = input.log_probs.clone() * input.advantages.clone();
        Ok(SurrogateTerm::new(gain.neg()))
    }
}
