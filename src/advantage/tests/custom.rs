//! Custom estimators as part of a configuration.

use super::*;

/// Overrides every default of the trait.
#[derive(Debug)]
struct Odd {
    scale: f64,
}

impl AdvantageEstimator for Odd {
    fn name(&self) -> &str {
        "odd"
    }

    fn estimate(&self, input: &AdvantageInput) -> crate::Result<Advantages> {
        Advantages::per_rollout(input, |scores, _| Ok(vec![self.scale; scores.len()]))
    }

    fn needs_values(&self) -> bool {
        true
    }

    fn needs_groups(&self) -> bool {
        true
    }

    fn needs_components(&self) -> bool {
        true
    }

    fn needs_baselines(&self) -> bool {
        true
    }

    fn needs_probabilities(&self) -> bool {
        true
    }

    fn needs_ref_log_probs(&self) -> bool {
        true
    }

    fn validate(&self) -> crate::Result<()> {
        match self.scale > 0.0 {
            true => Ok(()),
            false => Err(crate::Error::config("odd.scale", self.scale, "above 0")),
        }
    }
}

#[test]
fn estimator_delegates_every_method_to_a_custom_estimator() {
    let estimator = Estimator::custom(Odd { scale: 2.0 });
    assert_eq!(estimator.name(), "odd");
    assert_eq!(estimator.fingerprint(), "Odd { scale: 2.0 }");
    assert!(estimator.needs_values() && estimator.needs_groups());
    assert!(estimator.needs_components() && estimator.needs_baselines());
    assert!(estimator.needs_probabilities() && estimator.needs_ref_log_probs());
    assert!(estimator.validate().is_ok());
    assert!(Estimator::custom(Odd { scale: 0.0 }).validate().is_err());
    let input = AdvantageInput::new(&[Some(1.0)], &[0], &[2]);
    let got = estimator.estimate(&input).unwrap();
    assert_eq!(got.per_token, [vec![2.0, 2.0]]);
}

#[test]
fn a_custom_estimator_read_from_a_file_is_equal_but_invalid() {
    let estimator = Estimator::custom(Odd { scale: 2.0 });
    let text = serde_json::to_string(&estimator).unwrap();
    let read: Estimator = serde_json::from_str(&text).unwrap();
    assert_eq!(read, estimator);
    assert_ne!(read, Estimator::custom(Odd { scale: 3.0 }));
    assert_ne!(read, Estimator::default());
    let message = read.validate().unwrap_err().to_string();
    assert!(
        message.contains("odd") && message.contains("Estimator::custom"),
        "{message}"
    );
    let input = AdvantageInput::new(&[], &[], &[]);
    assert!(read.estimate(&input).is_err());
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    let misspelt = text.replace("fingerprint", "fingreprint");
    assert!(serde_json::from_str::<Estimator>(&misspelt).is_err());
}
