//! Objectives on numbers small enough to be worked out by hand, the combinations that are refused, and the file format.

mod common;

use burn::tensor::{Device, Tensor};
use common::{assert_close, devices, floats, matrix};
use rlvr::loss::{
    Aggregation, KlEstimator, KlPenalty, LossInput, LossMetrics, PolicyObjective, PpoClip,
    RatioLevel, Reinforce, StepCounts, Surrogate, ValueLossConfig,
};

// ---- policy losses by hand ---------------------------------------------------------------------

fn clip(clip: PpoClip) -> PolicyObjective {
    PolicyObjective {
        surrogate: Surrogate::PpoClip(clip),
        ..PolicyObjective::ppo()
    }
}

fn reinforce(aggregation: Aggregation) -> PolicyObjective {
    PolicyObjective {
        surrogate: Surrogate::Reinforce(Reinforce {}),
        aggregation,
        ..PolicyObjective::ppo()
    }
}

/// Loss, gradient in the log-probs and metrics of one completion.
fn one_row(
    objective: &PolicyObjective,
    log_probs: &[f64],
    old: Option<&[f64]>,
    advantages: &[f64],
    device: &Device,
) -> (f64, Vec<f64>, LossMetrics) {
    let row = |numbers: &[f64]| matrix(&[numbers.to_vec()], device);
    let leaf = row(log_probs).autodiff().require_grad();
    let input = LossInput {
        old_log_probs: old.map(row),
        ..LossInput::new(
            leaf.clone(),
            row(advantages),
            row(&vec![1.0; log_probs.len()]),
        )
    };
    let counts = StepCounts::of(&[log_probs.len()]);
    let loss = objective.loss(&input, counts).unwrap();
    let gradient = floats(leaf.grad(&loss.loss.backward()).unwrap());
    (floats(loss.loss)[0], gradient, loss.sums.read().unwrap())
}

/// The loss of every token by itself.
fn terms(
    objective: &PolicyObjective,
    log_probs: &[f64],
    old: &[f64],
    advantages: &[f64],
    device: &Device,
) -> Vec<f64> {
    (0..log_probs.len())
        .map(|t| {
            let old = Some(&old[t..=t]);
            one_row(
                objective,
                &log_probs[t..=t],
                old,
                &advantages[t..=t],
                device,
            )
            .0
        })
        .collect()
}

fn assert_all(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert_close(*got, *want, 0.0, 2e-5, what);
    }
}

#[test]
fn the_ppo_clip_takes_the_pessimistic_side() {
    // Ratios 0.5, 1, 1.5.
    let (old, new) = ([-1.0; 3], [-1.693_147, -1.0, -0.594_535]);
    let advantages = [1.0, -1.0, 2.0];
    for (backend, device) in devices() {
        let ppo = PolicyObjective::ppo();
        let got = terms(&ppo, &new, &old, &advantages, &device);
        assert_all(&got, &[-0.5, 1.0, -2.4], backend);
        let (loss, gradient, metrics) = one_row(&ppo, &new, Some(&old), &advantages, &device);
        assert_close(loss, -0.633_333, 0.0, 2e-5, backend);
        // -A r / N where nothing binds, nothing where the clip does.
        assert_all(&gradient, &[-0.5 / 3.0, 1.0 / 3.0, 0.0], backend);
        assert_eq!(metrics.sum("clip_high"), Some(1.0), "{backend}");
        assert_eq!(metrics.sum("clip_low"), Some(0.0), "{backend}");
        assert_close(metrics.mean("ratio").unwrap(), 1.0, 0.0, 1e-5, backend);

        // A loss that may fall no further: the ratio is low and the advantage negative.
        let (loss, gradient, metrics) =
            one_row(&ppo, &[-1.693_147], Some(&[-1.0]), &[-1.0], &device);
        assert_close(loss, 0.8, 0.0, 1e-5, backend);
        assert_eq!(gradient, [0.0], "{backend}");
        assert_eq!(metrics.sum("clip_low"), Some(1.0), "{backend}");
        assert_eq!(metrics.sum("clip_high"), Some(0.0), "{backend}");

        // Clip-higher moves the upper bound only.
        let dapo = PolicyObjective::dapo();
        let got = terms(&dapo, &new, &old, &advantages, &device);
        assert_all(&got, &[-0.5, 1.0, -2.56], backend);
        assert_all(
            &terms(&dapo, &new[..1], &old[..1], &[-1.0], &device),
            &[0.8],
            backend,
        );

        // One ratio for the completion, exp of the mean log-ratio -0.095894.
        let sequence = PolicyObjective {
            ratio_level: RatioLevel::Sequence,
            ..ppo
        };
        let (loss, gradient, _) = one_row(&sequence, &new, Some(&old), &advantages, &device);
        assert_close(loss, -0.605_71, 0.0, 2e-5, backend);
        assert_all(&gradient, &[-0.605_71 / 3.0; 3], backend);
    }
}

