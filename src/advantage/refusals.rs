//! What is refused, and that the message says what and where; what a configuration file may say.

use super::*;
use crate::Error;

#[test]
fn refusals_say_what_and_where() {
    let message = |result: crate::Result<Advantages>| result.unwrap_err().to_string();
    let rewards = [Some(1.0), Some(0.0)];
    let good = AdvantageInput::new(&rewards, &[0, 0], &[1, 2]);

    let bad = AdvantageInput {
        groups: &[0],
        ..good
    };
    let error = Group::default().estimate(&bad).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }));
    assert!(error.to_string().contains("`groups`"), "{error}");
    let bad = AdvantageInput {
        lengths: &[1, 2, 3],
        ..good
    };
    assert!(message(Group::default().estimate(&bad)).contains("`lengths`"));
    let short = [vec![0.0], vec![0.0]];
    let bad = good.with_values(&short);
    assert!(message(Gae::default().estimate(&bad)).contains("`values[1]`"));

    for value in [f64::NAN, f64::INFINITY] {
        let rewards = [Some(1.0), Some(value)];
        let bad = AdvantageInput {
            rewards: &rewards,
            ..good
        };
        let text = message(LeaveOneOut::default().estimate(&bad));
        assert!(
            text.contains("rewards[1]") && text.contains(&value.to_string()),
            "{text}"
        );
    }
    let huge = [Some(f64::MAX), Some(-f64::MAX)];
    let bad = AdvantageInput {
        rewards: &huge,
        ..good
    };
    assert!(message(GroupMean::default().estimate(&bad)).contains("group 0"));

    let error = Gae::default().estimate(&good).unwrap_err();
    assert!(matches!(&error, Error::Config { field, .. } if field == "values"));
    assert!(error.to_string().contains("critic"), "{error}");
}

#[test]
fn settings_out_of_range_are_refused() {
    let refused: [(Estimator, &str); 8] = [
        (
            Group {
                epsilon: -1e-9,
                ..Group::default()
            }
            .into(),
            "group.epsilon",
        ),
        (
            Group {
                floor: 0.0,
                ..Group::default()
            }
            .into(),
            "group.floor",
        ),
        (
            Batch {
                epsilon: f64::NAN,
                ..Batch::default()
            }
            .into(),
            "batch.epsilon",
        ),
        (
            Batch {
                floor: f64::INFINITY,
                ..Batch::default()
            }
            .into(),
            "batch.floor",
        ),
        (
            Gae {
                gamma: 1.01,
                ..Gae::default()
            }
            .into(),
            "gae.gamma",
        ),
        (
            Gae {
                gamma: f64::NAN,
                ..Gae::default()
            }
            .into(),
            "gae.gamma",
        ),
        (
            Gae {
                lambda: -0.1,
                ..Gae::default()
            }
            .into(),
            "gae.lambda",
        ),
        (
            Gae {
                whiten_epsilon: -1.0,
                ..Gae::default()
            }
            .into(),
            "gae.whiten_epsilon",
        ),
    ];
    for (estimator, name) in refused {
        let error = estimator.validate().unwrap_err();
        assert!(
            matches!(&error, Error::Config { field, .. } if field == name),
            "{error}"
        );
    }
    assert!(group_normalized(&[], &[], 0.0, 0.0).is_err());
    assert!(gae(&[], &[], &[], 2.0, 0.0).is_err());
}

#[test]
fn every_estimator_reads_by_its_name() {
    for estimator in Estimator::all() {
        estimator.validate().unwrap();
        let name = estimator.name();
        let bare = format!(r#"{{"estimator": "{name}"}}"#);
        assert_eq!(serde_json::from_str::<Estimator>(&bare).unwrap(), estimator);
        let written = serde_json::to_string(&estimator).unwrap();
        assert_eq!(
            serde_json::from_str::<Estimator>(&written).unwrap(),
            estimator
        );
        let misspelt = format!(r#"{{"estimator": "{name}", "epsilom": 1}}"#);
        let error = serde_json::from_str::<Estimator>(&misspelt).unwrap_err();
        assert!(error.to_string().contains("epsilom"), "{error}");
        assert_eq!(estimator.needs_values(), name == "gae");

        // An empty batch is a batch.
        let input = AdvantageInput::new(&[], &[], &[]).with_values(&[]);
        assert!(estimator.estimate(&input).unwrap().per_token.is_empty());
    }
    assert!(serde_json::from_str::<Estimator>(r#"{"estimator": "grpo"}"#).is_err());
}
