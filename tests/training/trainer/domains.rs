//! Domains: mixtures by weight, rewards of one domain, and metrics for each.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rlvr::Result;
use rlvr::prompt::Problem;
use rlvr::reward::{FnReward, RewardOptions, RewardSet};
use rlvr::train::observer::History;
use rlvr::train::{
    Draw, EvaluationConfig, Mixture, Piecewise, ProblemSource, RunConfig, RunEvaluation,
    ShuffledProblems,
};
use rlvr::types::RolloutGroup;
use serde_json::{Value, json};

use crate::common::toy::{self, Rl};

fn set(domain: &str, prompts: &[&str]) -> Vec<Problem> {
    let problem = |prompt: &&str| {
        let answer = prompt.chars().last().unwrap().to_string();
        Problem::new(*prompt, answer).with_domain(domain)
    };
    prompts.iter().map(problem).collect()
}

fn source(problems: Vec<Problem>, seed: u64) -> Box<dyn ProblemSource> {
    Box::new(ShuffledProblems::new(problems, seed).unwrap())
}

/// Two small sets; the second one comes in after two steps.
fn mixture(seed: u64) -> Mixture {
    let late = Piecewise::steps([(0, 0.0), (2, 1.0)]);
    Mixture::new(
        seed,
        [
            (2.0.into(), source(set("letters", &["a", "ab", "c"]), 1)),
            (late, source(set("pairs", &["cad", "bd"]), 2)),
        ],
    )
    .unwrap()
}

fn domains(draws: &[Draw]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for draw in draws {
        *counts.entry(draw.problem.domain().unwrap()).or_default() += 1;
    }
    counts
}

#[test]
fn mixture_shares_follow_the_weights_not_the_set_sizes() {
    let mut mixture = mixture(3);
    let first = mixture.draw(300).unwrap();
    assert_eq!(domains(&first), [("letters", 300)].into());
    mixture.begin_step(2);
    let count = 3000;
    let found = domains(&mixture.draw(count).unwrap())["pairs"] as f64;
    // Four standard deviations of a binomial.
    let (mean, deviation) = (count as f64 / 3.0, (count as f64 * 2.0 / 9.0).sqrt());
    assert!((found - mean).abs() < 4.0 * deviation, "{found} of {mean}");
}

#[test]
fn each_set_keeps_its_order_and_indices_are_unique() {
    let mut mixture = mixture(3);
    mixture.begin_step(2);
    let draws = mixture.draw(60).unwrap();
    for (domain, mut alone) in [
        ("letters", source(set("letters", &["a", "ab", "c"]), 1)),
        ("pairs", source(set("pairs", &["cad", "bd"]), 2)),
    ] {
        let own = draws.iter().filter(|d| d.problem.domain() == Some(domain));
        let own: Vec<_> = own.map(|d| (d.problem.clone(), d.epoch)).collect();
        let expected = alone.draw(own.len()).unwrap().into_iter();
        let expected: Vec<_> = expected.map(|draw| (draw.problem, draw.epoch)).collect();
        assert_eq!(own, expected, "{domain}");
    }
    for draw in &draws {
        let known = &mixture.problems()[draw.index as usize];
        assert!(Arc::ptr_eq(known, &draw.problem));
    }
    assert_eq!(mixture.problems().len(), 5);
}

#[test]
fn the_mixture_is_a_function_of_seed_and_position() {
    let draw = |seed, cuts: &[usize]| {
        let mut mixture = mixture(seed);
        mixture.begin_step(2);
        let mut all = Vec::new();
        for &cut in cuts {
            all.extend(mixture.draw(cut).unwrap());
        }
        all
    };
    let whole = draw(3, &[40]);
    assert_eq!(draw(3, &[1, 30, 0, 9]), whole);
    assert_ne!(draw(4, &[40]), whole);

    let mut source = mixture(3);
    source.begin_step(2);
    source.draw(7).unwrap();
    let state = source.state();
    let next = source.draw(20).unwrap();
    let mut other = mixture(3);
    other.begin_step(2);
    other.restore(&state).unwrap();
    assert_eq!(other.draw(20).unwrap(), next);
    // A state that does not fit changes nothing.
    for wrong in [
        json!({}),
        json!({"position": 1, "sources": [{"position": 3}]}),
        json!({"position": 1, "sources": [{"position": 9}, {}]}),
    ] {
        let before = other.state();
        assert!(other.restore(&wrong).is_err(), "{wrong}");
        assert_eq!(other.state(), before);
    }
}

