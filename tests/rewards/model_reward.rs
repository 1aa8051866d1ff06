//! A reward model as a reward: the value after the last token, independent of the batch.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{PolicyModel, PrefixedBatch, ValueHead, ValueModel};
use rlvr::prompt::{CharTokenizer, Tokenizer};
use rlvr::reward::{ModelReward, Reward, RewardInput, RewardOptions, RewardSet};
use rlvr::rollout::{FinishReason, RewardOutcome, Rollout};

use crate::common;

/// 4 characters: `a` is 2, since padding is 0 and the end is 1.
fn tokenizer() -> Arc<CharTokenizer> {
    Arc::new(CharTokenizer::new("abcd", &[]).unwrap())
}

/// `V(s_t)` is the sum of the row's token ids up to t, each times its place: what a model of known
/// values looks like.
#[derive(Module, Debug)]
struct Known {
    trunk: CausalModel,
}

impl ValueModel for Known {
    fn values(&self, batch: &PrefixedBatch) -> rlvr::Result<Tensor<2>> {
        let tokens = &batch.rows;
        assert!(tokens.rows() <= 3, "at most the batch size");
        let width = tokens.width();
        let place = Tensor::<1, Int>::arange(1..width as i64 + 1, &self.device());
        let each = (tokens.ids.clone() * place.unsqueeze::<2>()).float();
        Ok(each.cumsum(1))
    }

    fn device(&self) -> Device {
        self.trunk.device()
    }
}

fn trunk(device: &Device) -> CausalModel {
    let config = CausalConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 16,
        ..CausalConfig::new(tokenizer().vocab_size())
    };
    config.init(3, device).unwrap()
}

/// A nonzero head.
fn head(device: &Device) -> ValueHead<CausalModel> {
    let mut model = ValueHead::new(trunk(device));
    let row = |i: i32| vec![f64::from(i) / 8.0 - 0.9];
    let weight: Vec<Vec<f64>> = (0..16).map(row).collect();
    let weight = common::matrix(&weight, device);
    model.head.weight = model.head.weight.map(|_| weight.clone());
    model
}

fn input(prompt: &str, completion: &str, finish: FinishReason) -> RewardInput {
    let rollout = Rollout {
        finish,
        ..Rollout::new(vec![7], vec![-0.5], completion)
    };
    RewardInput {
        rollout: Arc::new(rollout),
        ..RewardInput::new(prompt, "", "")
    }
}

fn inputs() -> Vec<RewardInput> {
    [
        ("a", "b", FinishReason::Stop),
        ("abcd", "", FinishReason::Length),
        ("d", "dcba", FinishReason::Stop),
        ("", "c", FinishReason::Length),
    ]
    .into_iter()
    .map(|(prompt, completion, finish)| input(prompt, completion, finish))
    .collect()
}

#[test]
fn the_score_is_the_value_after_the_last_token() {
    for (_, device) in common::devices() {
        let known = Known {
            trunk: trunk(&device),
        };
        let reward = ModelReward::new(known, tokenizer()).with_batch(3);
        let set = RewardSet::builder().add(1.0, reward).build().unwrap();
        let scored = set.score(inputs());
        let totals: Vec<f64> = scored.iter().map(|one| one.reward.unwrap()).collect();
        let expected = [
            2. + 2. * 3. + 3. * 1.,
            2. + 2. * 3. + 3. * 4. + 4. * 5.,
            5. + 2. * 5. + 3. * 4. + 4. * 3. + 5. * 2. + 6. * 1.,
            4.,
        ];
        assert_eq!(totals, expected);
    }
}

#[test]
fn the_score_does_not_depend_on_the_batch() {
    for (name, device) in common::devices() {
        let score = |batch: usize| -> Vec<f64> {
            let reward = ModelReward::new(head(&device), tokenizer()).with_batch(batch);
            let set = RewardSet::builder().add(1.0, reward).build().unwrap();
            let scored = set.score(inputs());
            scored.iter().map(|one| one.reward.unwrap()).collect()
        };
        let alone = score(1);
        assert!(
            alone
                .windows(2)
                .all(|pair| (pair[0] - pair[1]).abs() > 1e-3),
            "{alone:?}"
        );
        for batch in [2, 4, 100] {
            for (a, b) in alone.iter().zip(score(batch)) {
                common::assert_close(b, *a, 1e-5, 1e-5, name);
            }
        }
    }
}

#[test]
fn a_text_too_long_for_the_model_fails_alone() {
    let device = common::devices().remove(0).1;
    let reward = ModelReward::new(head(&device), tokenizer())
        .with_name("judge")
        .with_max_tokens(5);
    let options = RewardOptions::new().with_batch(10).with_concurrency(1);
    let set = RewardSet::builder().add_with(1.0, reward, options);
    let set = set.build().unwrap();
    let mut all = inputs();
    all.push(input("x", "y", FinishReason::Stop));
    all.push(input("", "", FinishReason::Length));
    let scored = set.score(all);
    assert_eq!(scored[0].rewards[0].name, "judge");
    let failure = |i: usize| match &scored[i].rewards[0].outcome {
        RewardOutcome::Failed(message) => message.clone(),
        outcome => panic!("{outcome:?}"),
    };
    for i in [0, 1, 3] {
        assert!(scored[i].reward.is_some(), "{:?}", scored[i]);
    }
    assert_eq!(failure(2), "6 tokens; the model reads at most 5");
    assert!(failure(4).contains("'x'"), "{}", failure(4));
    assert!(failure(5).contains("nothing to read"), "{}", failure(5));
    // An error of the model fails the batch with its message.
    let long = input("a", &"b".repeat(20), FinishReason::Length);
    let reward = ModelReward::new(head(&device), tokenizer());
    let error = reward.score(&long).unwrap_err().to_string();
    assert!(error.contains("max_position_embeddings = 16"), "{error}");
    let both = reward.score_batch(&[&long, &inputs()[0]]);
    assert!(both.iter().all(|one| one.is_err()));
}

#[test]
fn the_model_reads_the_rendered_template() {
    let device = common::devices().remove(0).1;
    let known = Known {
        trunk: trunk(&device),
    };
    let reward =
        ModelReward::new(known, tokenizer()).with_template(|input| input.completion().to_string());
    let input = input("dddd", "ab", FinishReason::Length);
    assert_eq!(reward.score(&input).unwrap(), Some(2.0 + 2.0 * 3.0));
    let reward = || ModelReward::new(head(&device), tokenizer());
    for (reward, field) in [
        (reward().with_batch(0), "batch"),
        (reward().with_max_tokens(0), "max_tokens"),
    ] {
        let set = RewardSet::builder().add(1.0, reward);
        let error = set.build().unwrap_err().to_string();
        let start = format!("invalid `rewards[0].{field}`: 0; expected 1 or more");
        assert_eq!(error, start);
    }
}