#[test]
fn a_runaway_token_with_negative_advantage_is_bounded_by_dual_clip_or_delta() {
    for (backend, device) in devices() {
        // Ratios 0.5, 1, 10.
        let (old, new) = ([-1.0, -1.0, -3.0], [-1.693_147, -1.0, -0.697_415]);
        let advantages = [1.0, -1.0, -4.0];
        let dual = |c| PpoClip {
            dual_clip: Some(c),
            ..PpoClip::default()
        };
        let bounded = clip(dual(3.0));
        let got = terms(&bounded, &new, &old, &advantages, &device);
        assert_all(&got, &[-0.5, 1.0, 12.0], backend);
        let (loss, gradient, _) = one_row(&bounded, &new, Some(&old), &advantages, &device);
        assert_close(loss, 12.5 / 3.0, 0.0, 2e-5, backend);
        assert_all(&gradient, &[-0.5 / 3.0, 1.0 / 3.0, 0.0], backend);
        let unbounded = terms(&PolicyObjective::ppo(), &new, &old, &advantages, &device);
        assert_close(unbounded[2], 40.0, 1e-5, 0.0, backend);

        // Ratios 2, 2, 0.5 with c = 1.5: positive advantages are as before.
        let (old, new) = ([-1.0; 3], [-0.306_853, -0.306_853, -1.693_147]);
        let got = terms(&clip(dual(1.5)), &new, &old, &[2.0, -2.0, 2.0], &device);
        assert_all(&got, &[-2.4, 3.0, -1.0], backend);

        let delta = clip(PpoClip {
            delta: Some(2.0),
            ..PpoClip::default()
        });
        let got = one_row(&delta, &[-0.697_415], Some(&[-3.0]), &[-1.0], &device);
        assert_close(got.0, 2.0, 0.0, 2e-5, backend);
        assert_eq!(got.1, [0.0], "{backend}");
        let got = one_row(&delta, &[-0.697_415], Some(&[-3.0]), &[1.0], &device);
        assert_close(got.0, -1.2, 0.0, 2e-5, backend);
    }
}

#[test]
fn the_first_update_after_sampling_is_reinforce() {
    let (log_probs, advantages) = ([-0.5, -1.0, -1.5], [1.0, -1.0, 2.0]);
    let aggregations = [
        (Aggregation::TokenMean, 3.0),
        (Aggregation::SequenceMeanTokenMean, 3.0),
        (Aggregation::SequenceMeanTokenSum, 1.0),
        (Aggregation::Constant { length: 10 }, 10.0),
    ];
    for (backend, device) in devices() {
        for (aggregation, denominator) in aggregations {
            let ppo = PolicyObjective {
                aggregation,
                ..PolicyObjective::ppo()
            };
            let (loss, gradient, metrics) = one_row(&ppo, &log_probs, None, &advantages, &device);
            assert_close(loss, -2.0 / denominator, 1e-6, 0.0, backend);
            assert_eq!(metrics.sum("clip_low"), Some(0.0), "{backend}");
            assert_eq!(metrics.sum("clip_high"), Some(0.0), "{backend}");
            let plain = reinforce(aggregation);
            let (loss, want, _) = one_row(&plain, &log_probs, None, &advantages, &device);
            assert_close(loss, 2.5 / denominator, 1e-6, 0.0, backend);
            assert_all(&want, &advantages.map(|a| -a / denominator), backend);
            assert_all(&gradient, &want, backend);
        }
    }
}

