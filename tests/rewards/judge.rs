//! A language model as a judge: its prompts, the parsing of its answers, and failures.

#[cfg(feature = "remote")]
mod endpoint;

use std::sync::{Arc, Mutex};

use rlvr::reward::judge::{
    CachedJudge, Judge, JudgeReward, PairwiseReward, PolicyJudge, Preference,
};
use rlvr::reward::{GroupInput, GroupReward, Reward, RewardError, RewardInput, RewardSet};
use rlvr::rollout::{GenerationConfig, RewardOutcome, SamplingConfig};
use rlvr::train::{Demonstration, SftConfig, supervise};

use crate::common::toy;

type Answer = dyn Fn(&str, u64) -> Result<String, RewardError> + Send + Sync;

/// A judge from a closure that records its questions.
struct Scripted {
    name: &'static str,
    answer: Box<Answer>,
    asked: Mutex<Vec<(String, u64)>>,
}

impl Scripted {
    fn new(
        answer: impl Fn(&str, u64) -> Result<String, RewardError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: "scripted",
            answer: Box::new(answer),
            asked: Mutex::default(),
        })
    }

    fn asked(&self) -> Vec<(String, u64)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Judge for Scripted {
    fn describe(&self) -> String {
        self.name.into()
    }

    fn answer(&self, question: &str, seed: u64) -> Result<String, RewardError> {
        self.asked.lock().unwrap().push((question.into(), seed));
        (self.answer)(question, seed)
    }
}

/// The texts between the marks of a question, in order: request, reference if there is one,
/// responses.
fn materials(question: &str) -> Vec<String> {
    let mark = question.split_once("between <").unwrap().1;
    let mark = mark.split_once('>').unwrap().0;
    let (open, close) = (format!("<{mark}>\n"), format!("\n</{mark}>"));
    let parts = question.split(&open).skip(1);
    parts
        .map(|part| part.split_once(&close).unwrap().0.to_string())
        .collect()
}

/// The verdict on two responses A and B of these lengths, if longer is better, and the first place
/// is worth `bias`.
fn by_length(question: &str, bias: i64) -> String {
    let found = materials(question);
    let [.., a, b] = &found[..] else {
        panic!("{found:?}")
    };
    let step = (a.len() as i64 - b.len() as i64).signum() + bias;
    let verdict = ["B>>A", "B>A", "A=B", "A>B", "A>>B"][(step + 2) as usize];
    format!("Let me see.\nVerdict: {verdict}")
}

fn input(completion: &str) -> RewardInput {
    RewardInput::new("What is 2+2?", "4", completion)
}

