//! Supervised fine-tuning: responses are trained, prompts are not.

use burn::module::Module;
use rlvr::policy::causal::CausalModel;
use rlvr::policy::{PolicyModel, TokenBatch};
use rlvr::prompt::{Problem, Tokenizer};
use rlvr::train::{Demonstration, EvaluationConfig, SftConfig, SftReport, evaluate, supervise};

use crate::common::toy;
use crate::common::{assert_close, devices, floats};

/// One layer cannot count: `a` and `aa` look the same, so no response repeats its prompt, and no
/// prompt with a part of its response is another prompt.
fn demonstrations() -> Vec<Demonstration> {
    [("a", "c"), ("ab", "ca"), ("c", "d"), ("cad", "bca")]
        .map(|(prompt, response)| Demonstration {
            prompt: prompt.into(),
            response: response.into(),
        })
        .to_vec()
}

fn config(steps: u64) -> SftConfig {
    SftConfig {
        steps,
        batch_size: 4,
        optimizer: toy::optimizer(0.02),
        ..SftConfig::default()
    }
}

fn learn(policy: &mut CausalModel, data: &[Demonstration], config: &SftConfig) -> Vec<SftReport> {
    let mut reports = Vec::new();
    supervise(policy, &toy::tokenizer(), data, config, |report| {
        reports.push(*report);
        true
    })
    .unwrap();
    reports
}

/// `-ln p` of every token of the response and of its end, from logits, one sequence at a time.
pub fn response_nll(policy: &CausalModel, data: &[Demonstration]) -> (f64, usize) {
    let tokenizer = toy::tokenizer();
    let (mut sum, mut count) = (0.0, 0);
    for Demonstration { prompt, response } in data {
        let prompt = tokenizer.encode(prompt).unwrap();
        let mut response = tokenizer.encode(response).unwrap();
        response.extend(tokenizer.stop_tokens().first());
        let all = [&prompt[..], &response].concat();
        let batch = TokenBatch::from_rows(&[&all[..]], &policy.device()).unwrap();
        let hidden = policy.forward(&batch, &mut policy.empty_cache(1)).unwrap();
        let logits = floats(hidden.squeeze_dim::<2>(0).matmul(policy.unembedding()));
        for (at, &token) in response.iter().enumerate() {
            let row = &logits[(prompt.len() + at - 1) * 6..][..6];
            let total: f64 = row.iter().map(|logit| logit.exp()).sum();
            sum += total.ln() - row[token as usize];
            count += 1;
        }
    }
    (sum, count)
}

#[test]
fn the_first_loss_is_the_mean_over_response_and_end_tokens() {
    for (backend, device) in devices() {
        let mut policy = toy::policy(0, &device);
        let data = demonstrations();
        let (sum, count) = response_nll(&policy, &data);
        assert_eq!(count, 1 + 2 + 1 + 3 + 4);
        let reports = learn(&mut policy, &data, &config(1));
        let want = sum / count as f64;
        assert_close(reports[0].loss, want, 1e-5, 1e-6, backend);
    }
}

#[test]
fn the_policy_learns_the_demonstrations() {
    let mut policy = toy::policy(0, &toy::device());
    let data = demonstrations();
    let reports = learn(&mut policy, &data, &config(150));
    let steps: Vec<u64> = reports.iter().map(|report| report.step).collect();
    assert_eq!(steps, (1..=150).collect::<Vec<_>>());
    let (first, last) = (reports[0].loss, reports[149].loss);
    assert!(first > 1.0 && last < 0.05, "{first} to {last}");
    assert!(reports.iter().all(|r| r.update.learning_rate == 0.02));

    let ask = |shown: &Demonstration| Problem::new(&shown.prompt, &shown.response);
    let problems: Vec<Problem> = data.iter().map(ask).collect();
    let found = evaluate(
        &policy,
        &toy::tokenizer(),
        &toy::rewards(),
        &problems,
        &toy::config().generation,
        &EvaluationConfig::default(),
    )
    .unwrap();
    assert_eq!(found.accuracy, 1.0);
    let said: Vec<&str> = found.greedy.rollouts().map(|r| r.text.as_str()).collect();
    assert_eq!(said, ["c", "ca", "d", "bca"]);
    assert!(found.greedy.rollouts().all(|r| !r.is_truncated()));
}

#[test]
fn prompts_are_read_but_not_trained() {
    // The last prompt token predicts the response; predictions of prompt tokens have no gradient.
    // Training on the prompt "aaaa" would make `a` likely after `a`; the response has `b`.
    let data = vec![Demonstration {
        prompt: "aaaa".into(),
        response: "b".into(),
    }];
    let mut policy = toy::policy(0, &toy::device());
    let before = response_nll(&policy, &data).0;
    let one = SftConfig {
        batch_size: 1,
        ..config(1)
    };
    let reports = learn(&mut policy, &data, &one);
    assert_close(reports[0].loss, before / 2.0, 1e-5, 1e-6, "loss");

    let more = SftConfig {
        batch_size: 1,
        ..config(40)
    };
    learn(&mut policy, &data, &more);
    // In every state after an `a`, `a` has not become the likely continuation.
    let prompt = toy::tokenizer().encode("aaaa").unwrap();
    let batch = TokenBatch::from_rows(&[&prompt[..]], &policy.device()).unwrap();
    let hidden = policy.forward(&batch, &mut policy.empty_cache(1)).unwrap();
    let logits = floats(hidden.squeeze_dim::<2>(0).matmul(policy.unembedding()));
    for row in logits.chunks_exact(6) {
        let total: f64 = row.iter().map(|logit| logit.exp()).sum();
        let again = row[prompt[0] as usize].exp() / total;
        assert!(again < 0.2, "{again}");
    }
}

