//! Training of reward models on preferences and labels.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use rlvr::policy::ValueHead;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::prompt::{CharTokenizer, Tokenizer};
use rlvr::reward::{ModelReward, Reward, RewardInput};
use rlvr::rollout::{FinishReason, Rollout};
use rlvr::train::{
    LabeledResponse, PreferencePair, RewardExamples, RewardModelConfig, RewardModelReport,
    evaluate_reward_model, train_reward_model,
};

use crate::common::toy;
use crate::common::toy::{distance, optimizer, tokenizer, weights};
use crate::common::{assert_close, devices};

type Model = ValueHead<CausalModel>;

/// A reward model with a nonzero head.
fn model(seed: u64, device: &Device) -> Model {
    let head: Vec<f32> = (0..16).map(|i| i as f32 / 8.0 - 0.9).collect();
    with_head(&ValueHead::new(toy::policy(seed, device)), &head, 0.25)
}

/// The same trunk under this head.
fn with_head(model: &Model, weight: &[f32], bias: f32) -> Model {
    let mut model = model.clone();
    let device = model.head.weight.device();
    let data = TensorData::new(weight.to_vec(), [weight.len(), 1]);
    let weight = Tensor::from_data(data, &device);
    model.head.weight = model.head.weight.map(|_| weight.clone().require_grad());
    let bias = Tensor::from_data([bias], &device);
    model.head.bias = model
        .head
        .bias
        .map(|old| old.map(|_| bias.clone().require_grad()));
    model
}

/// Pairs of several lengths, some with margins.
fn pairs() -> Vec<PreferencePair> {
    [
        ("a", "b", "cd", 0.0),
        ("abc", "dd", "", 0.5),
        ("", "abca", "b", -0.25),
        ("dacb", "a", "abcdabcd", 0.0),
        ("b", "cc", "ccc", 1.5),
    ]
    .map(|(prompt, chosen, rejected, margin)| PreferencePair {
        margin,
        ..PreferencePair::new(prompt, chosen, rejected)
    })
    .to_vec()
}

fn labeled() -> Vec<LabeledResponse> {
    [
        ("a", "b", 1.0),
        ("abc", "dd", 0.0),
        ("", "abcabcab", 0.3),
        ("dacb", "a", 0.5),
    ]
    .map(|(prompt, response, label)| LabeledResponse::new(prompt, response, label))
    .to_vec()
}

/// The score of `ModelReward` for a response that ended with a stop token.
fn score(reward: &ModelReward<Model>, prompt: &str, response: &str) -> f64 {
    let rollout = Rollout {
        finish: FinishReason::Stop,
        ..Rollout::new(vec![0], vec![0.0], response)
    };
    let input = RewardInput {
        rollout: Arc::new(rollout),
        ..RewardInput::new(prompt, "", "")
    };
    reward.score(&input).unwrap().unwrap()
}

fn reward(model: &Model) -> ModelReward<Model> {
    ModelReward::new(model.clone(), Arc::new(tokenizer()))
}

/// The loss by its definition, of the scores that `ModelReward` gives.
fn loss_by_definition(model: &Model, examples: RewardExamples<'_>, centering: f64) -> f64 {
    let reward = reward(model);
    let log_sigmoid = |x: f64| -(1.0 + (-x).exp()).ln();
    let losses: Vec<f64> = match examples {
        RewardExamples::Pairs(pairs) => pairs
            .iter()
            .map(|pair| {
                let chosen = score(&reward, &pair.prompt, &pair.chosen);
                let rejected = score(&reward, &pair.prompt, &pair.rejected);
                let center = (chosen + rejected).powi(2);
                -log_sigmoid(chosen - rejected - pair.margin) + centering * center
            })
            .collect(),
        RewardExamples::Labeled(all) => all
            .iter()
            .map(|one| {
                let r = score(&reward, &one.prompt, &one.response);
                -one.label * log_sigmoid(r) - (1.0 - one.label) * log_sigmoid(-r)
            })
            .collect(),
    };
    losses.iter().sum::<f64>() / losses.len() as f64
}

fn config(batch_size: usize, rate: f64) -> RewardModelConfig {
    RewardModelConfig {
        batch_size,
        optimizer: optimizer(rate),
        ..RewardModelConfig::default()
    }
}

