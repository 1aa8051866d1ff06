//! Rollouts after sampling: scoring, padding and the file format.

use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use rlvr::Error;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{LogProbConfig, PolicyModel, TokenBatch, ValueHead, ValueModel};
use rlvr::prompt::{CharTokenizer, Problem, Tokenizer};
use rlvr::rollout::{
    Completion, FinishReason, GenerationConfig, GenerationRequest, RewardOutcome, RewardRecord,
    Rollout, RolloutBatch, RolloutBuffer, RolloutGroup, RolloutView, SamplingConfig, generate,
    sample_group,
};

use crate::common::{assert_close, devices, floats, matrix};

const VOCABULARY: usize = 12;

fn model(layers: usize, device: &Device) -> CausalModel {
    CausalConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: layers,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 24,
        attention_bias: true,
        ..CausalConfig::new(VOCABULARY)
    }
    .init(8, device)
    .unwrap()
}

/// Completions of different lengths to each prompt, drawn from `model`.
fn sampled(
    model: &CausalModel,
    prompts: &[Vec<u32>],
    samples: usize,
    temperature: f64,
) -> RolloutBuffer {
    let requests: Vec<GenerationRequest> = prompts
        .iter()
        .enumerate()
        .map(|(problem, prompt)| GenerationRequest {
            prompt: prompt.clone(),
            samples,
            address: vec![3, problem as u64],
        })
        .collect();
    let config = GenerationConfig {
        sampling: SamplingConfig {
            temperature,
            ..SamplingConfig::default()
        },
        max_new_tokens: 7,
        stop_tokens: vec![1, 5, 9],
        ..GenerationConfig::default()
    };
    let tokenizer = CharTokenizer::new("0123456789", &[]).unwrap();
    let mut buffer = RolloutBuffer::new();
    let answers = generate(model, &requests, &config).unwrap();
    for (prompt, completions) in prompts.iter().zip(answers) {
        let problem = Problem::new("1", "2");
        buffer.push(sample_group(problem, prompt.clone(), completions, &tokenizer, 0).unwrap());
    }
    buffer
}

/// A rollout of the given tokens whose log-probs are `-0.1`, `-0.2`, ...
fn rollout(tokens: &[u32]) -> Rollout {
    let log_probs = (1..=tokens.len()).map(|t| -0.1 * t as f32).collect();
    Rollout {
        entropy: Some(0.5),
        finish: FinishReason::Length,
        ..Rollout::new(tokens.to_vec(), log_probs, "")
    }
}

fn group(prompt: &[u32], completions: &[&[u32]]) -> RolloutGroup {
    let rollouts = completions.iter().map(|tokens| rollout(tokens)).collect();
    RolloutGroup::new(Problem::new("1", "2"), prompt.to_vec(), rollouts)
}

/// Two groups, four rollouts of 3, 1, 2 and 4 tokens.
fn buffer() -> RolloutBuffer {
    RolloutBuffer {
        groups: vec![
            group(&[2, 3, 4], &[&[6, 7, 1], &[1]]),
            group(&[8], &[&[2, 3], &[4, 5, 6, 7]]),
        ],
    }
}

// ---- as tensors --------------------------------------------------------------------------------

/// Prompts whose shared part is ragged, and prompts without one.
fn prompt_sets() -> [Vec<Vec<u32>>; 2] {
    [
        vec![vec![2, 3, 4, 6, 7, 8], vec![9, 10, 11], vec![2]],
        vec![vec![4], vec![7]],
    ]
}

