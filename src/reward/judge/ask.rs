//! Repeats questions until the answer can be parsed.

use super::Judge;
use crate::reward::RewardError;

/// The maximum number of attempts per question.
const ATTEMPTS: u64 = 3;
/// The distance between the seeds of two attempts, so that no attempt has the seed of another vote.
const NEXT_ATTEMPT: u64 = 1 << 32;

/// Asks the questions, each with the number of its vote as the seed, and returns what `read` parses
/// from the answers.
pub(super) fn ask<T>(
    judge: &impl Judge,
    questions: Vec<(String, u64)>,
    read: impl Fn(&str) -> Option<T>,
) -> Vec<Result<T, RewardError>> {
    let mut found: Vec<Option<Result<T, RewardError>>> = questions.iter().map(|_| None).collect();
    // The indices of the questions without a parsed answer.
    let mut open: Vec<usize> = (0..questions.len()).collect();
    for attempt in 0..ATTEMPTS {
        if open.is_empty() {
            break;
        }
        let asked: Vec<(String, u64)> = open
            .iter()
            .map(|&at| {
                let (question, vote) = &questions[at];
                (question.clone(), vote + attempt * NEXT_ATTEMPT)
            })
            .collect();
        let answers = judge.answer_all(&asked);
        if answers.len() != asked.len() {
            let message = format!("{} answers to {} questions", answers.len(), asked.len());
            for at in open {
                found[at] = Some(Err(message.clone().into()));
            }
            break;
        }
        let mut unread = Vec::new();
        for (at, answer) in open.into_iter().zip(answers) {
            found[at] = match answer.map(|answer| read(&answer).ok_or(answer)) {
                Ok(Ok(verdict)) => Some(Ok(verdict)),
                Ok(Err(answer)) => {
                    unread.push(at);
                    Some(Err(unreadable(&answer)))
                }
                Err(error) => Some(Err(error)),
            };
        }
        open = unread;
    }
    let none = || Err("the judge was not asked".into());
    found
        .into_iter()
        .map(|one| one.unwrap_or_else(none))
        .collect()
}

fn unreadable(answer: &str) -> RewardError {
    let characters = answer.trim().chars();
    let end: String = characters.rev().take(80).collect();
    let end: String = end.chars().rev().collect();
    format!("no verdict in {ATTEMPTS} answers of the judge; the last one ends in {end:?}, expected a last line `Verdict: ..` in the requested form").into()
}