/// Draws the same problem for ever, tells nobody which there are, and writes down what it is shown.
struct Endless(Arc<Mutex<Vec<String>>>);

impl ProblemSource for Endless {
    fn draw(&mut self, count: usize) -> Result<Vec<Draw>> {
        let problem = Arc::new(Problem::new("d", "d"));
        let draw = |index| Draw {
            problem: problem.clone(),
            index,
            epoch: 0,
        };
        Ok((0..count as u64).map(draw).collect())
    }

    fn observe(&mut self, groups: &[RolloutGroup]) {
        let prompts = groups.iter().map(|group| group.problem.prompt.clone());
        self.0.lock().unwrap().extend(prompts);
    }

    fn state(&self) -> Value {
        Value::Null
    }

    fn restore(&mut self, _: &Value) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_source_observes_only_its_own_groups() {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let parts: [(Piecewise, Box<dyn ProblemSource>); 2] = [
        (1.0.into(), source(toy::problems(), 1)),
        (1.0.into(), Box::new(Endless(shown.clone()))),
    ];
    let mut mixture = Mixture::new(0, parts).unwrap();
    // Not all problems are known.
    assert!(mixture.problems().is_empty());
    let draws = mixture.draw(50).unwrap();
    let mut places: Vec<_> = draws
        .iter()
        .map(|d| (d.index, d.problem.prompt.clone()))
        .collect();
    let endless = draws
        .iter()
        .filter(|draw| draw.problem.prompt == "d")
        .count();
    let groups: Vec<_> = draws
        .into_iter()
        .map(|draw| RolloutGroup::new(draw.problem, vec![1], Vec::new()))
        .collect();
    mixture.observe(&groups);
    assert_eq!(*shown.lock().unwrap(), vec!["d".to_string(); endless]);
    assert!(endless > 10 && endless < 40);
    // Equal indices are equal problems.
    places.sort();
    places.dedup();
    let count = places.len();
    places.dedup_by_key(|(index, _)| *index);
    assert_eq!(places.len(), count);
}

#[test]
fn empty_mixtures_are_errors() {
    let part = |weight: Piecewise| (weight, source(toy::problems(), 0));
    let refused = |parts: Vec<(Piecewise, Box<dyn ProblemSource>)>| match Mixture::new(0, parts) {
        Ok(_) => panic!("it was built"),
        Err(error) => error.to_string(),
    };
    assert!(refused(Vec::new()).contains("at least one source"));
    let error = refused(vec![part(1.0.into()), part((-1.0).into())]);
    assert!(error.contains("mixture[1].weight[0]`: -1"), "{error}");
    let out = Piecewise::steps([(0, 1.0), (5, 0.0)]);
    let back = Piecewise::linear([(5, 0.0), (9, 1.0)]);
    let error = refused(vec![part(out), part(back)]);
    assert!(error.contains("all weights are 0 in step 5"), "{error}");
}

/// `accuracy` everywhere, `long` for pairs only.
fn rewards() -> RewardSet {
    let share = |yes: bool| Ok(Some(if yes { 1.0 } else { 0.0 }));
    let accuracy = FnReward::new("accuracy", move |input| {
        share(input.completion().starts_with(input.answer()))
    });
    let long = FnReward::new("long", move |input| share(input.completion().len() > 1));
    let pairs = RewardOptions::new().with_domains(["pairs"]);
    let builder = RewardSet::builder().add(1.0, accuracy);
    builder.add_with(0.5, long, pairs).build().unwrap()
}

fn trainer(seed: u64) -> Rl {
    let builder = toy::builder(&toy::config(), seed, &toy::device());
    let builder = builder.rewards(rewards()).problem_source(mixture(3));
    builder.build().unwrap()
}

#[test]
fn a_resumed_run_draws_the_same_problems_and_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let mut straight = trainer(0);
    toy::steps(&mut straight, 3);
    let saved = straight.save_checkpoint(folder.path(), 1).unwrap();
    let mut resumed = trainer(9);
    resumed.load_checkpoint(saved).unwrap();
    for _ in 0..3 {
        let (a, b) = (straight.step().unwrap(), resumed.step().unwrap());
        assert_eq!(toy::bits(&a), toy::bits(&b));
        assert_eq!(straight.last_rollouts(), resumed.last_rollouts());
    }
}