#[test]
fn training_log_probs_equal_sampling_log_probs() {
    for (backend, device) in devices() {
        let model = model(2, &device);
        for prompts in prompt_sets() {
            for temperature in [1.0, 0.7] {
                let what = format!("{backend} {} prompts at {temperature}", prompts.len());
                let buffer = sampled(&model, &prompts, 5, temperature);
                let lengths = buffer.lengths();
                assert!(lengths.iter().any(|&len| len != lengths[0]), "{what}");
                let all: Vec<usize> = (0..buffer.len()).collect();
                let batch = RolloutBatch::new(&RolloutView::new(&buffer), &all, &device).unwrap();
                let config = LogProbConfig {
                    temperature,
                    chunk: 7,
                };
                let scores = batch.score(&model, &config).unwrap();
                let got = batch.unpad(scores.log_probs, "log-probs").unwrap();
                let drawn = buffer.log_probs();
                let entropies = batch.unpad(scores.entropies, "entropies").unwrap();
                for (row, rollout) in buffer.rollouts().enumerate() {
                    for (t, want) in rollout.log_probs.iter().enumerate() {
                        let want = f64::from(*want);
                        assert_eq!(drawn[row][t], want, "{what}");
                        assert_close(got[row][t], want, 0.0, 1e-4, &what);
                    }
                    let entropy = entropies[row].iter().sum();
                    assert_close(rollout.entropy.unwrap(), entropy, 0.0, 1e-3, &what);
                }
                // At another temperature the values differ, so the comparison above can fail.
                let other = LogProbConfig {
                    temperature: 1.5,
                    chunk: 7,
                };
                let other = batch.score(&model, &other).unwrap().log_probs;
                let other = batch.unpad(other, "log-probs").unwrap();
                let gap = other.zip_with(&drawn, |a, b| (a - b).abs()).unwrap();
                let gap: f64 = gap.values().sum();
                assert!(gap > 0.1, "{what} {gap}");
            }
        }
    }
}

#[test]
fn scoring_a_subset_equals_scoring_the_whole_buffer() {
    for (backend, device) in devices() {
        let model = model(1, &device);
        let buffer = sampled(&model, &prompt_sets()[0], 4, 1.0);
        let want: Vec<&Vec<f32>> = buffer.rollouts().map(|r| &r.log_probs).collect();
        for choice in [vec![11], vec![9, 8], vec![5, 0, 5, 11, 2], vec![3, 2, 1, 0]] {
            let batch = RolloutBatch::new(&RolloutView::new(&buffer), &choice, &device).unwrap();
            assert_eq!(batch.rollouts, choice);
            let scores = batch.score(&model, &LogProbConfig::default()).unwrap();
            let got = batch.unpad(scores.log_probs, "log-probs").unwrap();
            for (row, &index) in choice.iter().enumerate() {
                assert_eq!(got[row].len(), want[index].len(), "{backend} {choice:?}");
                for (got, want) in got[row].iter().zip(want[index]) {
                    let what = format!("{backend} {choice:?}");
                    assert_close(*got, f64::from(*want), 0.0, 1e-4, &what);
                }
            }
        }
    }
}

#[test]
fn scoring_records_no_gradient_and_training_does() {
    let (_, device) = devices().remove(0);
    let tracked = model(1, &device.clone().autodiff());
    let batch = RolloutBatch::new(&RolloutView::new(&buffer()), &[0, 3], &device).unwrap();
    let scores = batch.score(&tracked, &LogProbConfig::default()).unwrap();
    assert!(!scores.log_probs.is_autodiff());
    assert!(batch.hidden_states(&tracked).unwrap().is_autodiff());
}

#[test]
fn the_value_of_a_column_is_of_the_state_before_its_token() {
    for (backend, device) in devices() {
        let mut critic = ValueHead::new(model(1, &device));
        let weights: Vec<Vec<f64>> = (0..16).map(|d| vec![0.3 * f64::from(d) - 2.0]).collect();
        critic.head = Linear {
            weight: burn::module::Param::from_tensor(matrix(&weights, &device)),
            bias: None,
        };
        let buffer = buffer();
        let batch = RolloutBatch::new(&RolloutView::new(&buffer), &[0, 1, 2, 3], &device).unwrap();
        let values = batch.values(&critic).unwrap();
        let values = batch.unpad(values, "values").unwrap();
        let groups = buffer.group_ids();
        for (row, rollout) in buffer.rollouts().enumerate() {
            let prompt = &buffer.groups[groups[row]].prompt_tokens;
            assert_eq!(values[row].len(), rollout.tokens.len());
            for (t, got) in values[row].iter().enumerate() {
                let state = [prompt.as_slice(), &rollout.tokens[..t]].concat();
                let tokens = TokenBatch::from_rows(&[&state], &device).unwrap();
                let whole = critic.values(&tokens.into()).unwrap();
                let want = *floats(whole).last().unwrap();
                assert_close(*got, want, 1e-4, 1e-4, backend);
            }
        }
        assert!((values[0][0] - values[0][1]).abs() > 1e-3);
    }
}

