//! What is left behind and what is shown at the end.

use rlvr::train::Evaluation;
use serde::{Deserialize, Serialize};

/// `summary.json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub task: String,
    pub algorithm: String,
    pub seed: u64,
    pub steps: u64,
    pub parameters: usize,
    pub device: String,
    /// Share of held-out problems answered right, greedy. What was measured before training is null
    /// if a resumed run has lost it.
    pub held_out_before: Option<f64>,
    pub held_out_after: f64,
    pub held_out_problems: usize,
    /// The same, sampled at temperature 1.
    pub pass_at_1_before: Option<f64>,
    pub pass_at_1_after: f64,
    /// At least one right of four sampled.
    pub pass_at_4_before: Option<f64>,
    pub pass_at_4_after: f64,
    /// Mean length of the greedy completions, in tokens.
    pub length_before: Option<f64>,
    pub length_after: f64,
    /// Wall time of the whole run, earlier parts before a resume included.
    pub seconds: f64,
}

/// What a resumed run needs to know of the time before its first checkpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Before {
    /// The evaluation between the warm start and the first step, unless it was lost.
    pub evaluation: Option<Evaluation>,
    /// Seconds spent so far, updated at the end of every part of a run.
    pub seconds: f64,
}

/// Pass@k of an evaluation, 0 if it was not sampled.
pub fn pass_at(evaluation: &Evaluation, k: usize) -> f64 {
    let found = evaluation.pass_at_k.iter().find(|(of, _)| *of == k);
    found.map_or(0.0, |(_, value)| *value)
}

/// A share in percent.
pub fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1}%", 100.0 * share))
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