// ---- reductions by hand ------------------------------------------------------------------------

/// `aggregate(x)`: with advantage 1, the term of REINFORCE is `-ln pi`.
fn reduce(
    aggregation: Aggregation,
    x: &[[f64; 2]],
    mask: &[[f64; 2]],
    counts: StepCounts,
    device: &Device,
) -> f64 {
    let tensor = |rows: &[[f64; 2]], factor: f64| {
        let rows: Vec<Vec<f64>> = rows
            .iter()
            .map(|r| r.map(|x| x * factor).to_vec())
            .collect();
        matrix(&rows, device)
    };
    let input = LossInput::new(
        tensor(x, -1.0),
        tensor(&vec![[1.0; 2]; x.len()], 1.0),
        tensor(mask, 1.0),
    );
    floats(reinforce(aggregation).loss(&input, counts).unwrap().loss)[0]
}

#[test]
fn reductions_divide_by_what_they_say() {
    let step = |tokens, sequences| StepCounts { tokens, sequences };
    for (backend, device) in devices() {
        let check = |aggregation, x: &[[f64; 2]], mask: &[[f64; 2]], counts, want: f64| {
            let got = reduce(aggregation, x, mask, counts, &device);
            assert_close(got, want, 1e-6, 0.0, &format!("{backend} {aggregation:?}"));
        };
        let holed = [[1.0, 1.0], [1.0, 0.0]];
        // (1 + 2 + 3) / 3, ((1 + 2) / 2 + 3) / 2, (1 + 2 + 3) / 2.
        let x = [[1.0, 2.0], [3.0, 4.0]];
        check(Aggregation::TokenMean, &x, &holed, step(3, 2), 2.0);
        check(
            Aggregation::SequenceMeanTokenMean,
            &x,
            &holed,
            step(3, 2),
            2.25,
        );
        check(
            Aggregation::SequenceMeanTokenSum,
            &x,
            &holed,
            step(3, 2),
            3.0,
        );
        // (5 + 9) / (2 * 10).
        let x = [[2.0, 3.0], [9.0, 12.0]];
        check(
            Aggregation::Constant { length: 10 },
            &x,
            &holed,
            step(3, 2),
            0.7,
        );
        // A row without a token: who counts decides whether it is in the denominator.
        let (x, gone) = ([[1.0, 3.0], [5.0, 7.0]], [[1.0, 1.0], [0.0, 0.0]]);
        check(
            Aggregation::SequenceMeanTokenMean,
            &x,
            &gone,
            step(2, 1),
            2.0,
        );
        check(
            Aggregation::SequenceMeanTokenMean,
            &x,
            &gone,
            step(2, 2),
            1.0,
        );
        // No token at all is 0, not 0/0.
        for aggregation in [
            Aggregation::TokenMean,
            Aggregation::SequenceMeanTokenMean,
            Aggregation::SequenceMeanTokenSum,
            Aggregation::Constant { length: 10 },
        ] {
            for counts in [step(0, 0), step(0, 2)] {
                check(aggregation, &x, &[[0.0; 2]; 2], counts, 0.0);
            }
        }
        // Three columns: (1 + 2 + 4 + 5 + 6) / 5.
        let rows = |rows: [[f64; 3]; 2]| matrix(&rows.map(|row| row.to_vec()), &device);
        let input = LossInput::new(
            rows([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]),
            rows([[1.0; 3]; 2]),
            rows([[1.0, 1.0, 0.0], [1.0; 3]]),
        );
        let counts = StepCounts::of(&[2, 3]);
        let loss = reinforce(Aggregation::TokenMean)
            .loss(&input, counts)
            .unwrap();
        assert_close(floats(loss.loss)[0], 3.6, 1e-6, 0.0, backend);
    }
}

// ---- refusals ----------------------------------------------------------------------------------

