//! The file format of objectives.

use rlvr::loss::{
    Aggregation, Cispo, CispoBand, Dro, KlEstimator, KlPenalty, LogRatioClamp, OffPolicyMask,
    PolicyObjective, PpoClip, RatioLevel, Rejection, RejectionScope, RejectionStatistic,
    SamplerCorrection, Surrogate, TopEntropy, ValueLossConfig, presets,
};
use serde_json::Value;

use super::one_row::{clip, reinforce};

/// An objective with every part.
fn full() -> PolicyObjective {
    PolicyObjective {
        ratio_level: RatioLevel::SequenceToken,
        log_ratio_clamp: Some(LogRatioClamp::symmetric(20.0)),
        aggregation: Aggregation::Constant { length: 9 },
        kl: Some(KlPenalty {
            straight_through: true,
            log_ratio_clamp: Some(20.0),
            value_clamp: Some(10.0),
            aggregation: Some(Aggregation::Constant { length: 8 }),
            ..KlPenalty::new(0.1, KlEstimator::Abs)
        }),
        entropy_coef: 0.5,
        entropy_aggregation: Some(Aggregation::PromptMean),
        top_entropy: Some(TopEntropy { share: 0.2 }),
        off_policy_mask: Some(OffPolicyMask { threshold: 0.5 }),
        sampler_correction: Some(
            SamplerCorrection {
                measure_only: true,
                ..SamplerCorrection::token_mask(0.5, 5.0)
            }
            .with_rejection(Rejection {
                scope: RejectionScope::SequenceMean,
                statistic: RejectionStatistic::K1,
                lower: Some(0.9),
                upper: 1.1,
            }),
        ),
        ..clip(PpoClip {
            dual_clip: Some(3.0),
            ..PpoClip::default()
        })
    }
}

/// Every preset, one of each surrogate that no preset has, and one with every part.
fn all() -> Vec<PolicyObjective> {
    let named = |name: &str| PolicyObjective::named(name, 64).unwrap();
    let mut all: Vec<PolicyObjective> = presets::NAMES.map(named).to_vec();
    let band = CispoBand::AroundOne {
        low: 0.1,
        high: 0.3,
    };
    all.push(PolicyObjective::dro(0.5));
    all.push(full().with_surrogate(Surrogate::Cispo(Cispo { band })));
    all.push(PolicyObjective::ppo().with_surrogate(Surrogate::Dro(Dro { beta: 1.0 })));
    all.push(full());
    all
}

#[test]
fn every_preset_is_valid_and_survives_json() {
    assert_eq!(presets::NAMES.len(), 24);
    for objective in all() {
        objective.validate().unwrap();
        let text = serde_json::to_string(&objective).unwrap();
        let read: PolicyObjective = serde_json::from_str(&text).unwrap();
        assert_eq!(read, objective, "{text}");
    }
}

#[test]
fn presets_of_one_name_in_two_frameworks_differ() {
    let named = |name: &str| PolicyObjective::named(name, 64).unwrap();
    for (one, other) in [
        ("trl", "verl"),
        ("cispo", "cispo_verl"),
        ("gspo", "gspo_token"),
        ("grpo", "trl"),
        ("grpo", "deepseek_r1"),
        ("rloo", "verl"),
    ] {
        assert_ne!(named(one), named(other), "{one} {other}");
    }
    // Methods whose difference is in the advantages or the reward.
    for (one, same) in [
        ("ppo", "reinforce_plus_plus"),
        ("reinforce", "gpg"),
        ("ppo", "trl"),
    ] {
        assert_eq!(named(one), named(same), "{one} {same}");
    }
}