#[test]
fn targets_mask_and_lengths_match_the_rollouts() {
    for (_, device) in devices() {
        let batch = RolloutBatch::new(&RolloutView::new(&buffer()), &[3, 0, 1], &device).unwrap();
        assert_eq!(batch.lengths, [4, 3, 1]);
        assert_eq!((batch.rows(), batch.tokens()), (3, 8));
        let targets = batch.targets.clone().try_into_vec_as::<i32>().unwrap();
        assert_eq!(targets, [4, 5, 6, 7, 6, 7, 1, 0, 1, 0, 0, 0]);
        let mask = [1., 1., 1., 1., 1., 1., 1., 0., 1., 0., 0., 0.];
        assert_eq!(floats(batch.mask.clone()), mask);
        let sampler = batch.per_token(&buffer().log_probs(), "sampler").unwrap();
        let want = [
            -0.1, -0.2, -0.3, -0.4, -0.1, -0.2, -0.3, 0., -0.1, 0., 0., 0.,
        ];
        for (got, want) in floats(sampler).iter().zip(want) {
            assert_close(*got, want, 0.0, 1e-7, "sampler log-probs");
        }
    }
}

#[test]
fn padding_and_unpadding_round_trips() {
    for (_, device) in devices() {
        let batch = RolloutBatch::new(&RolloutView::new(&buffer()), &[3, 1], &device).unwrap();
        // One row for every rollout of the buffer, whichever the batch holds.
        let mut rows: Vec<Vec<f64>> = vec![
            vec![1.0, 2.0, 3.0],
            vec![4.0],
            vec![5.0, 6.0],
            vec![7.0, 8.0, 9.0, 10.5],
        ];
        let tensor = batch.per_token(&rows.clone().into(), "advantages").unwrap();
        assert_eq!(
            floats(tensor.clone()),
            [7.0, 8.0, 9.0, 10.5, 4.0, 0.0, 0.0, 0.0]
        );
        let back = batch.unpad(tensor, "advantages").unwrap();
        assert_eq!(back, [rows[3].clone(), rows[1].clone()]);

        // An invalid row outside the batch has no effect.
        rows[0].clear();
        assert!(batch.per_token(&rows.clone().into(), "advantages").is_ok());
        rows[3].pop();
        let message = batch
            .per_token(&rows.clone().into(), "advantages")
            .unwrap_err();
        assert_eq!(
            message.to_string(),
            "advantages of rollout 3: got 3, expected 4, one for each trained token"
        );
        rows.truncate(2);
        let message = batch
            .per_token(&rows.clone().into(), "returns")
            .unwrap_err()
            .to_string();
        assert!(message.contains("returns of rollout 3: got 0"), "{message}");
    }
}

#[test]
fn invalid_rollouts_are_errors_with_their_index() {
    let (_, device) = devices().remove(0);
    let refusal = |buffer: &RolloutBuffer, indices: &[usize]| {
        RolloutBatch::new(&RolloutView::new(buffer), indices, &device)
            .unwrap_err()
            .to_string()
    };
    let message = refusal(&buffer(), &[0, 4]);
    assert!(
        message.contains("rollout index: got 4, expected below 4"),
        "{message}"
    );

    let mut broken = buffer();
    broken.groups[0].rollouts[1].tokens.clear();
    let message = refusal(&broken, &[0, 1]);
    assert!(message.contains("rollout 1: got 3 + 0 tokens"), "{message}");
    // The others can still be used.
    assert!(RolloutBatch::new(&RolloutView::new(&broken), &[0, 2], &device).is_ok());

    let mut broken = buffer();
    broken.groups[1].prompt_tokens.clear();
    let message = refusal(&broken, &[2]);
    assert!(message.contains("rollout 2: got 0 + 2 tokens"), "{message}");

    let mut broken = buffer();
    broken.groups[1].rollouts[1].log_probs.pop();
    let message = refusal(&broken, &[3]);
    assert!(
        message.contains("log-probs of rollout 3: got 3, expected 4"),
        "{message}"
    );

    assert!(RolloutBatch::new(&RolloutView::new(&buffer()), &[], &device).is_err());
}