#[test]
fn combinations_that_make_no_sense_are_refused_with_field_and_reason() {
    let (_, device) = devices().remove(0);
    let ppo = PolicyObjective::ppo();
    let part = PpoClip::default();
    let kl = |coef| ppo.with_kl(Some(KlPenalty::new(coef, KlEstimator::K3)));
    let delta = |delta| {
        clip(PpoClip {
            delta: Some(delta),
            ..part
        })
    };
    let dual = |c| {
        clip(PpoClip {
            dual_clip: Some(c),
            ..part
        })
    };
    let cases = [
        (
            PolicyObjective {
                ratio_level: RatioLevel::Sequence,
                ..reinforce(Aggregation::TokenMean)
            },
            "`ratio_level`: sequence",
            "reinforce surrogate, which has no ratio",
        ),
        (
            clip(PpoClip::range(-0.1, 0.2)),
            "ppo_clip.low`: -0.1",
            "at least 0",
        ),
        (
            clip(PpoClip::range(f64::NAN, 0.2)),
            "ppo_clip.low",
            "finite",
        ),
        (
            clip(PpoClip::range(0.2, -0.1)),
            "ppo_clip.high`: -0.1",
            "at least 0",
        ),
        (
            clip(PpoClip::range(0.2, f64::INFINITY)),
            "ppo_clip.high",
            "finite",
        ),
        (delta(1.2), "ppo_clip.delta`: 1.2", "above 1 + high = 1.2"),
        (delta(f64::NAN), "ppo_clip.delta", "finite"),
        (delta(f64::INFINITY), "ppo_clip.delta", "finite"),
        (dual(1.0), "ppo_clip.dual_clip`: 1", "above 1"),
        (dual(f64::INFINITY), "ppo_clip.dual_clip", "finite"),
        (
            clip(PpoClip {
                delta: Some(2.0),
                dual_clip: Some(3.0),
                ..part
            }),
            "ppo_clip.delta",
            "none when dual_clip is set",
        ),
        (
            PolicyObjective::dr_grpo(0),
            "aggregation.constant.length`: 0",
            "at least 1",
        ),
        (kl(0.0), "kl.coef`: 0", "above 0, or no KL term"),
        (kl(-0.1), "kl.coef`: -0.1", "above 0"),
        (kl(f64::NAN), "kl.coef", "finite"),
        (ppo.with_entropy_coef(f64::NAN), "entropy_coef", "finite"),
        (
            ppo.with_entropy_coef(f64::INFINITY),
            "entropy_coef",
            "finite",
        ),
    ];
    let one = || matrix(&[vec![1.0]], &device);
    for (objective, field, reason) in cases {
        let built = objective.validate().unwrap_err().to_string();
        let used = objective
            .loss(&LossInput::new(one(), one(), one()), StepCounts::of(&[1]))
            .unwrap_err()
            .to_string();
        assert_eq!(built, used);
        for part in [field, reason] {
            assert!(built.contains(part), "{part}: {built}");
        }
    }
    // A range above 1 is DeepSeek-R1's, a negative entropy bonus a penalty: both can be meant.
    for fine in [
        PolicyObjective::deepseek_r1(),
        ppo.with_entropy_coef(-0.01),
        clip(PpoClip::range(0.0, 0.0)),
        delta(1.3),
        dual(1.1),
    ] {
        fine.validate().unwrap();
    }
}

#[test]
fn inputs_that_are_missing_or_of_another_shape_are_named() {
    let (_, device) = devices().remove(0);
    let of = |width: usize| matrix(&[vec![1.0; width]], &device);
    let good = LossInput {
        old_log_probs: Some(of(2)),
        ref_log_probs: Some(of(2)),
        entropies: Some(of(2)),
        ..LossInput::new(of(2), of(2), of(2))
    };
    let objective = PolicyObjective::grpo().with_entropy_coef(0.01);
    let message = |input: &LossInput| {
        let error = objective.loss(input, StepCounts::of(&[2])).unwrap_err();
        error.to_string()
    };
    assert!(objective.loss(&good, StepCounts::of(&[2])).is_ok());

    let mut input = good.clone();
    input.ref_log_probs = None;
    assert!(message(&input).contains("`ref_log_probs`: none"));
    assert!(message(&input).contains("a KL term"));
    let mut input = good.clone();
    input.entropies = None;
    assert!(message(&input).contains("`entropies`: none"));
    assert!(message(&input).contains("an entropy bonus"));

    type Change = fn(&mut LossInput, Tensor<2>);
    let wrong: [(&str, Change); 5] = [
        ("old_log_probs", |input, wide| {
            input.old_log_probs = Some(wide)
        }),
        ("ref_log_probs", |input, wide| {
            input.ref_log_probs = Some(wide)
        }),
        ("entropies", |input, wide| input.entropies = Some(wide)),
        ("advantages", |input, wide| input.advantages = wide),
        ("mask", |input, wide| input.mask = wide),
    ];
    for (field, change) in wrong {
        let mut input = good.clone();
        change(&mut input, of(3));
        let want = format!("{field}: got [1, 3], expected [1, 2], as log_probs");
        assert_eq!(message(&input), want);
    }
}

