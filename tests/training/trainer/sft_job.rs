//! Supervised fine-tuning as a job: stopping and resuming, observers, and data that does not fit
//! into memory.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::tensor::Device;
use rlvr::Result;

use rlvr::policy::causal::CausalModel;
use rlvr::prompt::{CharTokenizer, Tokenizer};
use rlvr::train::observer::{History, MetricsFile, Observer, StepRecord, read_metrics};
use rlvr::train::{
    Conversation, Decay, Demonstration, DemonstrationFile, DemonstrationSet, HeldOut,
    OptimizerConfig, RunCheckpoints, RunEnd, Schedule, SftConfig, SftExample, SftRunConfig,
    SftTrainer, latest_checkpoint, supervise,
};
use rlvr::types::Message;

use super::supervised::response_nll;
use crate::common::toy;
use crate::common::{assert_close, devices};

/// The response is the character after the prompt's last one.
fn demonstrations(prompts: &[&str]) -> Vec<Demonstration> {
    let next = |last: char| match last {
        'a' => 'b',
        'b' => 'c',
        'c' => 'd',
        _ => 'a',
    };
    let one = |prompt: &&str| {
        let last = prompt.chars().last().unwrap();
        Demonstration::new(*prompt, next(last).to_string())
    };
    prompts.iter().map(one).collect()
}

fn shown() -> Vec<Demonstration> {
    demonstrations(&["a", "ab", "bc", "d", "dda", "acb", "c", "abd", "ca", "b"])
}

/// Ten demonstrations, three per step: steps cross epochs, and the last one is short.
fn config() -> SftConfig {
    let schedule = Schedule::constant(0.02).with_warmup(2);
    let decay = Decay::Cosine {
        updates: 7,
        floor: 0.1,
    };
    SftConfig {
        epochs: Some(2),
        batch_size: 3,
        optimizer: OptimizerConfig {
            weight_decay: 0.01,
            ..OptimizerConfig::new(schedule.with_decay(decay))
        },
        seed: 4,
        ..SftConfig::default()
    }
}

fn job_of(data: impl DemonstrationSet + 'static, config: SftConfig, seed: u64) -> Job {
    let policy = toy::policy(seed, &toy::device());
    SftTrainer::new(policy, toy::tokenizer(), data, config).unwrap()
}

type Job = SftTrainer<CausalModel>;

fn job(seed: u64, device: &Device) -> Job {
    let policy = toy::policy(seed, device);
    SftTrainer::new(policy, toy::tokenizer(), shown(), config()).unwrap()
}

fn refused<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error.to_string(),
    }
}

fn run_config(folder: &Path) -> SftRunConfig {
    SftRunConfig {
        title: "toy".into(),
        held_out: Some(HeldOut::new(demonstrations(&["cc", "bd"]), 2)),
        checkpoints: Some(RunCheckpoints {
            folder: folder.join("checkpoints"),
            every: 3,
            keep: 2,
        }),
    }
}

fn run(job: &mut Job, folder: &Path, observer: &mut dyn Observer) -> RunEnd {
    let stop = AtomicBool::new(false);
    job.run(&run_config(folder), observer, &stop).unwrap()
}

fn bits(records: &[StepRecord]) -> Vec<std::collections::BTreeMap<String, u64>> {
    records.iter().map(toy::bits).collect()
}

/// Sets the flag in one step, or fails in it.
struct Interrupt {
    at: u64,
    flag: Option<Arc<AtomicBool>>,
}

impl Observer for Interrupt {
    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        match &self.flag {
            _ if record.step != self.at => Ok(()),
            Some(flag) => {
                flag.store(true, Ordering::Relaxed);
                Ok(())
            }
            None => Err(rlvr::Error::config("disk", "full", "room")),
        }
    }
}

