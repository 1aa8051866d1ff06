//! The plain policy gradient.

use serde::{Deserialize, Serialize};

use super::{SurrogateInput, SurrogateTerm};
use crate::loss::RatioLevel;
use crate::{Error, Result};

/// REINFORCE (Williams, 1992): `L = -A ln pi(y_t)`. On-policy only: there is no ratio, so old log-probs are
/// not read and a second pass over the same rollouts is biased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reinforce {}

impl Reinforce {
    pub(super) fn validate(&self, level: RatioLevel) -> Result<()> {
        match level {
            RatioLevel::Token => Ok(()),
            RatioLevel::Sequence => Err(Error::config(
                "ratio_level",
                "sequence",
                "token (the default) with the reinforce surrogate, which has no ratio",
            )),
        }
    }

    pub(super) fn term(&self, input: &SurrogateInput) -> SurrogateTerm {
        SurrogateTerm {
            loss: (input.log_probs.clone() * input.advantages.clone()).neg(),
            clipped_low: None,
            clipped_high: None,
        }
    }
}
