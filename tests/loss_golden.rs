//! Losses, gradients, metrics, KL estimators and log-probs against what TRL and verl computed.
//! `tests/golden/README.md` says where the numbers come from.

mod common;

use burn::tensor::Tensor;
use common::{assert_close, devices, floats, golden, ids, matrix, number, rows};
use rlvr::loss::{
    AdaptiveKl, Aggregation, KlEstimator, KlPenalty, LossInput, PolicyObjective, PpoClip,
    RatioLevel, Reinforce, StepCounts, Surrogate, ValueLossConfig, value_loss,
};
use rlvr::policy::logits_log_probs;
use serde_json::Value;

/// The aggregation of a case, with its counts and the factor that its peer puts in front.
fn aggregation(case: &Value) -> (Aggregation, StepCounts, f64) {
    let scale = number(&case["scale"]);
    let denominator = |key: &str| case[key].as_f64().unwrap_or(1.0);
    let sequences = denominator("sequence_denominator");
    let tokens = denominator("token_denominator");
    // Peers hand in fractional token counts at times; the fraction goes into the factor.
    let counts = StepCounts {
        tokens: if tokens.fract() == 0.0 {
            tokens as usize
        } else {
            1
        },
        sequences: sequences as usize,
    };
    let token_scale = if tokens.fract() == 0.0 {
        scale
    } else {
        scale / tokens
    };
    let one = StepCounts {
        tokens: 1,
        sequences: 1,
    };
    match case["mode"].as_str().unwrap() {
        "token_mean" | "batch_tokens" => (Aggregation::TokenMean, counts, token_scale),
        "token_sum" => (Aggregation::TokenMean, one, scale),
        "constant" => {
            let length = case["max_completion_length"].as_u64().unwrap() as usize;
            let sequences = (tokens / length as f64).round() as usize;
            assert_eq!((sequences * length) as f64, tokens);
            let counts = StepCounts {
                sequences,
                ..counts
            };
            (Aggregation::Constant { length }, counts, scale)
        }
        "seq_mean_token_mean" => (Aggregation::SequenceMeanTokenMean, counts, scale),
        "seq_mean_token_sum" => (Aggregation::SequenceMeanTokenSum, counts, scale),
        "seq_mean_token_sum_norm" => {
            let length = number(&case["length_norm"]);
            assert_eq!(length.fract(), 0.0);
            let length = length as usize;
            (Aggregation::Constant { length }, counts, scale)
        }
        other => panic!("unknown aggregation {other}"),
    }
}

fn objective(case: &Value) -> (PolicyObjective, StepCounts, f64) {
    let (aggregation, counts, scale) = aggregation(&case["aggregation"]);
    let surrogate = match case["surrogate"].as_str().unwrap() {
        "ppo_clip" => Surrogate::PpoClip(PpoClip {
            low: number(&case["clip_low"]),
            high: number(&case["clip_high"]),
            delta: case["delta"].as_f64(),
            dual_clip: case["dual_clip"].as_f64(),
        }),
        _ => Surrogate::Reinforce(Reinforce {}),
    };
    let kl = (number(&case["beta"]) != 0.0).then(|| KlPenalty {
        coef: number(&case["beta"]),
        estimator: estimator(case["kl_estimator"].as_str().unwrap()),
    });
    let objective = PolicyObjective {
        surrogate,
        ratio_level: match case["ratio_level"].as_str() {
            Some("sequence") => RatioLevel::Sequence,
            _ => RatioLevel::Token,
        },
        aggregation,
        kl,
        entropy_coef: number(&case["entropy_coef"]),
    };
    (objective, counts, scale)
}

fn estimator(name: &str) -> KlEstimator {
    match name {
        "k1" => KlEstimator::K1,
        "k2" => KlEstimator::K2,
        "k3" => KlEstimator::K3,
        other => panic!("unknown estimator {other}"),
    }
}

/// Advantages come per row or per token.
fn advantages(value: &Value, width: usize) -> Vec<Vec<f64>> {
    let entries = value.as_array().unwrap();
    if entries[0].is_array() {
        return rows(value).unwrap();
    }
    entries.iter().map(|a| vec![number(a); width]).collect()
}