#[test]
fn a_resumed_job_equals_an_uninterrupted_one_bit_for_bit() {
    for (backend, device) in devices() {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = |folder: &Path| folder.join("metrics.jsonl");
        let mut straight = job(0, &device);
        let mut metrics = MetricsFile::create(file(whole.path())).unwrap();
        let end = run(&mut straight, whole.path(), &mut metrics);
        assert_eq!((end, straight.steps_done()), (RunEnd::Finished, 7));

        // Five steps with a checkpoint of the third, as if the process was then killed.
        let mut killed = job(0, &device);
        let mut metrics = MetricsFile::create(file(broken.path())).unwrap();
        for step in 1..=5 {
            let record = killed.step().unwrap();
            metrics.on_step(&record).unwrap();
            if step == 3 {
                let folder = broken.path().join("checkpoints");
                killed.save_checkpoint(folder, 2).unwrap();
            }
        }
        drop((killed, metrics));

        // Other weights and parameter ids: nothing of the first job but its files.
        let mut resumed = job(9, &device);
        let latest = latest_checkpoint(broken.path().join("checkpoints")).unwrap();
        resumed.load_checkpoint(latest.unwrap()).unwrap();
        assert_eq!(resumed.steps_done(), 3);
        let mut metrics = MetricsFile::resume(file(broken.path()), 3).unwrap();
        run(&mut resumed, broken.path(), &mut metrics);
        assert_eq!(
            toy::weights(straight.policy()),
            toy::weights(resumed.policy()),
            "{backend}"
        );
        let (mut a, b) = (
            read_metrics(file(whole.path())).unwrap(),
            read_metrics(file(broken.path())).unwrap(),
        );
        assert_eq!(b.len(), 7);
        // The lost steps were not evaluated on held-out data.
        assert!(a[1].metrics.remove("eval/loss").is_some());
        assert_eq!(bits(&a), bits(&b), "{backend}");
        for record in &b[3..] {
            let due = record.step % 2 == 0 || record.step == 7;
            assert_eq!(record.get("eval/loss").is_some(), due);
        }
        // And every checkpoint of the end is the same.
        let last = |folder: &Path| {
            latest_checkpoint(folder.join("checkpoints"))
                .unwrap()
                .unwrap()
        };
        assert!(last(broken.path()).ends_with("step-00000007"));
        let mut again = job(5, &device);
        again.load_checkpoint(last(broken.path())).unwrap();
        assert_eq!(
            toy::weights(again.policy()),
            toy::weights(straight.policy())
        );
        assert!(refused(again.step()).contains("sft.epochs"));
    }
}

#[test]
fn the_job_makes_the_same_updates_as_supervise() {
    let mut policy = toy::policy(0, &toy::device());
    let mut losses = Vec::new();
    supervise(&mut policy, &toy::tokenizer(), &shown(), &config(), |one| {
        losses.push(one.loss.to_bits());
        true
    })
    .unwrap();
    let mut job = job(0, &toy::device());
    let mut found = Vec::new();
    while job.steps_done() < job.steps() {
        found.push(toy::metric(&job.step().unwrap(), "loss").to_bits());
    }
    assert_eq!(found, losses);
    assert_eq!(toy::weights(job.policy()), toy::weights(&policy));
}

#[test]
fn every_demonstration_is_shown_as_often_as_there_are_epochs() {
    let mut job = job(0, &toy::device());
    assert_eq!((job.steps(), job.demonstrations()), (7, 10));
    let mut records = Vec::new();
    while job.steps_done() < job.steps() {
        records.push(job.step().unwrap());
    }
    // A response and its end token, of ten demonstrations, twice; three per step, and two in the
    // last.
    let learned = |at: usize| toy::metric(&records[at], "num_tokens");
    assert_eq!((learned(0), learned(5), learned(6)), (6.0, 36.0, 40.0));
    assert!((toy::metric(&records[0], "epoch") - 0.3).abs() < 1e-12);
    assert_eq!(toy::metric(&records[6], "epoch"), 2.0);
    assert_eq!(toy::metric(&records[6], "completions/mean_length"), 2.0);
    // The cosine schedule has ended.
    assert!((toy::metric(&records[1], "learning_rate") - 0.02).abs() < 1e-12);
    assert!(toy::metric(&records[6], "learning_rate") < 0.004);
    assert!(refused(job.step()).contains("`sft.epochs`: 2"));
    assert_eq!(SftConfig::default().steps_of(3), 250);
}