/// The places of all objects in a document.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.push(at.to_string());
            for (name, value) in fields {
                objects(value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(entries) => {
            for (i, value) in entries.iter().enumerate() {
                objects(value, &format!("{at}/{i}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn unknown_names_are_errors_at_any_depth() {
    let mut checked = 0;
    for objective in all() {
        let good = serde_json::to_value(&objective).unwrap();
        let mut places = Vec::new();
        objects(&good, "", &mut places);
        for place in places {
            let refused = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
                let mut wrong = good.clone();
                let at = wrong.pointer_mut(&place).unwrap();
                change(at.as_object_mut().unwrap());
                let error = serde_json::from_value::<PolicyObjective>(wrong.clone());
                error.expect_err(&format!("{place} of {wrong}")).to_string()
            };
            refused(&|fields| {
                fields.insert("made_up".into(), 1.into());
            });
            let fields = good.pointer(&place).unwrap().as_object().unwrap();
            for name in fields.keys() {
                let message = refused(&|fields| {
                    let value = fields.remove(name).unwrap();
                    fields.insert(format!("{name}s"), value);
                });
                assert!(message.contains(&format!("`{name}s`")), "{message}");
                checked += 1;
            }
        }
    }
    assert!(checked > 400, "{checked}");
}

#[test]
fn the_file_format_of_objectives_is_stable() {
    for objective in [
        PolicyObjective::ppo().with_entropy_coef(0.01),
        reinforce(Aggregation::SequenceMeanTokenSum),
        clip(PpoClip {
            delta: Some(4.0),
            ..PpoClip::default()
        }),
    ] {
        objective.validate().unwrap();
        let text = serde_json::to_string(&objective).unwrap();
        let read: PolicyObjective = serde_json::from_str(&text).unwrap();
        assert_eq!(read, objective, "{text}");
    }
    // The format of release 0.1 is unchanged; later parts have defaults.
    let mut written = serde_json::to_value(PolicyObjective::grpo()).unwrap();
    let grpo = serde_json::json!({
        "surrogate": {"ppo_clip": {"low": 0.2, "high": 0.2, "delta": null, "dual_clip": null}},
        "ratio_level": "token", "aggregation": "sequence_mean_token_mean",
        "kl": {"coef": 0.04, "estimator": "k3"}, "entropy_coef": 0.0,
    });
    let read: PolicyObjective = serde_json::from_value(grpo.clone()).unwrap();
    assert_eq!(read, PolicyObjective::grpo());
    for (place, names) in [("", 10), ("/kl", 7), ("/surrogate/ppo_clip", 4)] {
        let old = grpo.pointer(place).unwrap().as_object().unwrap();
        let new = written.pointer_mut(place).unwrap().as_object_mut().unwrap();
        assert_eq!(new.len(), names, "{place}");
        new.retain(|name, _| old.contains_key(name));
    }
    assert_eq!(written, grpo);
    // Optional fields.
    let short = r#"{"surrogate": {"ppo_clip": {"high": 0.28}}, "aggregation": "token_mean"}"#;
    let read: PolicyObjective = serde_json::from_str(short).unwrap();
    assert_eq!(read, PolicyObjective::dapo());
}

#[test]
fn unknown_fields_are_errors_at_any_depth() {
    let good = concat!(
        r#"{"surrogate": {"ppo_clip": {"low": 0.2}}, "aggregation": {"constant": {"length": 9}}, "#,
        r#""kl": {"coef": 0.1, "estimator": "k1"}, "entropy_coef": 0.5}"#
    );
    let read = |text: &str| serde_json::from_str::<PolicyObjective>(text);
    read(good).unwrap();
    for (right, wrong) in [
        (r#""entropy_coef""#, r#""entropy_coeff""#),
        (r#""low""#, r#""lo""#),
        (r#""length": 9"#, r#""length": 9, "lenght": 8"#),
        (r#""coef": 0.1"#, r#""coef": 0.1, "beta": 0.1"#),
        (
            r#""ppo_clip": {"low": 0.2}"#,
            r#""reinforce": {"low": 0.2}"#,
        ),
    ] {
        let text = good.replace(right, wrong);
        assert_ne!(text, good);
        let message = read(&text).unwrap_err().to_string();
        assert!(message.contains("unknown field"), "{text}: {message}");
    }
    let message = read(&good.replace("k1", "k4")).unwrap_err().to_string();
    assert!(
        message.contains("k4") && message.contains("k3"),
        "{message}"
    );
    let message = read(r#"{"surrogate": {"reinforce": {}}}"#).unwrap_err();
    assert!(message.to_string().contains("aggregation"), "{message}");
    let misspelt = r#"{"clip_rang": 0.2}"#;
    assert!(serde_json::from_str::<ValueLossConfig>(misspelt).is_err());
}
