//! PPO-clip without some tokens of large covariance: Clip-Cov.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::covariance::{Centre, rank_threshold, share};
use super::{StepToken, SurrogateInput, SurrogateLoss, SurrogateTerm, not_negative, only};
use crate::host;
use crate::loss::RatioLevel;
use crate::{Error, Result};

/// Clip-Cov (arXiv 2505.22617, eq. 11): a few of the tokens with a large covariance of log-prob and
/// advantage get no gradient, so that the entropy falls more slowly.
///
/// ```text
/// cov  = (A - mean A)(ln pi - mean ln pi)
/// L    = 0   on at most max(1, floor(ratio N)) tokens with lower < cov < upper
/// L    = max(-r A, -clip(r, 1 - low, 1 + high) A)   on the others
/// ```
///
/// Candidates are tokens that are not clipped already. Means and counts are over the N tokens of
/// the whole step. The paper picks candidates at random; here the choice follows a fixed hash of
/// the token's position, old log-prob and advantage, which is the same for every order and split of
/// the rollouts. The metric `clip` counts the picked tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipCov {
    /// How far the ratio may fall below 1; at least 0. Default 0.2.
    pub low: f64,
    /// How far the ratio may rise above 1; at least 0. Default 0.2.
    pub high: f64,
    /// The largest share of tokens to pick; above 0, at most 1. Default 0.0002.
    pub ratio: f64,
    /// The lower bound on the covariance of candidates. Default 1.
    pub lower: f64,
    /// The upper bound on the covariance of candidates. Default 5.
    pub upper: f64,
}

impl Default for ClipCov {
    fn default() -> Self {
        Self {
            low: 0.2,
            high: 0.2,
            ratio: 2e-4,
            lower: 1.0,
            upper: 5.0,
        }
    }
}

impl SurrogateLoss for ClipCov {
    fn name(&self) -> &str {
        "clip_cov"
    }

    fn validate(&self, level: RatioLevel) -> Result<()> {
        not_negative("clip_cov.low", self.low)?;
        not_negative("clip_cov.high", self.high)?;
        share("clip_cov.ratio", self.ratio)?;
        if !(self.lower.is_finite() && self.upper.is_finite() && self.lower < self.upper) {
            return Err(Error::config(
                "clip_cov.lower",
                self.lower,
                format!("a finite number below clip_cov.upper = {}", self.upper),
            ));
        }
        let reason = "it picks tokens";
        only("clip_cov", level, &[RatioLevel::Token], reason)
    }

    fn gathers(&self) -> bool {
        true
    }

    /// Returns the two means and the threshold on the hash, which lies between the last picked
    /// candidate and the next; infinite if all are picked.
    fn gather(&self, tokens: &[StepToken]) -> Vec<f64> {
        let centre = Centre::of(tokens);
        let is_free = |token: &StepToken| {
            let ratio = (token.log_prob - token.old_log_prob).exp();
            let clipped = ratio.clamp(1.0 - self.low, 1.0 + self.high);
            ratio * token.advantage <= clipped * token.advantage
        };
        let is_candidate = |token: &&StepToken| {
            let covariance = centre.covariance(token);
            self.lower < covariance && covariance < self.upper && is_free(token)
        };
        let mut tickets: Vec<f64> = tokens.iter().filter(is_candidate).map(ticket).collect();
        let picked = ((tokens.len() as f64 * self.ratio) as usize).max(1);
        let threshold = rank_threshold(&mut tickets, picked);
        vec![centre.advantage, centre.log_prob, threshold]
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let [advantage, log_prob, threshold] = input.gathered()?;
        let ratio = input.ratio();
        let advantages = input.advantages.clone();
        let plain = (ratio.clone() * advantages.clone()).neg();
        let clipped = (ratio.clamp(1.0 - self.low, 1.0 + self.high) * advantages.clone()).neg();

        let covariance = (advantages - advantage) * (input.log_probs.clone().inner() - log_prob);
        let between = covariance
            .clone()
            .greater_scalar(self.lower)
            .bool_and(covariance.lower_scalar(self.upper));
        let free = clipped.clone().inner().lower_equal(plain.clone().inner());
        let mut picked = free.bool_and(between);
        if threshold.is_finite() {
            picked = picked.bool_and(self.tickets(input)?.lower_equal_scalar(threshold));
        }
        Ok(SurrogateTerm {
            clipped: Some(picked.clone()),
            ..SurrogateTerm::new(plain.max_pair(clipped).mask_fill(picked, 0.0))
        })
    }
}

impl ClipCov {
    /// Returns the hash of every token, `[B, T]`.
    fn tickets(&self, input: &SurrogateInput) -> Result<Tensor<2>> {
        let shape = input.advantages.dims();
        let old = host::floats(input.old_log_probs.clone(), "old log-probs")?;
        let advantages = host::floats(input.advantages.clone(), "advantages")?;
        let tickets = old.iter().zip(&advantages).enumerate();
        let tickets = tickets.map(|(i, (&old, &advantage))| {
            let token = StepToken {
                log_prob: 0.0,
                old_log_prob: f64::from(old),
                advantage: f64::from(advantage),
                position: i % shape[1],
            };
            ticket(&token) as f32
        });
        let tickets: Vec<f32> = tickets.collect();
        Ok(Tensor::from_data(
            TensorData::new(tickets, shape),
            &input.advantages.device(),
        ))
    }
}

/// Old log-probs are rounded to this grid, since another split of the step rounds them differently.
const GRID: f64 = 1024.0;

/// Returns a pseudo-random number in [0, 1): the hash of the token by the finaliser of SplitMix64.
/// 24 bits, exact as f32.
fn ticket(token: &StepToken) -> f64 {
    let words = [
        token.position as u64,
        (token.old_log_prob * GRID).round() as i64 as u64,
        (token.advantage as f32).to_bits().into(),
    ];
    let hash = words.into_iter().fold(0u64, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    });
    (hash >> 40) as f64 / (1u64 << 24) as f64
}