#[test]
fn loss_and_policy_do_not_depend_on_the_micro_batch_size() {
    let data = || {
        let mut all: Vec<SftExample> = shown().into_iter().map(SftExample::from).collect();
        all.push(conversation(&["a", "bc", "d", "ab"]).into());
        all
    };
    let learned = |micro_batch, max_tokens_per_micro_batch| {
        let config = SftConfig {
            micro_batch,
            max_tokens_per_micro_batch,
            batch_size: 6,
            ..config()
        };
        let mut job = job_of(data(), config, 0);
        let losses: Vec<f64> = (0..3)
            .map(|_| toy::metric(&job.step().unwrap(), "loss"))
            .collect();
        let held_out = job.held_out_loss(&data()).unwrap();
        (losses, held_out, toy::weights(job.policy()))
    };
    let (losses, held_out, weights) = learned(64, None);
    for (rows, tokens) in [(1, None), (64, Some(8)), (2, Some(12))] {
        let (other_losses, other, other_weights) = learned(rows, tokens);
        for (a, b) in losses.iter().zip(other_losses) {
            assert_close(b, *a, 1e-5, 1e-6, "loss");
        }
        assert_close(other, held_out, 1e-5, 1e-6, "held-out loss");
        assert!(toy::distance(&weights, &other_weights) < 1e-4);
    }
}

/// The user and the assistant in turn.
fn conversation(texts: &[&str]) -> Conversation {
    let turn = |(at, text): (usize, &&str)| match at % 2 {
        0 => Message::user(*text),
        _ => Message::assistant(*text),
    };
    Conversation::new(texts.iter().enumerate().map(turn))
}

/// Characters without an end token, so that a prompt can hold everything before a reply.
struct Endless(CharTokenizer);

impl Tokenizer for Endless {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.0.encode(text)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        self.0.decode(ids)
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn token_id(&self, token: &str) -> Option<u32> {
        self.0.token_id(token)
    }

    fn stop_tokens(&self) -> Vec<u32> {
        Vec::new()
    }
}

#[test]
fn only_assistant_turns_are_trained() {
    for (backend, device) in devices() {
        let learned = |data: Vec<SftExample>| {
            let config = SftConfig {
                steps: 3,
                epochs: None,
                batch_size: data.len(),
                ..config()
            };
            let policy = toy::policy(0, &device);
            let tokenizer = Endless(toy::tokenizer());
            let mut job = SftTrainer::new(policy, tokenizer, data, config).unwrap();
            let held_out = {
                let both: Vec<SftExample> = vec![conversation(&["a", "bc", "dd", "ab"]).into()];
                job.held_out_loss(&both).unwrap()
            };
            let losses: Vec<f64> = (0..3)
                .map(|_| toy::metric(&job.step().unwrap(), "loss"))
                .collect();
            (losses, toy::weights(job.policy()), held_out)
        };
        let turns = learned(vec![conversation(&["a", "bc", "dd", "ab"]).into()]);
        // The same two replies, each with everything before it as its prompt: user turns have no
        // loss or gradient.
        let apart = learned(vec![
            Demonstration::new("a", "bc").into(),
            Demonstration::new("abcdd", "ab").into(),
        ]);
        for (a, b) in turns.0.iter().zip(&apart.0) {
            assert_close(*a, *b, 1e-5, 1e-6, backend);
        }
        assert_close(turns.0[0], turns.2, 1e-5, 1e-6, "held-out loss");
        assert!(toy::distance(&turns.1, &apart.1) < 1e-4, "{backend}");
        // Training on user turns would give another result.
        let all = learned(vec![
            Demonstration::new("a", "bc").into(),
            Demonstration::new("abc", "ddab").into(),
        ]);
        assert!(toy::distance(&turns.1, &all.1) > 1e-2);
    }
}

