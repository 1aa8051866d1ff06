//! What a loss has to say besides its value.

use std::collections::BTreeMap;

use burn::tensor::{Bool, Tensor};

use crate::Result;
use crate::host;

/// Sums over a micro-batch's tokens, still on the device: one read gets them all.
#[derive(Clone, Debug)]
pub struct LossSums {
    names: Vec<&'static str>,
    sums: Vec<Tensor<1>>,
}

impl LossSums {
    pub(super) fn new(mask: &Tensor<2>) -> Self {
        Self {
            names: vec!["tokens"],
            sums: vec![mask.clone().inner().sum()],
        }
    }

    /// Adds the masked sum of per-token values.
    pub(super) fn add(&mut self, name: &'static str, values: Tensor<2>, mask: &Tensor<2>) {
        self.names.push(name);
        self.sums
            .push((values.inner() * mask.clone().inner()).sum());
    }

    /// Adds the number of unmasked tokens that are marked.
    pub(super) fn count(&mut self, name: &'static str, marked: Tensor<2, Bool>, mask: &Tensor<2>) {
        self.add(name, marked.float(), mask);
    }

    /// Adds a scalar.
    pub(super) fn scalar(&mut self, name: &'static str, value: Tensor<1>) {
        self.names.push(name);
        self.sums.push(value.inner());
    }

    /// Reads the sums from the device.
    ///
    /// # Errors
    /// If the device cannot give them back.
    pub fn read(self) -> Result<LossMetrics> {
        let values = host::floats(Tensor::cat(self.sums, 0), "loss metrics")?;
        Ok(LossMetrics {
            sums: self
                .names
                .into_iter()
                .zip(values.into_iter().map(f64::from))
                .collect(),
        })
    }
}

/// Sums over tokens, to be added up over micro-batches and divided once.
///
/// `tokens`; sums of `entropy`, `kl` (against the reference, in the objective's estimator), `approx_kl` (`e^d - 1 - d` of the log-ratio d to the
/// old policy), `ratio`; counts `clip_low`, `clip_high`; scalars `loss`, `policy_loss`, `kl_loss`, `entropy_loss`, `value_loss`,
/// each only where the objective has such a term.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossMetrics {
    sums: BTreeMap<&'static str, f64>,
}

impl LossMetrics {
    /// Adds those of another micro-batch, or another step.
    pub fn merge(&mut self, other: &Self) {
        for (name, sum) in &other.sums {
            *self.sums.entry(name).or_default() += sum;
        }
    }

    /// The sum called `name`.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sums.get(name).copied()
    }

    /// The mean over tokens of what is called `name`; none without tokens.
    pub fn mean(&self, name: &str) -> Option<f64> {
        let tokens = self.sum("tokens").filter(|&tokens| tokens > 0.0)?;
        Some(self.sum(name)? / tokens)
    }
}