#[test]
fn a_policy_of_other_weights_scores_the_tokens_differently() {
    let (_, device) = devices().remove(0);
    let batch = RolloutBatch::new(&RolloutView::new(&buffer()), &[0, 1, 2, 3], &device).unwrap();
    let score = |model: &CausalModel| {
        let scores = batch.score(model, &LogProbConfig::default()).unwrap();
        floats(scores.log_probs)
    };
    let mut other = model(1, &device);
    let zeros: Tensor<2> = Tensor::zeros(other.embed_tokens.weight.dims(), &device);
    let want = -(VOCABULARY as f64).ln();
    assert!(
        score(&other)
            .iter()
            .any(|log_prob| (log_prob - want).abs() > 0.01)
    );
    // Without an embedding all tokens have equal probability.
    other.embed_tokens.weight = burn::module::Param::from_tensor(zeros);
    assert_eq!(other.unembedding().dims(), [16, VOCABULARY]);
    for log_prob in score(&other) {
        assert_close(log_prob, want, 1e-6, 0.0, "uniform");
    }
}

#[test]
fn a_group_decodes_tokens_without_the_stop_token() {
    let tokenizer = CharTokenizer::new("0123456789", &[]).unwrap();
    assert_eq!(tokenizer.vocab_size(), VOCABULARY);
    let completion = |tokens: &[u32], finish| Completion {
        entropy: Some(1.25),
        ..Completion::new(tokens.to_vec(), vec![-0.5; tokens.len()], finish)
    };
    let group = sample_group(
        Problem::new("12", "3"),
        vec![3, 4],
        vec![
            completion(&[5, 6, 1], FinishReason::Stop),
            completion(&[7, 8], FinishReason::Length),
            completion(&[1], FinishReason::Stop),
        ],
        &tokenizer,
        9,
    )
    .unwrap();
    assert_eq!(group.prompt_tokens, [3, 4]);
    let texts: Vec<&str> = group.rollouts.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(texts, ["34", "56", ""]);
    let cut: Vec<bool> = group.rollouts.iter().map(|r| r.is_truncated()).collect();
    assert_eq!(cut, [false, true, false]);
    for (sample, rollout) in group.rollouts.iter().enumerate() {
        assert_eq!((rollout.sample, rollout.policy_version), (sample, 9));
        assert_eq!((rollout.entropy, rollout.reward), (Some(1.25), None));
        assert_eq!(rollout.log_probs, vec![-0.5; rollout.tokens.len()]);
    }
    assert_eq!(group.rollouts[0].tokens, [5, 6, 1]);
    // The policy can have more tokens than the tokenizer.
    let outside = vec![completion(&[5, 99, 6], FinishReason::Length)];
    let group = sample_group(Problem::new("1", "1"), vec![3], outside, &tokenizer, 0).unwrap();
    assert_eq!(group.rollouts[0].text, "3\u{fffd}4");
    assert_eq!(group.rollouts[0].tokens, [5, 99, 6]);
}

// ---- written and read back ---------------------------------------------------------------------