#[test]
fn the_held_out_loss_covers_responses_and_falls() {
    // `c` after an `a`, `d` after a `b`; no prompt with a part of its response is another prompt.
    let answered = |prompts: &[&str]| -> Vec<Demonstration> {
        let response = |prompt: &str| if prompt.ends_with('a') { "c" } else { "d" };
        let one = |prompt: &&str| Demonstration::new(*prompt, response(prompt));
        prompts.iter().map(one).collect()
    };
    let held_out = || answered(&["bb", "aba", "abab", "bbaa"]);
    let mut texts: Vec<String> = vec![String::new()];
    for _ in 0..4 {
        let longer = |text: &String| ["", "a", "b"].map(|end| format!("{text}{end}"));
        texts = texts.iter().flat_map(longer).collect();
    }
    texts.sort();
    texts.dedup();
    let is_shown =
        |text: &&String| !text.is_empty() && held_out().iter().all(|one| one.prompt != **text);
    let texts: Vec<&str> = texts.iter().filter(is_shown).map(|t| t.as_str()).collect();
    assert_eq!(texts.len(), 26);
    let config = SftConfig {
        steps: 120,
        epochs: None,
        batch_size: 16,
        optimizer: toy::optimizer(0.02),
        ..config()
    };
    let mut job = job_of(answered(&texts), config, 0);
    let before = job.held_out_loss(&held_out()).unwrap();
    let (sum, count) = response_nll(job.policy(), &held_out());
    assert_close(before, sum / count as f64, 1e-5, 1e-6, "held-out loss");

    let mut history = History::new();
    let records = history.records();
    let watched = SftRunConfig {
        held_out: Some(HeldOut::new(held_out(), 40)),
        ..SftRunConfig::default()
    };
    let stop = AtomicBool::new(false);
    job.run(&watched, &mut history, &stop).unwrap();
    let losses: Vec<f64> = {
        let records = records.lock().unwrap();
        records.iter().filter_map(|r| r.get("eval/loss")).collect()
    };
    assert_eq!(losses.len(), 3);
    assert!(before > 1.0 && losses[2] < 0.2, "{before} {losses:?}");
    let (sum, count) = response_nll(job.policy(), &held_out());
    assert_close(losses[2], sum / count as f64, 1e-5, 1e-6, "held-out loss");
}

#[test]
fn demonstrations_from_a_file_equal_those_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shown.jsonl");
    let lines: Vec<String> = shown()
        .iter()
        .map(|one| serde_json::to_string(one).unwrap())
        .collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let mut there = job_of(DemonstrationFile::open(&path).unwrap(), config(), 0);
    let mut here = job(0, &toy::device());
    for _ in 0..7 {
        let (a, b) = (here.step().unwrap(), there.step().unwrap());
        assert_eq!(toy::bits(&a), toy::bits(&b));
    }
    assert_eq!(toy::weights(here.policy()), toy::weights(there.policy()));

    // An invalid line is an error before the first update.
    let build = |text: &str, config: SftConfig| {
        fs::write(&path, format!("{}\n{text}\n", lines[0])).unwrap();
        let file = DemonstrationFile::open(&path).unwrap();
        let policy = toy::policy(0, &toy::device());
        SftTrainer::new(policy, toy::tokenizer(), file, config)
    };
    let long = r#"{"prompt": "abcdabcd", "response": "abcdabcdab"}"#;
    for (text, expected) in [
        ("{\"prompt\": \"a\"}", "missing field `response`"),
        (long, "8 + 11 tokens"),
        (
            r#"{"messages": [{"role": "user", "content": "a"}]}"#,
            "messages`: 1",
        ),
    ] {
        let error = refused(build(text, config()));
        assert!(
            error.contains("shown.jsonl:2") && error.contains(expected),
            "{error}"
        );
    }
    let skipping = |most| SftConfig {
        skip_longer_than: Some(most),
        ..config()
    };
    assert_eq!(build(long, skipping(17)).unwrap().demonstrations(), 1);
    let error = refused(build(long, skipping(2)));
    assert!(error.contains("sft.skip_longer_than`: 2"), "{error}");
}

#[test]
fn a_stopped_or_failed_job_leaves_a_checkpoint_of_its_last_step() {
    for flag in [Some(Arc::new(AtomicBool::new(false))), None] {
        let folder = tempfile::tempdir().unwrap();
        let mut job = job(0, &toy::device());
        let stop = flag.clone().unwrap_or_default();
        let mut interrupt = Interrupt { at: 4, flag };
        let result = job.run(&run_config(folder.path()), &mut interrupt, &stop);
        match interrupt.flag {
            Some(_) => assert_eq!(result.unwrap(), RunEnd::Stopped),
            None => assert!(refused(result).contains("disk")),
        }
        let checkpoints = folder.path().join("checkpoints");
        let latest = latest_checkpoint(&checkpoints).unwrap().unwrap();
        assert!(latest.ends_with("step-00000004"), "{latest:?}");

        // The job resumes in the same folder; another job does not.
        let mut other = self::job(0, &toy::device());
        let stop = AtomicBool::new(false);
        let error = other.run(&run_config(folder.path()), &mut History::new(), &stop);
        let error = refused(error);
        assert!(
            error.contains("another run (step 4 of supervised fine-tuning with seed 4 and 10"),
            "{error}"
        );
        other.load_checkpoint(latest).unwrap();
        assert_eq!(
            run(&mut other, folder.path(), &mut History::new()),
            RunEnd::Finished
        );
        assert_eq!(other.steps_done(), 7);
    }
}