fn train<'a>(
    model: &mut Model,
    examples: impl Into<RewardExamples<'a>>,
    config: &RewardModelConfig,
) -> Vec<RewardModelReport> {
    let mut reports = Vec::new();
    train_reward_model(model, &tokenizer(), examples, config, |report| {
        reports.push(*report);
        true
    })
    .unwrap();
    reports
}

#[test]
fn loss_and_gradient_match_the_definition() {
    let (pairs, labeled) = (pairs(), labeled());
    for (backend, device) in devices() {
        let mut model = model(1, &device);
        // Only the head is trained, of which every slope can be measured.
        model.trunk = model.trunk.no_grad();
        let start: Vec<f32> = weights(&model.head).iter().map(|&w| w as f32).collect();
        let cases: [(RewardExamples<'_>, f64); 3] = [
            ((&pairs).into(), 0.0),
            ((&pairs).into(), 0.1),
            ((&labeled).into(), 0.0),
        ];
        for (examples, centering) in cases {
            let config = RewardModelConfig {
                centering,
                ..config(10, 1e-6)
            };
            let reports = train(&mut model.clone(), examples, &config);
            let plain = loss_by_definition(&model, examples, 0.0);
            assert_close(reports[0].metrics.loss, plain, 1e-5, 1e-6, backend);
            let found = evaluate_reward_model(&model, &tokenizer(), examples, &config).unwrap();
            assert_close(found.loss, plain, 1e-5, 1e-6, backend);

            const STEP: f32 = 1.0 / 64.0;
            let slope = |at: usize| {
                let loss = |step: f32| {
                    let mut moved = start.clone();
                    moved[at] += step;
                    let moved = with_head(&model, &moved[..16], moved[16]);
                    loss_by_definition(&moved, examples, centering)
                };
                (loss(STEP) - loss(-STEP)) / f64::from(2.0 * STEP)
            };
            let slopes: Vec<f64> = (0..17).map(slope).collect();
            let norm = slopes.iter().map(|slope| slope * slope).sum::<f64>().sqrt();
            assert!(norm > 0.1, "{norm}");
            assert_close(reports[0].update.grad_norm, norm, 2e-3, 0.0, backend);
        }
    }
}

#[test]
fn the_gradient_reaches_the_first_layer() {
    let pairs = pairs();
    let examples = RewardExamples::from(&pairs);
    for (backend, device) in devices() {
        // Only the gains of the norm before the attention are trained.
        let mut model = model(1, &device).no_grad();
        let gains = |model: &Model, gains: &[f32]| {
            let mut model = model.clone();
            let norm = &mut model.trunk.layers[0].input_layernorm;
            let gamma = norm.gamma.clone();
            norm.gamma = gamma.map(|old| {
                Tensor::from_data(TensorData::new(gains.to_vec(), [16]), &old.device())
                    .require_grad()
            });
            model
        };
        model = gains(&model, &[1.0; 16]);
        let reports = train(&mut model.clone(), examples, &config(10, 1e-6));
        const STEP: f32 = 1.0 / 16.0;
        let slope = |at: usize| {
            let loss = |step: f32| {
                let mut moved = [1.0; 16];
                moved[at] += step;
                loss_by_definition(&gains(&model, &moved), examples, 0.0)
            };
            (loss(STEP) - loss(-STEP)) / f64::from(2.0 * STEP)
        };
        let slopes: Vec<f64> = (0..16).map(slope).collect();
        let norm = slopes.iter().map(|slope| slope * slope).sum::<f64>().sqrt();
        assert!(norm > 0.01, "{norm}");
        assert_close(reports[0].update.grad_norm, norm, 2e-2, 0.0, backend);
    }
}

#[test]
fn extreme_scores_have_a_finite_loss_and_gradient() {
    let pairs = vec![PreferencePair::new("a", "b", "cd")];
    let swapped = vec![PreferencePair::new("a", "cd", "b")];
    for (backend, device) in devices() {
        let mut model = model(1, &device);
        model.trunk = model.trunk.no_grad();
        let head: Vec<f32> = (0..16).map(|i| 1e3 * (i as f32 / 8.0 - 0.9)).collect();
        let model = with_head(&model, &head, 0.0);
        let run = |pairs| train(&mut model.clone(), pairs, &config(1, 1e-6))[0];
        let (one, other) = (run(&pairs), run(&swapped));
        let margin = one.metrics.margin.unwrap();
        let (wrong, right) = match margin > 0.0 {
            true => (other, one),
            false => (one, other),
        };
        assert!(margin.abs() > 200.0, "{margin}");
        assert_close(wrong.metrics.loss, margin.abs(), 1e-6, 0.0, backend);
        assert!(right.metrics.loss < 1e-60, "{right:?}");
        // The slope of the loss is -1 in the margin where it is wrong, and 0 where it is right.
        assert!(wrong.update.grad_norm > 0.1, "{wrong:?}");
        assert!(right.update.grad_norm < 1e-6, "{right:?}");
    }
}

#[test]
fn the_micro_batch_size_changes_nothing() {
    let (pairs, labeled) = (pairs(), labeled());
    let all: [RewardExamples<'_>; 2] = [(&pairs).into(), (&labeled).into()];
    for (backend, device) in devices() {
        for examples in all {
            let run = |most: usize| {
                let mut model = model(2, &device);
                let centering = match examples {
                    RewardExamples::Pairs(_) => 0.05,
                    RewardExamples::Labeled(_) => 0.0,
                };
                let config = RewardModelConfig {
                    epochs: 2,
                    max_tokens_per_micro_batch: most,
                    centering,
                    ..config(3, 1e-3)
                };
                let reports = train(&mut model, examples, &config);
                assert_eq!(reports.len(), 4);
                let found = evaluate_reward_model(&model, &tokenizer(), examples, &config);
                (
                    reports[0].update.grad_norm,
                    weights(&model),
                    found.unwrap().loss,
                )
            };
            let (norm, whole, loss) = run(1 << 20);
            for most in [1, 40] {
                let (other_norm, cut, other_loss) = run(most);
                assert_close(other_norm, norm, 1e-4, 1e-6, backend);
                assert_close(other_loss, loss, 1e-4, 1e-5, backend);
                let moved = distance(&cut, &whole);
                assert!(moved < 1e-4, "{backend}: {moved}");
            }
        }
    }
}

/// Texts over `abcd` in a fixed irregular order.
fn texts(count: usize) -> Vec<String> {
    let mut state = 7u32;
    let mut next = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    let letters = ['a', 'b', 'c', 'd'];
    let mut text = || {
        (0..2 + next(5))
            .map(|_| letters[next(4) as usize])
            .collect()
    };
    (0..count).map(|_| text()).collect()
}

/// Of two texts the one that ends in `a` or `b` is preferred to the one that does not.
fn preferences(count: usize) -> Vec<PreferencePair> {
    let texts = texts(4 * count);
    let (good, bad): (Vec<&String>, Vec<&String>) =
        texts.iter().partition(|text| text.ends_with(['a', 'b']));
    let pair = |(good, bad): (&&String, &&String)| PreferencePair::new(&good[..1], *good, *bad);
    good.iter().zip(&bad).map(pair).take(count).collect()
}

#[test]
fn a_preference_is_learned_and_generalises() {
    let all = preferences(480);
    let (seen, held_out) = all.split_at(400);
    let device = devices().remove(0).1;
    let mut model = ValueHead::new(toy::policy(3, &device)).without_bias();
    let config = RewardModelConfig {
        epochs: 8,
        centering: 0.01,
        ..config(32, 0.01)
    };
    let before = evaluate_reward_model(&model, &tokenizer(), held_out, &config).unwrap();
    // A zero head has chance accuracy.
    assert_eq!((before.accuracy, before.margin), (0.5, Some(0.0)));
    assert_close(before.brier, 0.25, 1e-12, 0.0, "Brier score");
    let reports = train(&mut model, seen, &config);
    let updates: Vec<u64> = reports.iter().map(|report| report.step).collect();
    assert_eq!(updates, (1..=config.updates(400)).collect::<Vec<_>>());
    assert_close(reports[0].metrics.loss, 2f64.ln(), 1e-6, 0.0, "first loss");
    let after = evaluate_reward_model(&model, &tokenizer(), held_out, &config).unwrap();
    assert!(after.accuracy > 0.9, "{after:?}");
    assert!(after.brier < 0.1 && after.loss < 0.4, "{after:?}");

    // As a reward it gives the same scores.
    let reward = reward(&model);
    let margin = |pair: &PreferencePair| {
        score(&reward, &pair.prompt, &pair.chosen) - score(&reward, &pair.prompt, &pair.rejected)
    };
    let margins: Vec<f64> = held_out.iter().map(margin).collect();
    let right = margins.iter().filter(|&&margin| margin > 0.0).count();
    assert_eq!(right as f64 / 80.0, after.accuracy);
    let mean = margins.iter().sum::<f64>() / 80.0;
    assert_close(mean, after.margin.unwrap(), 1e-4, 1e-4, "margin");
    // The margin is of some size, and centering keeps the scores around zero.
    let mean_score =
        |pair: &PreferencePair| score(&reward, &pair.prompt, &pair.chosen) - mean / 2.0;
    let center = held_out.iter().map(mean_score).sum::<f64>() / 80.0;
    assert!(mean > 2.0 && center.abs() < 0.25 * mean, "{mean}, {center}");
}

#[test]
fn labels_are_learned_as_probabilities() {
    let label = |text: &String| if text.ends_with('d') { 0.8 } else { 0.1 };
    let all: Vec<LabeledResponse> = texts(480)
        .iter()
        .map(|text| LabeledResponse::new("", text, label(text)))
        .collect();
    let (seen, held_out) = all.split_at(400);
    let device = devices().remove(0).1;
    let mut model = ValueHead::new(toy::policy(4, &device));
    let config = RewardModelConfig {
        epochs: 8,
        ..config(32, 0.01)
    };
    let before = evaluate_reward_model(&model, &tokenizer(), held_out, &config).unwrap();
    train(&mut model, seen, &config);
    let after = evaluate_reward_model(&model, &tokenizer(), held_out, &config).unwrap();
    assert!(after.accuracy > 0.95, "{after:?}");
    assert!(before.calibration_error > 0.15, "{before:?}");
    assert!(
        after.calibration_error < 0.05 && after.brier < 0.01,
        "{after:?}"
    );
    let reward = reward(&model);
    let odds = |p: f64| (p / (1.0 - p)).ln();
    assert_close(score(&reward, "", "abcd"), odds(0.8), 0.0, 0.4, "unsafe");
    assert_close(score(&reward, "", "dcba"), odds(0.1), 0.0, 0.4, "safe");
}

#[test]
fn invalid_data_is_an_error_before_the_first_update() {
    let device = devices().remove(0).1;
    let refuse = |model: &mut Model, examples: RewardExamples<'_>, config: &RewardModelConfig| {
        let before = weights(model);
        let mut updates = 0;
        let result = train_reward_model(model, &tokenizer(), examples, config, |_| {
            updates += 1;
            true
        });
        assert_eq!((updates, weights(model)), (0, before));
        result.unwrap_err().to_string()
    };
    let good = config(2, 1e-3);
    let with = |change: fn(&mut RewardModelConfig)| {
        let mut config = config(2, 1e-3);
        change(&mut config);
        config
    };
    let (two, long) = (pairs(), PreferencePair::new("abcd", "a", "abcdabcdabcd"));
    let pairs = |change: fn(&mut PreferencePair)| {
        let mut pairs = pairs();
        change(&mut pairs[1]);
        pairs
    };
    let cases: Vec<(Vec<PreferencePair>, RewardModelConfig, &str)> = vec![
        (
            vec![],
            good.clone(),
            "invalid `examples`: none; expected at least one",
        ),
        (
            vec![two[0].clone(), long],
            good.clone(),
            "pairs[1].rejected: got 17 tokens, expected 1 to 16, the model's positions",
        ),
        (
            pairs(|pair| pair.chosen.push('x')),
            good.clone(),
            "character 'x'",
        ),
        (
            pairs(|pair| pair.margin = f64::NAN),
            good.clone(),
            "invalid `pairs[1].margin`: NaN; expected a finite number",
        ),
        (
            two.clone(),
            with(|c| c.batch_size = 0),
            "invalid `reward_model.batch_size`: 0",
        ),
        (
            two.clone(),
            with(|c| c.max_tokens_per_micro_batch = 0),
            "invalid `reward_model.max_tokens_per_micro_batch`: 0",
        ),
        (
            two.clone(),
            with(|c| c.centering = -1.0),
            "invalid `reward_model.centering`: -1",
        ),
        (
            two.clone(),
            with(|c| c.optimizer.beta_1 = 1.0),
            "optimizer.beta_1",
        ),
    ];
    for (pairs, config, expected) in cases {
        let message = refuse(&mut model(0, &device), (&pairs).into(), &config);
        assert!(message.contains(expected), "{message}");
    }
    let wrong = vec![LabeledResponse::new("a", "b", 1.5)];
    let message = refuse(&mut model(0, &device), (&wrong).into(), &good);
    assert!(message.contains("responses[0].label"), "{message}");
    let message = refuse(
        &mut model(0, &device),
        (&labeled()).into(),
        &with(|c| c.centering = 0.01),
    );
    assert!(
        message.contains("labels, which determine the zero"),
        "{message}"
    );
    let mut frozen = model(0, &device).valid();
    let message = refuse(&mut frozen, (&two).into(), &good);
    assert!(
        message.contains("reward model") && message.contains("autodiff"),
        "{message}"
    );
    let small = CausalConfig {
        vocab_size: 5,
        ..toy::shape(5)
    };
    let mut small = ValueHead::new(small.init(0, &device.autodiff()).unwrap());
    let message = refuse(&mut small, (&two).into(), &good);
    assert!(
        message.contains("invalid `tokenizer.vocab_size`: 6"),
        "{message}"
    );
}

#[test]
fn a_configuration_has_defaults_and_rejects_unknown_fields() {
    let text = r#"{"epochs": 2, "centering": 0.01, "optimizer": {"schedule": {"peak": 6e-6}}}"#;
    let read: RewardModelConfig = serde_json::from_str(text).unwrap();
    let expected = RewardModelConfig {
        epochs: 2,
        centering: 0.01,
        optimizer: optimizer(6e-6),
        ..RewardModelConfig::default()
    };
    assert_eq!(read, expected);
    assert!(serde_json::from_str::<RewardModelConfig>(r#"{"epoch": 2}"#).is_err());
}

#[test]
fn training_stops_when_the_observer_asks() {
    let mut model = model(0, &devices().remove(0).1);
    let mut updates = 0;
    let config = RewardModelConfig {
        epochs: 9,
        ..config(2, 1e-3)
    };
    assert_eq!(config.updates(5), 27);
    train_reward_model(&mut model, &tokenizer(), &pairs(), &config, |_| {
        updates += 1;
        updates < 4
    })
    .unwrap();
    assert_eq!(updates, 4);
}

/// A tokenizer for conversations: `d` comes before and after each user message.
struct Turns(CharTokenizer);

impl Tokenizer for Turns {
    fn encode(&self, text: &str) -> rlvr::Result<Vec<u32>> {
        self.0.encode(text)
    }

    fn encode_prompt(&self, prompt: &str) -> rlvr::Result<Vec<u32>> {
        self.0.encode(&format!("d{prompt}d"))
    }

    fn decode(&self, ids: &[u32]) -> rlvr::Result<String> {
        self.0.decode(ids)
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        self.0.token_id(token)
    }

    fn stop_tokens(&self) -> Vec<u32> {
        self.0.stop_tokens()
    }
}

#[test]
fn conversations_are_rendered_the_same_in_training_and_as_a_reward() {
    let device = devices().remove(0).1;
    let model = model(5, &device);
    let pair = vec![PreferencePair::new("ab", "c", "ba")];
    let margin = |conversation: bool| {
        let config = RewardModelConfig {
            conversation,
            ..config(1, 1e-3)
        };
        let found = evaluate_reward_model(&model, &Turns(tokenizer()), &pair, &config);
        found.unwrap().margin.unwrap()
    };
    let plain = ModelReward::new(model.clone(), Arc::new(Turns(tokenizer())));
    let by_hand = score(&plain, "dabd", "c") - score(&plain, "dabd", "ba");
    let turns = plain.with_conversation();
    let scored = score(&turns, "ab", "c") - score(&turns, "ab", "ba");
    assert_close(margin(true), by_hand, 1e-5, 1e-6, "by hand");
    assert_close(margin(true), scored, 1e-5, 1e-6, "as a reward");
    assert!((margin(false) - by_hand).abs() > 1e-2, "{by_hand}");
}
