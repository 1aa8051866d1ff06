//! The critic of a trainer.

use burn::module::Module;

use super::config::CriticConfig;
use super::optimizer::Optimizer;
use crate::Result;
use crate::policy::ValueModel;
use crate::types::PerToken;

/// A value model with its optimizer.
#[derive(Debug)]
pub(super) struct Critic<V> {
    /// The value model.
    pub(super) model: V,
    pub(super) optimizer: Optimizer,
    pub(super) config: CriticConfig,
}

impl<V: ValueModel + Module> Critic<V> {
    /// Creates an untrained critic.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid.
    pub(super) fn new(model: V, config: CriticConfig) -> Result<Self> {
        config.value_loss.validate()?;
        Ok(Self {
            model,
            optimizer: Optimizer::new(config.optimizer)?,
            config,
        })
    }
}

/// Returns `1 - var(R - V) / var(R)`: 1 for a perfect critic, 0 for a constant one, below 0 for a
/// harmful one. `None` if the returns do not vary.
pub(super) fn explained_variance(values: &PerToken, returns: &PerToken) -> Option<f64> {
    let returns: Vec<f64> = returns.values().collect();
    let errors: Vec<f64> = values.values().zip(&returns).map(|(v, r)| r - v).collect();
    let total = variance(&returns);
    (total > 0.0).then(|| 1.0 - variance(&errors) / total)
}

fn variance(numbers: &[f64]) -> f64 {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explained_variance_of_known_critics() {
        let returns = PerToken::from(vec![vec![0.0, 1.0], vec![2.0, 3.0]]);
        assert_eq!(explained_variance(&returns, &returns), Some(1.0));
        let mean = PerToken::filled(&[2, 2], 1.5);
        assert_eq!(explained_variance(&mean, &returns), Some(0.0));
        assert_eq!(explained_variance(&mean, &mean), None);
    }
}
