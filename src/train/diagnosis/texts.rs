//! Findings about the texts of completions: repetition loops and copied prompts.

use super::{Finding, Severity, percent, severity};
use crate::types::{Rollout, RolloutBuffer};

/// The largest number of completions that are read, evenly spread over the step.
const MOST: usize = 64;
/// The number of characters that are read at the end of a completion.
const TAIL: usize = 2000;
/// The longest period of a loop, and the fewest characters that a loop must fill.
const PERIOD: usize = 200;
const LOOPING: usize = 60;
/// The shortest prompt whose copy counts, in characters.
const PROMPT: usize = 40;

pub(super) fn findings(step: u64, rollouts: &RolloutBuffer) -> Vec<Finding> {
    let all: Vec<(&str, &Rollout)> = rollouts
        .groups
        .iter()
        .flat_map(|group| {
            let prompt = group.problem.prompt.trim();
            group.rollouts.iter().map(move |rollout| (prompt, rollout))
        })
        .collect();
    let some: Vec<(&str, &Rollout)> = all
        .iter()
        .step_by(all.len().div_ceil(MOST).max(1))
        .copied()
        .collect();
    let share = |of: &dyn Fn(&str, &str) -> bool| {
        let count = some.iter().filter(|(prompt, r)| of(prompt, &r.text));
        count.count() as f64 / some.len().max(1) as f64
    };
    let mut findings = Vec::new();
    let mut put = |name: &str, severity: Severity, share: f64, what: &str, advice: &str| {
        findings.push(Finding {
            name: name.into(),
            severity,
            first_step: step,
            last_step: step,
            evidence: format!("{} of {} completions {what}", percent(share), some.len()),
            numbers: [(name.to_string(), share)].into(),
            advice: advice.into(),
        });
    };
    let looping = share(&|_, text| ends_in_loop(text));
    if let Some(severity) = severity(looping, 0.2, 0.6) {
        put(
            "repetition",
            severity,
            looping,
            "end in a repetition loop",
            "Add a reward that penalises repetition, add a soft length penalty, and lower the learning rate; if a \
             reward rises with the repetition, it probably favours length",
        );
    }
    let copied =
        |prompt: &str, text: &str| prompt.chars().count() >= PROMPT && text.contains(prompt);
    let copied = share(&copied);
    if let Some(severity) = severity(copied, 0.5, f64::INFINITY) {
        put(
            "copied_prompt",
            severity,
            copied,
            "contain the whole prompt",
            "Check that repeating the question earns no reward, such as one for length, language or an answer found \
             anywhere in the text, and that the chat template marks the beginning of the answer",
        );
    }
    findings
}

/// Returns whether the text ends with at least four repetitions that fill at least 60 characters.
fn ends_in_loop(text: &str) -> bool {
    // Reversed: `tail[0]` is the last character.
    let tail: Vec<char> = text.trim_end().chars().rev().take(TAIL).collect();
    (1..=PERIOD.min(tail.len() / 4)).any(|period| {
        let same = tail.iter().zip(&tail[period..]);
        let same = same.take_while(|(a, b)| a == b).count();
        same >= 3 * period && same + period >= LOOPING
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Problem, RolloutGroup};

    fn step(prompt: &str, texts: &[&str]) -> Vec<Finding> {
        let rollout = |text: &&str| Rollout::new(vec![1], vec![0.0], *text);
        let rollouts = texts.iter().map(rollout).collect();
        let group = RolloutGroup::new(Problem::new(prompt, ""), vec![1], rollouts);
        findings(
            7,
            &RolloutBuffer {
                groups: vec![group],
            },
        )
    }

    #[test]
    fn repetition_loops_are_detected() {
        let word = "wait, let me check. ".repeat(5);
        assert!(ends_in_loop(&word));
        assert!(ends_in_loop(&format!("Some thought first. {word}")));
        assert!(ends_in_loop(&"7".repeat(60)));
        assert!(!ends_in_loop(&"7".repeat(59)));
        assert!(!ends_in_loop(&"wait, let me check. ".repeat(3)));
        assert!(!ends_in_loop(&format!("{word} So the answer is 12.")));
        assert!(!ends_in_loop(""));
        let counting: String = (0..200).map(|n| format!("{n}, ")).collect();
        assert!(!ends_in_loop(&counting));
    }

    #[test]
    fn the_finding_reports_the_share_of_completions() {
        let word = "so it is, ".repeat(9);
        let found = step("1+1=", &[&word, "2", "2", "3"]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].severity),
            ("repetition", Severity::Warning)
        );
        assert_eq!((found[0].first_step, found[0].last_step), (7, 7));
        assert_eq!(
            found[0].evidence,
            "25% of 4 completions end in a repetition loop"
        );
        let found = step("1+1=", &[&word, &word, "3"]);
        assert_eq!(found[0].severity, Severity::Failing);
    }

    #[test]
    fn a_copied_long_prompt_is_found() {
        let prompt = "How many apples are left if Ann eats two of her seven?";
        let copy = format!("The question: {prompt} Five.");
        let found = step(prompt, &[&copy, "Five."]);
        assert_eq!(found[0].name, "copied_prompt");
        assert!(step(prompt, &[&copy, "Five.", "5"]).is_empty());
        assert!(step("37+48=", &["37+48=85"]).is_empty());
        assert!(findings(1, &RolloutBuffer::new()).is_empty());
    }
}
