//! Metrics of a loss.

use std::collections::BTreeMap;

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::host;

/// How the numbers of two micro-batches are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Join {
    Add,
    Smallest,
    Largest,
}

/// Sums over a micro-batch's tokens, still on the device; [`read`](Self::read) fetches all of them
/// at once.
#[derive(Clone, Debug)]
pub struct LossSums {
    names: Vec<(String, Join)>,
    values: Vec<Tensor<1>>,
    mask: Tensor<2>,
    lengths: Tensor<2>,
}

impl LossSums {
    pub(super) fn new(mask: &Tensor<2>) -> Self {
        let mask = mask.clone().inner();
        let lengths = mask.clone().sum_dim(1);
        let mut sums = Self {
            names: Vec::new(),
            values: Vec::new(),
            mask,
            lengths,
        };
        sums.put("tokens", Join::Add, sums.mask.clone().sum());
        let rows = sums.lengths.full_like(1.0).sum();
        sums.put("rows", Join::Add, rows);
        sums
    }

    fn put(&mut self, name: impl Into<String>, join: Join, value: Tensor<1>) {
        self.names.push((name.into(), join));
        self.values.push(value);
    }

    /// Adds the masked sum of per-token values.
    pub(super) fn add(&mut self, name: &str, values: Tensor<2>) {
        let sum = (values.inner() * self.mask.clone()).sum();
        self.put(name, Join::Add, sum);
    }

    /// Adds the masked sum of per-token values and, as `{name}/rows`, the sum over rows of their
    /// mean over the row's tokens (over all positions for a row without tokens).
    pub(super) fn add_with_rows(&mut self, name: &str, values: Tensor<2>) {
        let values = values.inner();
        let means = self.row_means(&values);
        let empty = self.lengths.clone().equal_scalar(0.0);
        let means = means.mask_where(empty, values.clone().mean_dim(1));
        self.put(format!("{name}/rows"), Join::Add, means.sum());
        self.add(name, values);
    }

    fn row_means(&self, values: &Tensor<2>) -> Tensor<2> {
        (values.clone() * self.mask.clone()).sum_dim(1) / self.lengths.clone().clamp_min(1.0)
    }

    /// Adds the number of marked tokens, the number of rows with a marked token as `{name}/rows`,
    /// and the smallest and largest share of a row's tokens as `{name}/min` and `{name}/max`.
    pub(super) fn count(&mut self, name: &str, marked: Tensor<2, Bool>) {
        let marked = marked.float();
        let shares = self.row_means(&marked);
        let any = shares.clone().greater_scalar(0.0).float().sum();
        self.put(format!("{name}/rows"), Join::Add, any);
        let empty = self.lengths.clone().equal_scalar(0.0);
        let smallest = shares.clone().mask_fill(empty, 1.0).min();
        self.put(format!("{name}/min"), Join::Smallest, smallest);
        self.put(format!("{name}/max"), Join::Largest, shares.max());
        self.add(name, marked);
    }

    /// Adds a scalar.
    pub(super) fn scalar(&mut self, name: &str, value: Tensor<1>) {
        self.put(name, Join::Add, value.inner());
    }

    /// Reads the sums from the device.
    ///
    /// # Errors
    /// Returns an error if reading from the device fails.
    pub fn read(self) -> Result<LossMetrics> {
        let values = host::floats(Tensor::cat(self.values, 0), "loss metrics")?;
        let values = values.into_iter().map(f64::from);
        let sums = self.names.into_iter().zip(values);
        Ok(LossMetrics {
            sums: sums
                .map(|((name, join), value)| (name, (join, value)))
                .collect(),
        })
    }
}

/// Sums over tokens, merged over micro-batches and divided once.
///
/// | name | |
/// |---|---|
/// | `tokens`, `rows` | counts; rows without tokens included |
/// | `entropy`, `kl` | sums, in nats; `kl` as added to the loss, without its coefficient |
/// | `approx_kl`, `ppo_kl` | sums of `e^d - 1 - d` and `-d`, d the log-ratio to the old policy |
/// | `ratio` | sum, at the objective's level |
/// | `clip_low`, `clip_high`, `clip`, `bounded` | counts; see [`SurrogateTerm`](super::SurrogateTerm) |
/// | `selected`, `kept` | counts of tokens that the selection or the off-policy mask keeps |
/// | `sampler_weight` | sum |
/// | `loss`, `policy_loss`, `kl_loss`, `entropy_loss`, `value_loss` | scalars; all but `loss` without their coefficients |
///
/// and the metrics of the surrogate. Each is present only if the objective has such a term. Counts
/// also come as `{name}/rows` (rows with a counted token), `{name}/min` and `{name}/max` (the
/// smallest and largest share of a row's tokens).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossMetrics {
    sums: BTreeMap<String, (Join, f64)>,
}

impl LossMetrics {
    /// Merges the metrics of another micro-batch or step.
    pub fn merge(&mut self, other: &Self) {
        for (name, &(join, value)) in &other.sums {
            let joined = self.sums.entry(name.clone()).or_insert(match join {
                Join::Add => (join, 0.0),
                _ => (join, value),
            });
            joined.1 = match join {
                Join::Add => joined.1 + value,
                Join::Smallest => joined.1.min(value),
                Join::Largest => joined.1.max(value),
            };
        }
    }

    /// Returns the numbers as a message to other learners, as bits because JSON has no NaN.
    pub(crate) fn to_message(&self) -> Vec<(String, Join, u64)> {
        let all = self.sums.iter();
        all.map(|(name, &(join, value))| (name.clone(), join, value.to_bits()))
            .collect()
    }

    /// Reads the result of [`to_message`](Self::to_message).
    pub(crate) fn from_message(message: Vec<(String, Join, u64)>) -> Self {
        let all = message.into_iter();
        Self {
            sums: all
                .map(|(name, join, bits)| (name, (join, f64::from_bits(bits))))
                .collect(),
        }
    }

    /// Returns the number called `name`: a sum, minimum or maximum.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sums.get(name).map(|&(_, value)| value)
    }

    /// Returns the mean of `name` over tokens; `None` without tokens.
    pub fn mean(&self, name: &str) -> Option<f64> {
        self.over(name, "tokens")
    }

    /// Returns the mean of `{name}/rows` over rows, empty ones included; `None` without rows.
    pub fn row_mean(&self, name: &str) -> Option<f64> {
        self.over(&format!("{name}/rows"), "rows")
    }

    fn over(&self, name: &str, count: &str) -> Option<f64> {
        let count = self.sum(count).filter(|&count| count > 0.0)?;
        Some(self.sum(name)? / count)
    }
}