#[test]
fn a_checkpoint_of_another_job_is_an_error_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = job(0, &toy::device());
    first.step().unwrap();
    let saved = first.save_checkpoint(folder.path(), 1).unwrap();
    let load = |data: Vec<Demonstration>, config: SftConfig| {
        let mut other = job_of(data, config, 3);
        let before = toy::weights(other.policy());
        let result = other.load_checkpoint(&saved);
        if result.is_err() {
            assert_eq!(toy::weights(other.policy()), before);
        }
        result
    };
    let mut reversed = shown();
    reversed.reverse();
    assert!(refused(load(reversed, config())).contains("fingerprint of the demonstrations"));
    let seed = SftConfig {
        seed: 5,
        ..config()
    };
    assert!(refused(load(shown(), seed)).contains("its seed is 4, this run's 5"));
    let batch = SftConfig {
        batch_size: 2,
        ..config()
    };
    assert!(refused(load(shown(), batch)).contains("batch size"));
    // More epochs are the same job.
    let longer = SftConfig {
        epochs: Some(3),
        ..config()
    };
    load(shown(), longer).unwrap();

    // Trainers for reinforcement learning and supervision reject each other's checkpoints.
    let mut rl = toy::trainer(&toy::config(), 0, &toy::device());
    let error = refused(rl.load_checkpoint(&saved));
    assert!(error.contains("of supervised fine-tuning; expected one of reinforcement learning"));
    let other = tempfile::tempdir().unwrap();
    rl.step().unwrap();
    let theirs = rl.save_checkpoint(other.path(), 1).unwrap();
    let error = refused(first.load_checkpoint(theirs));
    assert!(
        error.contains("expected one of supervised fine-tuning"),
        "{error}"
    );
    assert!(refused(first.save_checkpoint(other.path(), 1)).contains("another run (step 1)"));
    // A damaged file.
    let name = fs::read_dir(&saved).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.to_str().unwrap().contains("policy.m").then_some(path)
    });
    let name = name.unwrap();
    let mut bytes = fs::read(&name).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&name, bytes).unwrap();
    assert!(refused(load(shown(), config())).contains("damaged"));
}

#[test]
fn invalid_jobs_are_errors() {
    let build = |config: SftConfig| {
        let policy = toy::policy(0, &toy::device());
        SftTrainer::new(policy, toy::tokenizer(), shown(), config)
    };
    for (field, config) in [
        (
            "sft.epochs",
            SftConfig {
                epochs: Some(0),
                ..config()
            },
        ),
        (
            "sft.batch_size",
            SftConfig {
                batch_size: 0,
                ..config()
            },
        ),
        (
            "sft.max_tokens_per_micro_batch",
            SftConfig {
                max_tokens_per_micro_batch: Some(0),
                ..config()
            },
        ),
    ] {
        let error = refused(build(config));
        assert!(error.contains(&format!("`{field}`: 0")), "{error}");
    }
    let frozen = toy::policy(0, &toy::device()).valid();
    let error = refused(SftTrainer::new(frozen, toy::tokenizer(), shown(), config()));
    assert!(error.contains("no parameter requires gradients"), "{error}");
    let empty = SftTrainer::new(
        toy::policy(0, &toy::device()),
        toy::tokenizer(),
        Vec::<Demonstration>::new(),
        config(),
    );
    assert!(refused(empty).contains("at least one demonstration"));
    let never = SftRunConfig {
        held_out: Some(HeldOut::new(shown(), 0)),
        ..SftRunConfig::default()
    };
    let stop = AtomicBool::new(false);
    let error = job(0, &toy::device()).run(&never, &mut History::new(), &stop);
    assert!(refused(error).contains("held_out.every"));
    // Old files have no epochs, and no unknown fields.
    let old: SftConfig = serde_json::from_str(r#"{"steps": 7}"#).unwrap();
    assert_eq!((old.steps, old.epochs), (7, None));
    assert!(serde_json::from_str::<SftConfig>(r#"{"epoch": 7}"#).is_err());
}