/// Every finish reason and reward outcome, and values that a careless format would change.
fn scored() -> RolloutBuffer {
    let record = |name: &str, weight: f64, outcome| RewardRecord {
        name: name.into(),
        weight,
        outcome,
        seconds: 0.1 + weight.abs(),
    };
    let mut buffer = buffer();
    let first = &mut buffer.groups[0];
    let problem = Problem::new("say \"1\u{2028}\n\t\"", "e\u{301}");
    first.problem = problem.with_metadata("k", 0.1).into();
    first.rollouts[0].finish = FinishReason::Stop;
    first.rollouts[0].text = "line\nline \u{1F600}".into();
    first.rollouts[0].log_probs = vec![-1.1754944e-38, -0.1, -16_777_217.0];
    first.rollouts[0].entropy = Some(0.1 + 0.2);
    first.rollouts[0].policy_version = u64::MAX;
    first.rollouts[0].rewards = vec![
        record("accuracy", 1.0, RewardOutcome::Score(1.0 / 3.0)),
        record("format", -0.0, RewardOutcome::Abstained),
        record("tests", 0.3, RewardOutcome::Failed("no \"answer\"".into())),
        record("judge", 1e-300, RewardOutcome::Panicked("at 3".into())),
        record("code", 2.0, RewardOutcome::TimedOut(2.5)),
        record("short", 0.1, RewardOutcome::Gated(-0.1)),
    ];
    first.rollouts[0].reward = Some(1.0 / 3.0);
    first.rollouts[1].sample = 1;
    first.rollouts[1].reward = Some(0.0);
    buffer.groups[1].rollouts[1].reward = Some(-2.0);
    buffer
}

#[test]
fn a_written_buffer_is_read_back_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollouts.jsonl");
    let buffer = scored();
    buffer.write(&path).unwrap();
    let read = RolloutBuffer::read(&path).unwrap();
    assert_eq!(read, buffer);
    // Bit for bit: equality would let -0 pass for 0.
    let record = &read.groups[0].rollouts[0].rewards[1];
    assert!(record.weight.is_sign_negative());
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2, "one group a line");

    let rollout = &read.groups[0].rollouts[0];
    assert_eq!(rollout.score("accuracy"), Some(1.0 / 3.0));
    let seconds: Vec<f64> = rollout
        .rewards
        .iter()
        .map(|record| record.seconds)
        .collect();
    assert_eq!(seconds, [1.1, 0.1, 0.4, 0.1 + 1e-300, 2.1, 0.2]);
    for name in ["format", "tests", "judge", "code", "short", "absent"] {
        assert_eq!(rollout.score(name), None, "{name}");
    }
    let failed: Vec<bool> = rollout
        .rewards
        .iter()
        .map(|record| record.outcome.is_failure())
        .collect();
    assert_eq!(failed, [false, false, true, true, true, false]);

    // Writing again replaces; an empty buffer is an empty file.
    RolloutBuffer::new().write(&path).unwrap();
    assert!(RolloutBuffer::read(&path).unwrap().is_empty());
}