#[test]
fn a_grade_is_the_mean_of_the_votes() {
    let judge = Scripted::new(|_, vote| Ok(format!("Verdict: {}", [-1, 1, 1][vote as usize])));
    let reward = JudgeReward::new(judge.clone(), "Be right.")
        .with_grades(-1, 3)
        .with_votes(3);
    assert_eq!(reward.name(), "judge");
    assert_eq!(reward.score(&input("four")).unwrap(), Some(1.0 / 3.0));
    let asked = judge.asked();
    assert_eq!(
        asked.iter().map(|(_, seed)| *seed).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(materials(&asked[0].0), ["What is 2+2?", "4", "four"]);
    assert!(asked[0].0.contains("Be right.") && asked[0].0.contains("from -1, the worst, to 3"));
}

#[test]
fn the_prompt_of_the_judge_has_the_requested_parts() {
    let judge = Scripted::new(|_, _| Ok("Verdict: 1".into()));
    let after = |text: &str| text.rsplit("</think>").next().unwrap().to_string();
    let reward = JudgeReward::new(judge.clone(), "Be right.")
        .without_reference()
        .with_view(after);
    assert_eq!(
        reward.score(&input("<think>5?</think>4")).unwrap(),
        Some(0.0)
    );
    // An empty reference counts as none.
    let reward = JudgeReward::new(judge.clone(), "Be right.");
    reward.score(&RewardInput::new("q", " ", "r")).unwrap();
    let shown: Vec<_> = judge
        .asked()
        .iter()
        .map(|(question, _)| materials(question))
        .collect();
    assert_eq!(shown, [vec!["What is 2+2?", "4"], vec!["q", "r"]]);
}

#[test]
fn an_answer_without_a_verdict_is_retried_and_then_fails() {
    let judge = Scripted::new(|question, seed| {
        let found = materials(question);
        match (found[2].as_str(), seed) {
            ("mumbled", 0) => Ok("Hm.".into()),
            ("mumbled" | "clear", _) => Ok("Verdict: 10".into()),
            ("silenced", _) => Ok("As you say, the grade is ten.".into()),
            _ => Err("the server is on fire".into()),
        }
    });
    let reward = JudgeReward::new(judge.clone(), "Be right.").with_batch(8);
    let set = RewardSet::builder().add(1.0, reward).build().unwrap();
    let scored = set.score(["mumbled", "clear", "silenced", "lost"].map(input).to_vec());
    let totals: Vec<_> = scored.iter().map(|one| one.reward).collect();
    assert_eq!(totals, [Some(1.0), Some(1.0), None, None]);
    let failure = |at: usize| match &scored[at].rewards[0].outcome {
        RewardOutcome::Failed(message) => message.clone(),
        outcome => panic!("{outcome:?}"),
    };
    assert!(
        failure(2).contains("no verdict in 3 answers"),
        "{}",
        failure(2)
    );
    assert!(failure(2).contains("the grade is ten."), "{}", failure(2));
    assert_eq!(failure(3), "the server is on fire");
    let asked = judge.asked();
    let seeds = |text: &str| -> Vec<u64> {
        let own = asked
            .iter()
            .filter(|(question, _)| materials(question)[2] == text);
        own.map(|(_, seed)| *seed).collect()
    };
    assert_eq!((seeds("mumbled").len(), seeds("clear").len()), (2, 1));
    let silenced = seeds("silenced");
    // A retry has a seed that no vote uses, of up to 65536 votes.
    assert!(silenced[1] >= 1 << 16 && silenced[2] - silenced[1] >= 1 << 16);
    assert!(silenced.len() == 3 && silenced[0] < silenced[1] && silenced[1] < silenced[2]);
    assert_eq!(seeds("lost"), [0], "what fails is the judge's to repeat");
}

#[test]
fn position_bias_cancels_and_is_reported() {
    let compare = |bias| {
        let judge = Scripted::new(move |question, _| Ok(by_length(question, bias)));
        let reward = PairwiseReward::new(judge, "Longer is better.");
        reward.compare("q", None, "long", "s").unwrap()
    };
    for bias in [-1, 0, 1] {
        let expected = Preference {
            first: 1.0,
            position_bias: bias as f64,
        };
        assert_eq!(compare(bias), expected);
    }
    // A judge that only has bias.
    let judge = Scripted::new(|_, _| Ok("Verdict: A>>B".into()));
    let reward = PairwiseReward::new(judge.clone(), "Be first.").with_votes(2);
    let found = reward.compare("q", Some("r"), "a", "b").unwrap();
    assert_eq!((found.first, found.position_bias), (0.0, 2.0));
    let asked = judge.asked();
    let shown: Vec<_> = asked
        .iter()
        .map(|(question, _)| materials(question))
        .collect();
    let (forward, backward) = (vec!["q", "r", "a", "b"], vec!["q", "r", "b", "a"]);
    assert_eq!(shown, [&forward[..], &forward, &backward, &backward]);
    assert_eq!(
        asked.iter().map(|(_, vote)| *vote).collect::<Vec<_>>(),
        [0, 1, 0, 1]
    );
}

fn group_scores<J: Judge>(
    reward: &PairwiseReward<J>,
    texts: &[&str],
) -> Result<Vec<Option<f64>>, RewardError> {
    let inputs: Vec<RewardInput> = texts.iter().map(|text| input(text)).collect();
    reward.score_group(&GroupInput::new(&inputs))
}

#[test]
fn a_group_is_scored_by_all_its_comparisons() {
    let judge = Scripted::new(|question, _| Ok(by_length(question, 1)));
    let reward = PairwiseReward::new(judge.clone(), "Longer is better.");
    let scores = group_scores(&reward, &["bb", "a", "ccc"]).unwrap();
    assert_eq!(scores, [Some(0.5), Some(0.25), Some(0.75)]);
    assert_eq!(judge.asked().len(), 6);
    // Equal texts tie without a question; a single completion has no comparison.
    let scores = group_scores(&reward, &["bb", "bb", "a"]).unwrap();
    assert_eq!(scores, [Some(0.625), Some(0.625), Some(0.25)]);
    assert_eq!(judge.asked().len(), 6 + 4);
    assert_eq!(group_scores(&reward, &["a"]).unwrap(), [None]);
    // Of five with one opponent each, every completion has two comparisons; with two opponents,
    // four.
    for (opponents, questions) in [(1, 10), (2, 20), (9, 20)] {
        let judge = Scripted::new(|question, _| Ok(by_length(question, 0)));
        let reward =
            PairwiseReward::new(judge.clone(), "Longer is better.").with_opponents(opponents);
        let scores = group_scores(&reward, &["a", "bb", "ccc", "dddd", "eeeee"]).unwrap();
        assert_eq!(judge.asked().len(), questions);
        let one = if opponents == 1 { 0.5 } else { 0.375 };
        assert_eq!((scores[1], scores[4]), (Some(one), Some(0.75)));
    }
    let all = |count: usize| -> usize {
        let judge = Scripted::new(|question, _| Ok(by_length(question, 0)));
        let texts: Vec<String> = (1..=count).map(|n| "x".repeat(n)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        group_scores(&PairwiseReward::new(judge.clone(), "Longer."), &texts).unwrap();
        judge.asked().len()
    };
    assert_eq!([2, 3, 4, 5, 6].map(all), [2, 6, 12, 20, 30]);
}

#[test]
fn failed_comparisons_are_left_out_and_a_completion_without_any_fails_the_group() {
    let judge = |silent: &'static str| {
        Scripted::new(move |question, _| {
            let found = materials(question);
            let [.., a, b] = &found[..] else {
                panic!("{found:?}")
            };
            match silent.split(' ').all(|text| text == a || text == b) {
                true => Err("no comment".into()),
                false => Ok(by_length(question, 0)),
            }
        })
    };
    let one_pair = PairwiseReward::new(judge("a ccc"), "Longer is better.");
    let scores = group_scores(&one_pair, &["a", "bb", "ccc"]).unwrap();
    assert_eq!(scores, [Some(0.25), Some(0.5), Some(0.75)]);
    let set = RewardSet::builder()
        .add_group(1.0, PairwiseReward::new(judge("a"), "Longer is better."))
        .build()
        .unwrap();
    let scored = set.score(["a", "bb", "ccc"].map(input).to_vec());
    for one in scored {
        let failed = RewardOutcome::Failed("no comment".into());
        assert_eq!((one.reward, &one.rewards[0].outcome), (None, &failed));
    }
}

#[test]
fn invalid_settings_are_errors() {
    let judge = || Scripted::new(|_, _| Ok(String::new()));
    let grade = |reward: JudgeReward<Arc<Scripted>>| {
        let set = RewardSet::builder().add(1.0, reward).build();
        set.unwrap_err().to_string()
    };
    let new = || JudgeReward::new(judge(), "Be right.");
    for (reward, field) in [
        (JudgeReward::new(judge(), " "), "rubric"),
        (new().with_votes(0), "votes"),
        (new().with_grades(3, 3), "grades"),
        (new().with_batch(0), "batch"),
    ] {
        let message = grade(reward);
        assert!(
            message.starts_with(&format!("invalid `rewards[0].{field}`")),
            "{message}"
        );
    }
    for (reward, field) in [
        (PairwiseReward::new(judge(), ""), "rubric"),
        (PairwiseReward::new(judge(), "r").with_votes(0), "votes"),
        (
            PairwiseReward::new(judge(), "r").with_opponents(0),
            "opponents",
        ),
    ] {
        let message = reward.validate().unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("invalid `{field}`")),
            "{message}"
        );
    }
}

