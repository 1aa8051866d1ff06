//! What is asked, how an answer is worked out, and what it is rewarded for.

use std::path::Path;
use std::sync::Arc;

use rand::RngExt;
use rlvr::Result;
use rlvr::prompt::{Arithmetic, CharTokenizer, Countdown, JsonLines, Problem, Tokenizer, split};
use rlvr::random;
use rlvr::reward::{AccuracyReward, CountdownReward, FormatReward, RewardSet};
use rlvr::train::Demonstration;

use crate::args::{Args, TaskName};
use crate::files::read_problems;

const TAGS: [&str; 4] = ["<think>", "</think>", "<answer>", "</answer>"];
/// The word that keeps the demonstrations' streams apart from the run's other ones.
const DEMONSTRATIONS: u64 = 1;

/// Everything that depends on what is asked.
pub struct Task {
    pub name: String,
    pub tokenizer: Arc<dyn Tokenizer>,
    pub train: Vec<Problem>,
    /// Never trained on.
    pub held_out: Vec<Problem>,
    pub rewards: Arc<RewardSet>,
    /// For the warm start: some work the problem out, some answer directly.
    pub demonstrations: Vec<Demonstration>,
    pub warm_start_steps: u64,
    pub max_new_tokens: usize,
}

/// One problem's working, if it is known.
type Worked<'a> = &'a dyn Fn(&Problem) -> Result<String>;

impl Task {
    /// The task that the command line asks for.
    pub fn new(args: &Args) -> Result<Self> {
        match (&args.data, args.task) {
            (Some(file), _) => Self::from_file(file, args.seed),
            (None, TaskName::Arithmetic) => Self::arithmetic(args.seed),
            (None, TaskName::Countdown) => Self::countdown(args.seed),
        }
    }

    /// `37+48=`, worked out digit by digit with the carry.
    fn arithmetic(seed: u64) -> Result<Self> {
        let task = Arithmetic {
            digits: 2,
            terms: 2,
        };
        let problems = split(task.problems(6000, seed)?, 300, seed)?;
        Ok(Self {
            name: "arithmetic".into(),
            tokenizer: Arc::new(CharTokenizer::new(task.alphabet(), &TAGS)?),
            rewards: rewards(false)?,
            demonstrations: demonstrations(&problems.train, seed, BLURTED, &|p| task.worked(p))?,
            train: problems.train,
            held_out: problems.held_out,
            warm_start_steps: 220,
            max_new_tokens: 32,
        })
    }

    /// `3 5 7=15:`, worked out by trying.
    fn countdown(seed: u64) -> Result<Self> {
        let task = Countdown {
            numbers: 3,
            ..Countdown::default()
        };
        let problems = split(task.problems(2200, seed)?, 300, seed)?;
        Ok(Self {
            name: "countdown".into(),
            tokenizer: Arc::new(CharTokenizer::new(&task.alphabet(), &TAGS)?),
            rewards: rewards(true)?,
            demonstrations: demonstrations(&problems.train, seed, BLURTED, &|p| task.worked(p))?,
            train: problems.train,
            held_out: problems.held_out,
            warm_start_steps: 220,
            max_new_tokens: 56,
        })
    }

    /// Problems of a file. Where a question holds a sum such as `4 - 1 - 7`, its working is the
    /// running total; other questions are answered without one.
    fn from_file(file: &Path, seed: u64) -> Result<Self> {
        let problems = read_problems(file, &JsonLines::default())?;
        // A fifth, at least one, at most 300.
        let held_out = (problems.len() / 5).clamp(1, 300);
        let texts: Vec<String> = problems
            .iter()
            .flat_map(|p| [p.prompt.clone(), p.answer.clone()])
            .chain(["0123456789+-=,".to_string()])
            .collect();
        let tokenizer = CharTokenizer::from_texts(texts.iter().map(String::as_str), &TAGS)?;
        let problems = split(problems, held_out, seed)?;
        let worked = |p: &Problem| Ok(running_total(&p.prompt).unwrap_or_default());
        let demonstrations = demonstrations(&problems.train, seed, BLURTED, &worked)?;
        let longest = demonstrations.iter().map(|d| tokenizer.encode(&d.response));
        let longest = longest
            .map(|tokens| Ok(tokens?.len()))
            .collect::<Result<Vec<_>>>()?;
        let name = file
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        Ok(Self {
            name: name.unwrap_or_else(|| "data".into()),
            rewards: rewards(false)?,
            demonstrations,
            train: problems.train,
            held_out: problems.held_out,
            warm_start_steps: 220,
            // Room for a quarter more than the longest demonstration and the end token.
            max_new_tokens: 5 * longest.into_iter().max().unwrap_or(0) / 4 + 1,
            tokenizer: Arc::new(tokenizer),
        })
    }

    /// The longest prompt, in tokens.
    pub fn longest_prompt(&self) -> Result<usize> {
        let mut longest = 0;
        for problem in self.train.iter().chain(&self.held_out) {
            longest = longest.max(self.tokenizer.encode(&problem.prompt)?.len());
        }
        Ok(longest)
    }
}

/// The share of demonstrations that answer directly. Above one half, so that this is what the warm
/// start leaves.
const BLURTED: f64 = 0.58;

/// Accuracy and format, one each.
fn rewards(countdown: bool) -> Result<Arc<RewardSet>> {
    let builder = RewardSet::builder();
    let builder = if countdown {
        builder.add(1.0, CountdownReward::new())
    } else {
        builder.add(1.0, AccuracyReward::new())
    };
    Ok(Arc::new(builder.add(1.0, FormatReward::new()).build()?))
}

/// One demonstration per problem: its working, or with probability `blurted` none, then the answer.
fn demonstrations(
    problems: &[Problem],
    seed: u64,
    blurted: f64,
    worked: Worked,
) -> Result<Vec<Demonstration>> {
    let demonstrate = |(index, problem): (usize, &Problem)| {
        let mut rng = random::generator(&[seed, DEMONSTRATIONS, index as u64]);
        let thought = if rng.random_bool(blurted) {
            String::new()
        } else {
            worked(problem)?
        };
        let answer = &problem.answer;
        let response = format!("<think>{thought}</think><answer>{answer}</answer>");
        Ok(Demonstration::new(&problem.prompt, response))
    };
    problems.iter().enumerate().map(demonstrate).collect()
}

/// `4 - 1 - 7` inside a question becomes `4-1=3,3-7=-4`; `None` if there is no sum of integers in
/// it.
fn running_total(question: &str) -> Option<String> {
    let is_sum = |c: char| c.is_ascii_digit() || " +-".contains(c);
    let sum = question
        .split(|c| !is_sum(c))
        .filter(|part| part.contains(|c: char| c.is_ascii_digit()))
        .max_by_key(|part| part.len())?
        .replace(' ', "");
    let mut pieces = Vec::new();
    for c in sum.chars() {
        if pieces.is_empty() || "+-".contains(c) {
            pieces.push(String::new());
        }
        pieces.last_mut()?.push(c);
    }
    let mut total: i64 = pieces.first()?.parse().ok()?;
    let mut steps = Vec::new();
    for piece in &pieces[1..] {
        let sum = total.checked_add(piece.parse().ok()?)?;
        steps.push(format!("{total}{piece}={sum}"));
        total = sum;
    }
    (!steps.is_empty()).then(|| steps.join(","))
}