#[test]
fn policy_losses_and_gradients() {
    let cases = golden("policy_loss.jsonl");
    assert_eq!(cases.len(), 80);
    for (backend, device) in devices() {
        for case in &cases {
            let name = format!("{backend} {}", case["name"].as_str().unwrap());
            let inputs = &case["inputs"];
            let (objective, counts, scale) = objective(&case["objective"]);
            let log_probs = rows(&inputs["log_probs"]).unwrap();
            let width = log_probs[0].len();
            let optional = |key: &str| rows(&inputs[key]).map(|rows| matrix(&rows, &device));
            let leaf = matrix(&log_probs, &device).autodiff().require_grad();
            let entropies = optional("entropies").map(|h| h.autodiff().require_grad());
            let input = LossInput {
                old_log_probs: optional("old_log_probs"),
                ref_log_probs: optional("ref_log_probs"),
                entropies: entropies.clone(),
                ..LossInput::new(
                    leaf.clone(),
                    matrix(&advantages(&inputs["advantages"], width), &device),
                    matrix(&rows(&inputs["mask"]).unwrap(), &device),
                )
            };
            let loss = objective.loss(&input, counts).unwrap();
            let expected = &case["expected"];
            let value = floats(loss.loss.clone())[0] * scale;
            assert_close(value, number(&expected["loss"]), 2e-5, 1e-6, &name);

            let gradients = loss.loss.backward();
            let compare = |leaf: &Tensor<2>, want: &Value, what: &str| {
                let got = leaf.grad(&gradients).map(floats);
                let want: Vec<f64> = rows(want).unwrap().concat();
                let got = got.unwrap_or(vec![0.0; want.len()]);
                for (got, want) in got.iter().zip(&want) {
                    assert_close(got * scale, *want, 1e-4, 1e-6, &format!("{name} {what}"));
                }
            };
            compare(&leaf, &expected["grad_log_probs"], "gradient");
            if let (Some(leaf), false) = (&entropies, expected["grad_entropies"].is_null()) {
                compare(leaf, &expected["grad_entropies"], "entropy gradient");
            }

            let metrics = loss.sums.read().unwrap();
            let named = [
                ("kl", "kl"),
                ("clip_ratio/low_mean", "clip_low"),
                ("clip_ratio/high_mean", "clip_high"),
            ];
            for (theirs, ours) in named {
                // At sequence level TRL counts clipped rows; here it is their tokens.
                let per_row = theirs != "kl" && objective.ratio_level == RatioLevel::Sequence;
                if let (Some(want), false) = (expected["metrics"][theirs].as_f64(), per_row) {
                    let got = metrics.mean(ours).unwrap_or(0.0);
                    assert_close(got, want, 1e-4, 1e-6, &format!("{name} {theirs}"));
                }
            }
        }
    }
}

#[test]
fn kl_estimators_and_controller() {
    let cases = golden("kl.jsonl");
    assert_eq!(cases.len(), 24);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let (params, inputs, expected) = (&case["params"], &case["inputs"], &case["expected"]);
        if case["kind"] == "kl_controller" {
            let mut controller = AdaptiveKl {
                coef: number(&params["init_kl_coef"]),
                // A fixed coefficient is one whose horizon is never reached.
                target: params["target_kl"].as_f64().unwrap_or(1.0),
                horizon: params["horizon"].as_f64().unwrap_or(f64::INFINITY),
            };
            let pairs = |key: &str| inputs[key].as_array().unwrap().clone();
            let wanted = expected["coef"].as_array().unwrap();
            for ((kl, n), want) in pairs("current_kl").iter().zip(pairs("n_steps")).zip(wanted) {
                controller.update(number(kl), n.as_u64().unwrap() as usize);
                assert_close(controller.coef, number(want), 1e-6, 1e-6, name);
            }
            continue;
        }
        let estimator = estimator(params["estimator"].as_str().unwrap());
        let policy = rows(&inputs["log_probs"]).unwrap();
        let reference = rows(&inputs["ref_log_probs"]).unwrap();
        let values = rows(&expected["values"]).unwrap().concat();
        for ((lp, rf), want) in policy.concat().iter().zip(reference.concat()).zip(&values) {
            assert_close(estimator.value(*lp, rf), *want, 1e-6, 1e-6, name);
        }
        for (backend, device) in devices() {
            let leaf = matrix(&policy, &device).autodiff().require_grad();
            let got = estimator.per_token(leaf.clone(), matrix(&reference, &device));
            for (got, want) in floats(got.clone()).iter().zip(&values) {
                assert_close(*got, *want, 1e-4, 1e-6, &format!("{backend} {name}"));
            }
            let gradients = got.sum().backward();
            let got = floats(leaf.grad(&gradients).unwrap());
            let want = rows(&expected["grad_log_probs"]).unwrap().concat();
            for (got, want) in got.iter().zip(&want) {
                assert_close(
                    *got,
                    *want,
                    1e-4,
                    1e-6,
                    &format!("{backend} {name} gradient"),
                );
            }
        }
    }
}