/// Answers with the number of questions before.
fn counting(name: &'static str) -> Arc<Scripted> {
    let count = Mutex::new(0);
    let mut judge = Scripted::new(move |question, _| match question {
        "bad" => Err("no".into()),
        _ => {
            let mut count = count.lock().unwrap();
            *count += 1;
            Ok(format!("{count}\n"))
        }
    });
    Arc::get_mut(&mut judge).unwrap().name = name;
    judge
}

fn ask(judge: &impl Judge, questions: &[(&str, u64)]) -> Vec<String> {
    let questions: Vec<_> = questions
        .iter()
        .map(|(q, seed)| (q.to_string(), *seed))
        .collect();
    let show = |one: Result<String, RewardError>| one.unwrap_or_else(|e| format!("error: {e}"));
    judge.answer_all(&questions).into_iter().map(show).collect()
}

#[test]
fn answers_are_cached_and_errors_are_not() {
    let inner = counting("one");
    let judge = CachedJudge::new(inner.clone());
    let answers = ask(
        &judge,
        &[
            ("a", 0),
            ("bad", 0),
            ("a", 0),
            ("b", 0),
            ("a", 1),
            ("bad", 0),
        ],
    );
    assert_eq!(
        answers,
        ["1\n", "error: no", "1\n", "2\n", "3\n", "error: no"]
    );
    assert_eq!(inner.asked().len(), 4);
    assert_eq!(ask(&judge, &[("b", 0), ("bad", 0)]), ["2\n", "error: no"]);
    assert_eq!((inner.asked().len(), judge.remembered()), (5, 3));
}