#[test]
fn training_stops_when_the_observer_asks() {
    let mut policy = toy::policy(0, &toy::device());
    let mut seen = 0;
    let data = demonstrations();
    let enough = |report: &SftReport| {
        seen = report.step;
        report.step < 3
    };
    supervise(&mut policy, &toy::tokenizer(), &data, &config(50), enough).unwrap();
    assert_eq!(seen, 3);
}

#[test]
fn empty_data_is_an_error() {
    let mut policy = toy::policy(0, &toy::device());
    let start = toy::weights(&policy);
    let mut go = |data: &[Demonstration], config: &SftConfig| {
        let result = supervise(&mut policy, &toy::tokenizer(), data, config, |_| true);
        result.unwrap_err().to_string()
    };
    assert!(go(&[], &config(1)).contains("at least one"));
    let empty = SftConfig {
        batch_size: 0,
        ..config(1)
    };
    assert!(go(&demonstrations(), &empty).contains("batch_size`: 0"));
    let foreign = Demonstration {
        prompt: "x".into(),
        response: "a".into(),
    };
    assert!(go(&[foreign], &config(1)).contains("'x'"));
    let unasked = Demonstration {
        prompt: String::new(),
        response: "a".into(),
    };
    assert!(go(&[unasked], &config(1)).contains("at least one token of prompt"));
    assert_eq!(toy::weights(&policy), start);
}

#[test]
fn micro_batches_change_nothing() {
    let data = demonstrations();
    let learned = |micro_batch: usize| {
        let mut policy = toy::policy(0, &toy::device());
        let config = SftConfig {
            micro_batch,
            ..config(5)
        };
        let reports = learn(&mut policy, &data, &config);
        (toy::weights(&policy), reports[4].loss)
    };
    let (whole, loss) = learned(64);
    for micro_batch in [1, 3] {
        let (weights, other) = learned(micro_batch);
        assert!(toy::distance(&whole, &weights) < 1e-4);
        assert_close(other, loss, 1e-5, 1e-6, "loss");
    }
}

#[test]
fn demonstrations_that_are_too_long_are_errors_before_the_first_update() {
    let (_, device) = devices().remove(0);
    let refused = |policy: CausalModel, data: &[Demonstration]| {
        let mut policy = policy;
        let error = supervise(&mut policy, &toy::tokenizer(), data, &config(1), |_| {
            panic!("an update")
        });
        error.unwrap_err().to_string()
    };
    let policy = || toy::policy(0, &device);
    let mut data = demonstrations();
    data.push(Demonstration::new("abcdabcd", "abcdabcda"));
    let error = refused(policy(), &data);
    assert_eq!(
        error,
        "demonstration 4: got 8 + 10 tokens, expected at most 17 in all, for 16 positions"
    );
    let last = data.len() - 1;
    data[last] = Demonstration::new("", "a");
    assert!(refused(policy(), &data).contains("demonstration 4: got 0 + 2 tokens"));
    data[last] = Demonstration::new("abcdabcd", "abcdabcd");
    assert_eq!(learn(&mut policy(), &data, &config(1)).len(), 1);

    let narrow = rlvr::policy::causal::CausalConfig::new(3);
    let narrow = narrow.init(0, &device.clone().autodiff()).unwrap();
    let error = refused(narrow, &data);
    assert!(error.contains("tokenizer.vocab_size") && error.contains("at most the policy's 3"));

    let error = refused(policy().valid(), &data);
    assert_eq!(
        error,
        "invalid `policy`: no parameter requires gradients; expected one built on `device.autodiff()`"
    );
}

#[test]
fn the_logit_chunk_changes_no_result() {
    let (backend, device) = devices().remove(0);
    let run = |logit_chunk| {
        let mut policy = toy::policy(0, &device);
        let config = SftConfig {
            logit_chunk,
            ..config(3)
        };
        learn(&mut policy, &demonstrations(), &config)
    };
    for (a, b) in run(2).iter().zip(run(1024)) {
        assert_close(a.loss, b.loss, 1e-5, 1e-6, backend);
        assert_close(a.update.grad_norm, b.update.grad_norm, 1e-4, 1e-6, backend);
    }
    let none = SftConfig {
        logit_chunk: 0,
        ..config(1)
    };
    let mut policy = toy::policy(0, &device);
    let error = supervise(
        &mut policy,
        &toy::tokenizer(),
        &demonstrations(),
        &none,
        |_| true,
    );
    assert!(error.unwrap_err().to_string().contains("sft.logit_chunk"));
}