// ---- the file format ---------------------------------------------------------------------------

#[test]
fn objectives_survive_json() {
    let presets = [
        PolicyObjective::grpo(),
        PolicyObjective::deepseek_r1(),
        PolicyObjective::dr_grpo(64),
        PolicyObjective::dapo(),
        PolicyObjective::ppo(),
        PolicyObjective::ppo().with_entropy_coef(0.01),
        reinforce(Aggregation::SequenceMeanTokenSum),
        clip(PpoClip {
            delta: Some(4.0),
            ..PpoClip::default()
        }),
        PolicyObjective {
            ratio_level: RatioLevel::Sequence,
            ..clip(PpoClip {
                dual_clip: Some(3.0),
                ..PpoClip::default()
            })
        },
    ];
    for objective in presets {
        objective.validate().unwrap();
        let text = serde_json::to_string(&objective).unwrap();
        let read: PolicyObjective = serde_json::from_str(&text).unwrap();
        assert_eq!(read, objective, "{text}");
    }
    assert_eq!(
        serde_json::to_string(&PolicyObjective::grpo()).unwrap(),
        concat!(
            r#"{"surrogate":{"ppo_clip":{"low":0.2,"high":0.2,"delta":null,"dual_clip":null}},"#,
            r#""ratio_level":"token","aggregation":"sequence_mean_token_mean","#,
            r#""kl":{"coef":0.04,"estimator":"k3"},"entropy_coef":0.0}"#,
        )
    );
    // What may be left out.
    let short = r#"{"surrogate": {"ppo_clip": {"high": 0.28}}, "aggregation": "token_mean"}"#;
    let read: PolicyObjective = serde_json::from_str(short).unwrap();
    assert_eq!(read, PolicyObjective::dapo());
}

#[test]
fn a_misspelt_field_of_an_objective_is_refused_at_every_depth() {
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

#[test]
fn a_ratio_too_large_for_f32_has_a_finite_loss_and_gradient() {
    for (backend, device) in devices() {
        for advantage in [1.0, 0.0, -1.0] {
            for objective in [
                PolicyObjective::dapo(),
                PolicyObjective::grpo(),
                PolicyObjective {
                    surrogate: Surrogate::PpoClip(PpoClip {
                        dual_clip: Some(3.0),
                        ..PpoClip::default()
                    }),
                    ..PolicyObjective::ppo()
                },
            ] {
                let leaf = matrix(&[vec![-1.0, -1.0]], &device)
                    .autodiff()
                    .require_grad();
                let far = matrix(&[vec![-120.0, -1.0]], &device);
                let close_to_it = matrix(&[vec![-1.0, 119.0]], &device);
                let input = LossInput {
                    old_log_probs: Some(far),
                    ref_log_probs: Some(close_to_it),
                    ..LossInput::new(
                        leaf.clone(),
                        matrix(&[vec![advantage, advantage]], &device),
                        matrix(&[vec![1.0, 1.0]], &device),
                    )
                };
                let counts = StepCounts {
                    tokens: 2,
                    sequences: 1,
                };
                let loss = objective.loss(&input, counts).unwrap();
                let gradients = loss.loss.backward();
                let what = format!("{backend} {objective:?} {advantage}");
                assert!(floats(loss.loss)[0].is_finite(), "{what}");
                let gradient = floats(leaf.grad(&gradients).unwrap());
                assert!(
                    gradient.iter().all(|g| g.is_finite()),
                    "{what} {gradient:?}"
                );
            }
        }
    }
}
