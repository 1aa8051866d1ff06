//! Errors and what their messages name; reading estimators from configuration files.

use super::*;
use crate::Error;

#[test]
fn errors_name_the_field_and_the_rollout() {
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
    let short = PerToken::filled(&[1, 1], 0.0);
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
fn errors_name_missing_and_invalid_inputs() {
    let rewards = [Some(1.0), Some(0.0)];
    let good = AdvantageInput::new(&rewards, &[0, 0], &[1, 2]);
    let field = |estimator: Estimator, input: &AdvantageInput| match estimator.estimate(input) {
        Err(Error::Config { field, .. }) => field,
        Err(Error::Shape { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(Remax {}.into(), &good), "baselines");
    let otb: Estimator = OptimalTokenBaseline::default().into();
    assert_eq!(field(otb.clone(), &good), "probabilities");

    let (parts, short) = ([vec![Some(1.0)], vec![None]], [vec![Some(1.0)], vec![]]);
    let gdpo: Estimator = Gdpo::default().into();
    let dense = PerToken::filled(&[1, 2], 0.0);
    let both = good
        .with_components(&parts, &[1.0])
        .with_token_rewards(&dense);
    assert_eq!(field(gdpo.clone(), &both), "token_rewards");
    let bad = good.with_components(&short, &[1.0]);
    assert_eq!(field(gdpo.clone(), &bad), "length of `components[1]`");
    let bad = good.with_components(&parts, &[f64::NAN]);
    assert_eq!(field(gdpo.clone(), &bad), "weights[0]");
    let broken = [vec![Some(1.0)], vec![Some(f64::INFINITY)]];
    assert_eq!(
        field(gdpo, &good.with_components(&broken, &[1.0])),
        "components[1][0]"
    );

    let bad = good.with_baselines(&[Some(1.0)]);
    assert_eq!(field(Remax {}.into(), &bad), "length of `baselines`");
    let bad = good.with_baselines(&[Some(1.0), Some(f64::NAN)]);
    assert_eq!(field(Remax {}.into(), &bad), "baselines[1]");

    let rows = PerToken::filled(&[1, 2], -1.0);
    let probabilities = Probabilities {
        log_probs: &rows,
        sum_pi_squared: &rows,
        importance_weights: None,
    };
    let with_positions = |positions| AdvantageInput {
        positions: Some(positions),
        ..good.with_probabilities(probabilities)
    };
    assert_eq!(
        field(otb.clone(), &with_positions(&[])),
        "length of `positions`"
    );
    let twice = [vec![0], vec![3, 3]];
    assert_eq!(
        field(otb.clone(), &with_positions(&twice)),
        "`positions[1]`"
    );
    let few = PerToken::filled(&[1], -1.0);
    let bad = Probabilities {
        sum_pi_squared: &few,
        ..probabilities
    };
    assert_eq!(
        field(otb, &good.with_probabilities(bad)),
        "rows of `sum_pi_squared`"
    );
    let nan = PerToken::filled(&[1, 2], f64::NAN);
    let bad = good.with_log_probs(&rows, &nan);
    assert_eq!(field(Remax {}.into(), &bad), "ref_log_probs[0][0]");
}

#[test]
fn kl_in_the_reward_is_an_error_for_estimators_that_divide_by_the_group_std() {
    let rejected = [
        "group",
        "pass_at_k",
        "gdpo",
        "max_rl",
        "mt_grpo",
        "gigpo",
        "distillation",
    ];
    for estimator in Estimator::all() {
        let (name, got) = (estimator.name(), estimator.validate_kl_in_reward());
        assert_eq!(got.is_err(), rejected.contains(&name), "{name}: {got:?}");
        if let Err(error) = got {
            let text = error.to_string();
            assert!(
                text.contains("kl_in_reward") && text.contains(name),
                "{text}"
            );
        }
    }
    let unscaled = PassAtK {
        normalize: false,
        ..PassAtK::default()
    };
    assert!(unscaled.validate_kl_in_reward().is_ok());
}

#[test]
fn invalid_settings_of_whitening_and_scaling_estimators_are_errors() {
    let invalid: [(Estimator, &str); 8] = [
        (
            ReinforcePlusPlus {
                gamma: 1.5,
                ..ReinforcePlusPlus::default()
            }
            .into(),
            "reinforce_plus_plus.gamma",
        ),
        (
            ReinforcePlusPlus {
                whiten_epsilon: -1.0,
                ..ReinforcePlusPlus::default()
            }
            .into(),
            "reinforce_plus_plus.whiten_epsilon",
        ),
        (
            ReinforcePlusPlusBaseline {
                whiten_epsilon: f64::NAN,
                ..ReinforcePlusPlusBaseline::default()
            }
            .into(),
            "reinforce_plus_plus_baseline.whiten_epsilon",
        ),
        (
            Gpg {
                norm: 0.0,
                ..Gpg::default()
            }
            .into(),
            "gpg.norm",
        ),
        (
            PassAtK {
                floor: 0.0,
                ..PassAtK::default()
            }
            .into(),
            "pass_at_k.floor",
        ),
        (
            Gdpo {
                epsilon: -1.0,
                ..Gdpo::default()
            }
            .into(),
            "gdpo.epsilon",
        ),
        (
            Gdpo {
                rescale: Rescale::Tokens { epsilon: -1.0 },
                ..Gdpo::default()
            }
            .into(),
            "gdpo.rescale.tokens.epsilon",
        ),
        (
            OptimalTokenBaseline {
                epsilon: -1.0,
                ..OptimalTokenBaseline::default()
            }
            .into(),
            "optimal_token_baseline.epsilon",
        ),
    ];
    for (estimator, name) in invalid {
        let error = estimator.validate().unwrap_err();
        assert!(
            matches!(&error, Error::Config { field, .. } if field == name),
            "{error}"
        );
    }
}

#[test]
fn the_verl_variants_are_read_from_a_configuration_file() {
    let read = |text: &str| serde_json::from_str::<Estimator>(text).unwrap();
    let singleton = SingletonGroup::Score;
    let gdpo = read(
        r#"{"estimator": "gdpo", "epsilon": 1e-6, "singleton": "score", "rescale": {"tokens": {"epsilon": 1e-8}}}"#,
    );
    let rescale = Rescale::Tokens { epsilon: 1e-8 };
    assert_eq!(
        gdpo,
        Gdpo {
            epsilon: 1e-6,
            singleton,
            rescale,
            ..Gdpo::default()
        }
        .into()
    );
    let gpg = read(r#"{"estimator": "gpg", "scale": "nonzero_rewards", "singleton": "score"}"#);
    assert_eq!(
        gpg,
        Gpg {
            scale: GpgScale::NonzeroRewards,
            singleton,
            ..Gpg::default()
        }
        .into()
    );
    let packed = read(r#"{"estimator": "optimal_token_baseline", "align": "trained_token"}"#);
    let align = Align::TrainedToken;
    assert_eq!(
        packed,
        OptimalTokenBaseline {
            align,
            ..OptimalTokenBaseline::default()
        }
        .into()
    );
    let unscaled = read(r#"{"estimator": "gdpo", "rescale": "none"}"#);
    assert_eq!(
        unscaled,
        Gdpo {
            rescale: Rescale::None,
            ..Gdpo::default()
        }
        .into()
    );
}

#[test]
fn settings_out_of_range_are_errors() {
    let invalid: [(Estimator, &str); 8] = [
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
            LitePpo {
                epsilon: f64::NAN,
                ..LitePpo::default()
            }
            .into(),
            "lite_ppo.epsilon",
        ),
        (
            LitePpo {
                floor: f64::INFINITY,
                ..LitePpo::default()
            }
            .into(),
            "lite_ppo.floor",
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
    for (estimator, name) in invalid {
        let error = estimator.validate().unwrap_err();
        assert!(
            matches!(&error, Error::Config { field, .. } if field == name),
            "{error}"
        );
    }
    assert!(group_normalized(&[], &[], 0.0, 0.0).is_err());
    assert!(gae(&[], &[], 2.0, 0.0).is_err());
}

#[test]
fn every_estimator_is_read_by_its_name() {
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

        // An empty batch is valid.
        let none = PerToken::default();
        let nothing = Probabilities {
            log_probs: &none,
            sum_pi_squared: &none,
            importance_weights: None,
        };
        let input = AdvantageInput::new(&[], &[], &[])
            .with_values(&none)
            .with_baselines(&[])
            .with_components(&[], &[1.0])
            .with_log_probs(&none, &none)
            .with_probabilities(nothing);
        assert!(estimator.estimate(&input).unwrap().per_token.is_empty());
    }
    assert!(serde_json::from_str::<Estimator>(r#"{"estimator": "grpo"}"#).is_err());
}
