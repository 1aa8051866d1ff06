//! Custom surrogates as a part of an objective.

use rlvr::Result;
use rlvr::loss::{
    ClipCov, Dro, KlCov, PolicyObjective, PpoClip, RatioLevel, RatioUse, StepToken, Surrogate,
    SurrogateInput, SurrogateLoss, SurrogateTerm, WeightLevel,
};

/// Differs from every default of the trait.
#[derive(Debug)]
struct Odd {
    scale: f64,
}

fn refused<T>(what: &str) -> Result<T> {
    Err(rlvr::Error::config(what, "odd", "something else"))
}

impl SurrogateLoss for Odd {
    fn name(&self) -> &str {
        "odd"
    }
    fn validate(&self, level: RatioLevel) -> Result<()> {
        match level {
            RatioLevel::Token => Ok(()),
            _ => refused("level"),
        }
    }
    fn ratio_use(&self) -> RatioUse {
        RatioUse::Own
    }
    fn is_per_token(&self) -> bool {
        false
    }
    fn vanishes_without_advantage(&self) -> bool {
        true
    }
    fn takes_sampler_weights(&self) -> bool {
        true
    }
    fn validate_sampler_weights(&self, _level: WeightLevel) -> Result<()> {
        refused("weights")
    }
    fn gathers(&self) -> bool {
        true
    }
    fn gather(&self, tokens: &[StepToken]) -> Vec<f64> {
        vec![tokens.len() as f64]
    }
    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let gain = input.advantages.clone() * input.log_probs.clone();
        Ok(SurrogateTerm::new(gain.mul_scalar(-self.scale)))
    }
}

fn odd(scale: f64) -> PolicyObjective {
    PolicyObjective {
        surrogate: Surrogate::custom(Odd { scale }),
        ..PolicyObjective::dapo()
    }
}

#[test]
fn a_custom_surrogate_validates_itself() {
    let surrogate = odd(2.0).surrogate;
    assert_eq!(surrogate.name(), "odd");
    assert_eq!(surrogate.fingerprint(), "Odd { scale: 2.0 }");
    assert!(surrogate.validate(RatioLevel::Token).is_ok());
    assert!(surrogate.validate(RatioLevel::Sequence).is_err());
    assert_eq!(surrogate.ratio_use(), RatioUse::Own);
    assert!(!surrogate.is_per_token());
    assert!(surrogate.vanishes_without_advantage());
    assert!(surrogate.takes_sampler_weights());
    assert!(
        surrogate
            .validate_sampler_weights(WeightLevel::Token)
            .is_err()
    );
    assert!(surrogate.gathers());
    assert_eq!(surrogate.gather(&[]), [0.0]);
}

#[test]
fn a_file_keeps_only_the_name_of_a_custom_surrogate() {
    let text = serde_json::to_string(&odd(2.0)).unwrap();
    let read: PolicyObjective = serde_json::from_str(&text).unwrap();
    assert_eq!(read, odd(2.0));
    assert_ne!(read, odd(3.0));
    assert_ne!(read, PolicyObjective::dapo());
    let message = read.validate().unwrap_err().to_string();
    assert!(
        message.contains("odd") && message.contains("Surrogate::custom"),
        "{message}"
    );
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
}

#[test]
fn a_built_in_surrogate_gives_the_same_loss_inside_the_enum_and_alone() {
    let clip = PpoClip::range(0.1, 0.2);
    let (alone, inside) = (Surrogate::custom(clip), Surrogate::from(clip));
    for surrogate in [alone, inside] {
        assert!(surrogate.vanishes_without_advantage());
        assert_eq!(surrogate.fingerprint(), format!("{clip:?}"));
    }
    // They have their own gradient, or compare with the mean of the step.
    for surrogate in [
        Dro { beta: 1.0 }.into(),
        ClipCov::default().into(),
        Surrogate::from(KlCov::default()),
    ] {
        assert!(!surrogate.vanishes_without_advantage(), "{surrogate:?}");
    }
}
