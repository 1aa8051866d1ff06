//! A sigmoid gate on the ratio: SAPO.

use burn::tensor::activation::sigmoid;
use serde::{Deserialize, Serialize};

use super::{SurrogateInput, SurrogateLoss, SurrogateTerm, positive};
use crate::Result;
use crate::loss::RatioLevel;

/// SAPO (arXiv 2511.20347): a sigmoid gate on the ratio instead of a clip, so that the gradient
/// decreases smoothly.
///
/// ```text
/// L = -(4 / tau) sigmoid(tau (r - 1)) A,   tau = tau_pos if A > 0, else tau_neg
/// ```
///
/// At `r = 1` its gradient is that of `-r A`; a larger temperature decreases faster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sapo {
    /// The temperature where A > 0; above 0. Default 1.
    pub tau_pos: f64,
    /// The temperature elsewhere; above 0. Default 1.05, so that tokens that become less likely are
    /// damped slightly earlier.
    pub tau_neg: f64,
}

impl Default for Sapo {
    fn default() -> Self {
        Self {
            tau_pos: 1.0,
            tau_neg: 1.05,
        }
    }
}

impl SurrogateLoss for Sapo {
    fn name(&self) -> &str {
        "sapo"
    }

    fn validate(&self, _level: RatioLevel) -> Result<()> {
        positive("sapo.tau_pos", self.tau_pos)?;
        positive("sapo.tau_neg", self.tau_neg)
    }

    fn vanishes_without_advantage(&self) -> bool {
        true
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let up = input.advantages.clone().greater_scalar(0.0);
        let tau = input
            .advantages
            .full_like(self.tau_neg)
            .mask_fill(up, self.tau_pos);
        let gate = sigmoid(tau.clone() * (input.ratio() - 1.0)) * tau.recip().mul_scalar(4.0);
        Ok(SurrogateTerm::new((gate * input.advantages.clone()).neg()))
    }
}