#[test]
fn value_losses_and_gradients() {
    let cases = golden("value_loss.jsonl");
    assert!(cases.len() >= 20, "{}", cases.len());
    for (backend, device) in devices() {
        for case in &cases {
            let name = format!("{backend} {}", case["name"].as_str().unwrap());
            let (inputs, expected) = (&case["inputs"], &case["expected"]);
            let (aggregation, counts, scale) = aggregation(&case["params"]["aggregation"]);
            let config = ValueLossConfig {
                clip_range: case["params"]["cliprange_value"].as_f64(),
                aggregation,
            };
            let input = |key: &str| matrix(&rows(&inputs[key]).unwrap(), &device);
            let leaf = input("values").autodiff().require_grad();
            let (old, returns, mask) = (input("old_values"), input("returns"), input("mask"));
            let loss = value_loss(&leaf, &old, &returns, &mask, &config, counts).unwrap();
            let value = floats(loss.loss.clone())[0] * scale;
            assert_close(value, number(&expected["loss"]), 2e-5, 1e-6, &name);
            let gradients = loss.loss.backward();
            let got = floats(leaf.grad(&gradients).unwrap());
            let want = rows(&expected["grad_values"]).unwrap().concat();
            for (got, want) in got.iter().zip(&want) {
                assert_close(got * scale, *want, 1e-4, 1e-6, &format!("{name} gradient"));
            }
            // Given the denominators of a larger batch, the peer divides its count by them too.
            if case["params"]["aggregation"]["denominators_given"] == true {
                continue;
            }
            let clipped = loss.sums.read().unwrap().mean("value_clip").unwrap();
            let want = number(&expected["metrics"]["vf_clipfrac"]);
            assert_close(clipped, want, 1e-4, 1e-6, &format!("{name} clip fraction"));
        }
    }
}

#[test]
fn log_probs_and_entropies() {
    let cases = golden("log_probs.jsonl");
    assert!(cases.len() >= 10, "{}", cases.len());
    for (backend, device) in devices() {
        for case in &cases {
            let name = format!("{backend} {}", case["name"].as_str().unwrap());
            let (inputs, expected) = (&case["inputs"], &case["expected"]);
            let logits: Vec<Vec<f64>> = inputs["logits"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|row| rows(row).unwrap())
                .collect();
            let targets = rows(&inputs["targets"]).unwrap().concat();
            let targets: Vec<i32> = targets.iter().map(|&t| t as i32).collect();
            let scores = logits_log_probs(
                matrix(&logits, &device),
                ids(&[targets], &device).squeeze_dim(0),
                number(&case["params"]["temperature"]),
            );
            let entropies = match &expected["entropies_finite_vocab"] {
                Value::Null => &expected["entropies"],
                finite => finite,
            };
            for (got, want) in [
                (scores.log_probs, &expected["log_probs"]),
                (scores.entropies, entropies),
            ] {
                let want = rows(want).unwrap().concat();
                for (got, want) in floats(got).iter().zip(&want) {
                    assert_close(*got, *want, 2e-5, 1e-6, &name);
                }
            }
        }
    }
}