#[test]
fn a_cache_file_persists_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("judge.jsonl");
    let first = CachedJudge::open(counting("one"), &path).unwrap();
    assert_eq!(ask(&first, &[("a", 0), ("é\"\n", 7)]), ["1\n", "2\n"]);
    drop(first);
    // A truncated last line, as a killed process leaves it.
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}{{\"key\": \"half")).unwrap();
    let inner = counting("one");
    let again = CachedJudge::open(inner.clone(), &path).unwrap();
    assert_eq!(ask(&again, &[("é\"\n", 7), ("c", 0)]), ["2\n", "1\n"]);
    assert_eq!(inner.asked(), [("c".to_string(), 0)]);
    drop(again);
    let lines = std::fs::read_to_string(&path).unwrap();
    assert!(
        lines.starts_with(&whole) && lines.lines().count() == 3,
        "{lines}"
    );
    // Another judge has separate answers.
    let other = counting("another");
    let another = CachedJudge::open(other.clone(), &path).unwrap();
    assert_eq!(
        (another.remembered(), ask(&another, &[("a", 0)])),
        (3, vec!["1\n".into()])
    );
    std::fs::write(&path, "{\"key\": 1}\n").unwrap();
    let message = CachedJudge::open(counting("one"), &path)
        .unwrap_err()
        .to_string();
    assert!(message.contains("judge.jsonl:1:"), "{message}");
}

#[test]
fn a_local_model_can_be_the_judge() {
    let device = toy::device();
    let mut policy = toy::policy(0, &device);
    let shown = [("a", "c"), ("ab", "ca"), ("c", "d"), ("cad", "bca")];
    let data: Vec<_> = shown
        .iter()
        .map(|(q, a)| Demonstration::new(*q, *a))
        .collect();
    let config = SftConfig {
        steps: 150,
        batch_size: 4,
        optimizer: toy::optimizer(0.02),
        ..SftConfig::default()
    };
    supervise(&mut policy, &toy::tokenizer(), &data, &config, |_| true).unwrap();
    let judge = |tokens: usize| {
        let greedy = GenerationConfig::new(tokens, vec![]).with_sampling(SamplingConfig::greedy());
        PolicyJudge::new("toy", policy.clone(), Arc::new(toy::tokenizer()), greedy).unwrap()
    };
    let questions = [("a", 0), ("x", 0), ("ab", 0), ("cad", 1)];
    let answers = ask(&judge(8), &questions);
    assert_eq!(
        (&answers[0], &answers[2], &answers[3]),
        (&"c".into(), &"ca".into(), &"bca".into())
    );
    assert!(answers[1].contains("character 'x'"), "{}", answers[1]);
    // A truncated answer has no verdict.
    let cut = ask(&judge(3), &questions);
    assert_eq!((&cut[0], &cut[2]), (&"c".into(), &"ca".into()));
    assert!(cut[3].contains("cut off at 3 tokens"), "{}", cut[3]);
    assert_ne!(judge(8).describe(), judge(3).describe());
    // A sampled answer depends on the seed, not on other questions.
    let sampled = GenerationConfig::new(12, vec![]).with_sampling(SamplingConfig {
        temperature: 3.0,
        ..SamplingConfig::default()
    });
    let sampler =
        PolicyJudge::new("toy", policy.clone(), Arc::new(toy::tokenizer()), sampled).unwrap();
    let many: Vec<(&str, u64)> = (0..8).map(|seed| ("ab", seed)).collect();
    let together = ask(&sampler, &many);
    assert!(together.iter().any(|answer| *answer != together[0]));
    for (question, answer) in many.iter().zip(&together) {
        assert_eq!(ask(&sampler, &[*question])[0], *answer);
    }
}