#[test]
fn the_written_form_is_stable_across_releases() {
    let outcome = |outcome: &RewardOutcome| serde_json::to_string(outcome).unwrap();
    for (value, text) in [
        (RewardOutcome::Score(0.5), r#"{"score":0.5}"#),
        (RewardOutcome::Abstained, r#""abstained""#),
        (RewardOutcome::Failed("x".into()), r#"{"failed":"x"}"#),
        (RewardOutcome::Panicked("x".into()), r#"{"panicked":"x"}"#),
        (RewardOutcome::TimedOut(2.0), r#"{"timed_out":2.0}"#),
    ] {
        assert_eq!(outcome(&value), text);
    }
    let line = serde_json::to_string(&group(&[2], &[&[1]])).unwrap();
    assert_eq!(
        line,
        concat!(
            r#"{"problem":{"prompt":"1","answer":"2","metadata":{}},"prompt_tokens":[2],"#,
            r#""rollouts":[{"tokens":[1],"log_probs":[-0.1],"entropy":0.5,"text":"","finish":"length","#,
            r#""policy_version":0,"sample":0,"rewards":[],"reward":null}]}"#,
        )
    );
}

#[test]
fn an_invalid_line_is_an_error_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollouts.jsonl");
    scored().write(&path).unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    let second = good.lines().nth(1).unwrap();
    // Cut off in the middle, a misspelt field, a blank line.
    for bad in [
        &second[..second.len() / 2],
        &second.replace("\"entropy\"", "\"entropie\""),
        "",
    ] {
        let first = good.lines().next().unwrap();
        std::fs::write(&path, format!("{first}\n{bad}\n{second}\n")).unwrap();
        let error = RolloutBuffer::read(&path).unwrap_err();
        assert!(matches!(error, Error::Data { line: 2, .. }), "{error:?}");
        let place = format!("{}:2: ", path.display());
        assert!(error.to_string().starts_with(&place), "{error}");
    }
    let absent = folder.path().join("absent.jsonl");
    let error = RolloutBuffer::read(&absent).unwrap_err();
    assert!(error.to_string().contains("absent.jsonl"), "{error}");
    let error = scored().write(folder.path().join("no/folder")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
}

#[test]
fn per_rollout_values_keep_the_order_of_the_rollouts() {
    let mut buffer = scored();
    buffer.groups.insert(1, group(&[2], &[]));
    assert_eq!((buffer.len(), buffer.tokens()), (4, 10));
    assert_eq!(buffer.lengths(), [3, 1, 2, 4]);
    // A group without rollouts keeps its number.
    assert_eq!(buffer.group_ids(), [0, 0, 2, 2]);
    assert_eq!(
        buffer.rewards(),
        [Some(1.0 / 3.0), Some(0.0), None, Some(-2.0)]
    );
    let firsts: Vec<u32> = buffer.rollouts().map(|rollout| rollout.tokens[0]).collect();
    assert_eq!(firsts, [6, 1, 2, 4]);
    for (number, rollout) in buffer.rollouts_mut().enumerate() {
        rollout.reward = Some(number as f64);
    }
    let rewards: Vec<f64> = buffer.rewards().into_iter().flatten().collect();
    assert_eq!(rewards, [0.0, 1.0, 2.0, 3.0]);
    assert!(!buffer.is_empty() && RolloutBuffer::new().is_empty());
}

// ---- tokens that the policy did not sample -------------------------------------------------------

#[test]
fn observation_tokens_are_context_only() {
    for (backend, device) in devices() {
        let model = model(1, &device);
        let config = LogProbConfig::default();
        let whole = buffer();
        let mut masked = buffer();
        // The reply of a tool within the last rollout.
        let last = masked.rollouts_mut().last().unwrap();
        last.mask = vec![true, false, false, true];
        last.log_probs[1] = f32::NAN;
        assert_eq!((whole.tokens(), masked.tokens()), (10, 8));
        assert_eq!(masked.lengths(), [3, 1, 2, 2]);

        let score = |buffer: &RolloutBuffer| {
            let batch = RolloutBatch::all(buffer, &device).unwrap();
            let scores = batch.score(&model, &config).unwrap();
            batch.unpad(scores.log_probs, "log-probs").unwrap()
        };
        let (all, some) = (score(&whole), score(&masked));
        assert_eq!(some.lengths(), masked.lengths(), "{backend}");
        // The tokens around them are read as before.
        assert_eq!(some[3], [all[3][0], all[3][3]], "{backend}");
        assert_eq!(masked.log_probs().lengths(), masked.lengths());

        let batch = RolloutBatch::all(&masked, &device).unwrap();
        let mask = floats(batch.mask.clone());
        assert_eq!(mask[12..], [1.0, 0.0, 0.0, 1.0], "{backend}");
        let spread = batch.per_token(&some, "log-probs").unwrap();
        let spread = floats(spread);
        assert_eq!((spread[13], spread[14]), (0.0, 0.0), "{backend}");
        assert_eq!(spread[15], all[3][3], "{backend}");

        masked.rollouts_mut().last().unwrap().mask.pop();
        let refused = RolloutBatch::all(&masked, &device).unwrap_err().to_string();
        assert!(refused.contains("mask of rollout 3: got 3"), "{refused}");
    }
}