#[test]
fn a_step_reports_each_domain_separately() {
    let mut trainer = trainer(0);
    for step in 0..4 {
        let record = trainer.step().unwrap();
        let groups = &trainer.last_rollouts().groups;
        let mut problems = 0;
        for domain in ["letters", "pairs"] {
            let own = groups.iter().filter(|g| g.problem.domain() == Some(domain));
            let own: Vec<_> = own.collect();
            problems += own.len();
            let name = |what: &str| format!("domains/{domain}/{what}");
            if own.is_empty() {
                assert_eq!(record.get(&name("problems")), None);
                continue;
            }
            assert_eq!(toy::metric(&record, &name("problems")), own.len() as f64);
            let all: Vec<_> = own.iter().flat_map(|group| &group.rollouts).collect();
            let mean = |value: &dyn Fn(&rlvr::types::Rollout) -> f64| {
                all.iter().map(|one| value(one)).sum::<f64>() / all.len() as f64
            };
            let reward = mean(&|one| one.reward.unwrap());
            let accuracy = mean(&|one| one.score("accuracy").unwrap());
            let found = toy::metric(&record, &name("rewards/accuracy"));
            assert!((found - accuracy).abs() < 1e-12);
            assert!((toy::metric(&record, &name("reward")) - reward).abs() < 1e-12);
            // The reward of the pairs abstains elsewhere, and the total is that of the others.
            match domain {
                "pairs" => assert!(all.iter().all(|one| one.score("long").is_some())),
                _ => {
                    assert!(all.iter().all(|one| one.score("long").is_none()));
                    assert_eq!(record.get(&name("rewards/long")), None);
                    assert_eq!(reward, accuracy);
                }
            }
        }
        assert_eq!(problems, 4, "step {step}");
        if step < 2 {
            assert_eq!(record.get("domains/pairs/problems"), None);
        }
    }
}

#[test]
fn an_evaluation_reports_each_domain_separately() {
    let problems = [
        set("letters", &["a", "ab", "c"]),
        set("pairs", &["cad", "bd"]),
    ]
    .concat();
    let config = EvaluationConfig {
        samples: 4,
        k: vec![2],
        ..EvaluationConfig::default()
    };
    let evaluate =
        |trainer: &Rl, problems: &[Problem]| trainer.evaluate(problems, &config).unwrap();
    let trainer_at_0 = trainer(5);
    let found = evaluate(&trainer_at_0, &problems);
    let names: Vec<&str> = found.domains.keys().map(String::as_str).collect();
    assert_eq!(names, ["letters", "pairs"]);
    // The first problems have the same addresses by themselves.
    let alone = evaluate(&trainer_at_0, &problems[..3]);
    let own = &found.domains["letters"];
    assert_eq!(own.problems, 3);
    assert_eq!(own, &alone.domains["letters"]);
    assert_eq!(
        (own.accuracy, own.mean_length, own.pass_at_1, &own.pass_at_k),
        (
            alone.accuracy,
            alone.mean_length,
            alone.pass_at_1,
            &alone.pass_at_k
        )
    );
    let both = |of: fn(&rlvr::train::DomainEvaluation) -> f64| {
        (3.0 * of(&found.domains["letters"]) + 2.0 * of(&found.domains["pairs"])) / 5.0
    };
    assert!((both(|one| one.accuracy) - found.accuracy).abs() < 1e-12);
    assert!((both(|one| one.pass_at_1.unwrap()) - found.pass_at_1.unwrap()).abs() < 1e-12);
    // Without a domain there is nothing to break down.
    assert!(evaluate(&trainer_at_0, &toy::problems()).domains.is_empty());

    let run = RunConfig {
        steps: 1,
        evaluation: Some(RunEvaluation {
            problems,
            every: 1,
            config,
        }),
        ..RunConfig::default()
    };
    let mut history = History::new();
    let mut trainer = trainer(5);
    let records = history.records();
    trainer
        .run(&run, &mut history, &AtomicBool::new(false))
        .unwrap();
    let record = &records.lock().unwrap()[0];
    for name in [
        "letters/accuracy",
        "pairs/pass@1",
        "pairs/pass@2",
        "letters/mean_length",
    ] {
        toy::metric(record, &format!("eval/domains/{name}"));
    }
}
