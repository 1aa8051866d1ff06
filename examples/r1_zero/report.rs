//! What is left behind and what is shown at the end.

use std::fs;
use std::path::Path;

use rlvr::train::Evaluation;
use rlvr::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// `summary.json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub task: String,
    pub algorithm: String,
    pub seed: u64,
    pub steps: u64,
    pub parameters: usize,
    pub device: String,
    /// Share of held-out problems answered right, greedy.
    pub held_out_before: f64,
    pub held_out_after: f64,
    pub held_out_problems: usize,
    /// The same, sampled at temperature 1.
    pub pass_at_1_before: f64,
    pub pass_at_1_after: f64,
    /// At least one right of four sampled.
    pub pass_at_4_before: f64,
    pub pass_at_4_after: f64,
    /// Mean length of the greedy completions, in tokens.
    pub length_before: f64,
    pub length_after: f64,
    /// Wall time of the whole run, earlier parts before a resume included.
    pub seconds: f64,
}

/// What a resumed run needs to know of the time before its first checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    pub evaluation: Evaluation,
    /// Seconds spent so far, updated at the end of every part of a run.
    pub seconds: f64,
}

/// Writes `value` as pretty JSON, whole or not at all.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let beside = path.with_extension("json.tmp");
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::io(path, e.into()))?;
    fs::write(&beside, text + "\n").map_err(|e| Error::io(&beside, e))?;
    fs::rename(&beside, path).map_err(|e| Error::io(path, e))
}

/// Reads what [`write_json`] wrote.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::io(path, e.into()))
}

/// Pass@k of an evaluation, 0 if it was not sampled.
pub fn pass_at(evaluation: &Evaluation, k: usize) -> f64 {
    let found = evaluation.pass_at_k.iter().find(|(of, _)| *of == k);
    found.map_or(0.0, |(_, value)| *value)
}

/// The same problems before and after, side by side: those first that were wrong before.
pub fn side_by_side(before: &Evaluation, after: &Evaluation, count: usize) {
    let right = |evaluation: &Evaluation, i: usize| {
        let rollout = &evaluation.greedy.groups[i].rollouts[0];
        rollout.score("accuracy") == Some(1.0)
    };
    let mut order: Vec<usize> = (0..before.greedy.groups.len()).collect();
    order.sort_by_key(|&i| right(before, i));
    order.truncate(count);
    let clip = |text: &str, width: usize| -> String {
        match text.char_indices().nth(width) {
            Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
            None => text.to_string(),
        }
    };
    let answer = |evaluation: &Evaluation, i: usize| {
        let mark = if right(evaluation, i) { "✓" } else { "✗" };
        format!("{mark} {}", evaluation.greedy.groups[i].rollouts[0].text)
    };
    let width = |texts: &dyn Fn(usize) -> String, most: usize| {
        let longest = order.iter().map(|&i| texts(i).chars().count()).max();
        longest.unwrap_or(0).clamp(8, most)
    };
    // The end of a long question says more than its beginning.
    let problem = |i: usize| {
        let prompt = before.greedy.groups[i].problem.prompt.replace('\n', " ");
        let length = prompt.chars().count();
        match length > 34 {
            true => ['…']
                .into_iter()
                .chain(prompt.chars().skip(length - 33))
                .collect(),
            false => prompt,
        }
    };
    let (first, second, third) = (
        width(&problem, 34),
        width(&|i| answer(before, i), 48),
        width(&|i| answer(after, i), 72),
    );
    println!("\n{:first$}  {:second$}  after", "problem", "before");
    println!("{:─<first$}  {:─<second$}  {:─<third$}", "", "", "");
    for &i in &order {
        println!(
            "{:first$}  {:second$}  {}",
            problem(i),
            clip(&answer(before, i), second),
            clip(&answer(after, i), third),
        );
    }
}
