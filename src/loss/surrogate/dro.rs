//! The policy gradient with a squared log-ratio penalty: DRO.

use serde::{Deserialize, Serialize};

use super::{RatioUse, SurrogateInput, SurrogateLoss, SurrogateTerm, only, positive};
use crate::Result;
use crate::loss::RatioLevel;

/// DRO (arXiv 2405.19107; per token as in verl): off-policy, with a penalty instead of a ratio.
///
/// ```text
/// L = -(A ln pi(y_t) - beta / 2 * d_t^2)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dro {
    /// The weight of the penalty, above 0; no default is published.
    pub beta: f64,
}

impl SurrogateLoss for Dro {
    fn name(&self) -> &str {
        "dro"
    }

    fn validate(&self, level: RatioLevel) -> Result<()> {
        positive("dro.beta", self.beta)?;
        let reason = "it has no ratio, and its penalty is on the log-ratio of each token";
        only("dro", level, &[RatioLevel::Token], reason)
    }

    fn ratio_use(&self) -> RatioUse {
        RatioUse::None
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let gain = input.log_probs.clone() * input.advantages.clone();
        let penalty = input
            .difference
            .clone()
            .square()
            .mul_scalar(0.5 * self.beta);
        Ok(SurrogateTerm::new(penalty - gain))
    }
}
