//! A penalty on the tokens of largest covariance: KL-Cov.

use serde::{Deserialize, Serialize};

use super::covariance::{Centre, rank_threshold, share};
use super::{StepToken, SurrogateInput, SurrogateLoss, SurrogateTerm, only, positive};
use crate::Result;
use crate::loss::RatioLevel;

/// KL-Cov (arXiv 2505.22617, eq. 13): the few tokens with the largest covariance of log-prob and
/// advantage drive the entropy down; these get a penalty on the log-ratio, and the others are not
/// clipped.
///
/// ```text
/// L = -r A + coef |d_t|   on the max(1, floor(ratio N)) tokens
///                         of largest (A - mean A)(ln pi - mean ln pi)
/// L = -r A                on the others
/// ```
///
/// Means and ranks are over the N tokens of the whole step. The metric `clip` counts the chosen
/// tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KlCov {
    /// The share of penalised tokens; above 0, at most 1. Default 0.0002.
    pub ratio: f64,
    /// The weight of the penalty, above 0. Default 1 (verl's configuration: 0.1).
    pub coef: f64,
}

impl Default for KlCov {
    fn default() -> Self {
        Self {
            ratio: 2e-4,
            coef: 1.0,
        }
    }
}

impl SurrogateLoss for KlCov {
    fn name(&self) -> &str {
        "kl_cov"
    }

    fn validate(&self, level: RatioLevel) -> Result<()> {
        share("kl_cov.ratio", self.ratio)?;
        positive("kl_cov.coef", self.coef)?;
        let reason = "it ranks tokens";
        only("kl_cov", level, &[RatioLevel::Token], reason)
    }

    fn gathers(&self) -> bool {
        true
    }

    /// Returns the two means and the threshold on the covariance, which lies between the last
    /// chosen token and the next.
    fn gather(&self, tokens: &[StepToken]) -> Vec<f64> {
        let centre = Centre::of(tokens);
        let mut falling: Vec<f64> = tokens
            .iter()
            .map(|token| -centre.covariance(token))
            .collect();
        let chosen = ((tokens.len() as f64 * self.ratio) as usize).max(1);
        let threshold = -rank_threshold(&mut falling, chosen);
        vec![centre.advantage, centre.log_prob, threshold]
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let [advantage, log_prob, threshold] = input.gathered()?;
        let covariance =
            (input.advantages.clone() - advantage) * (input.log_probs.clone().inner() - log_prob);
        let chosen = covariance.greater_equal_scalar(threshold);
        let moved = input.difference.clone().abs();
        let paid = moved.clone().mul_scalar(self.coef) * chosen.clone().float();
        let gain = input.ratio() * input.advantages.clone();
        Ok(SurrogateTerm {
            clipped: Some(chosen),
            measured: vec![("log_ratio_abs", moved.inner())],
            ..SurrogateTerm::new(paid - gain)
        })
    }
}
