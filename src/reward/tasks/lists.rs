//! Scorers for answers that are a list.

use serde_json::Value;

use super::super::RewardError;
use super::metadata::{read, reference};
use super::text::strip;
use crate::types::Problem;

/// Scores 1 for the numbers of the reference in its order, else 0.
pub(super) fn number_sorting(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let reference = reference(problem)?;
    let Some(right) = numbers(reference) else {
        return Err(
            format!("the reference `answer` is {reference:?}; expected a list of numbers").into(),
        );
    };
    let found = numbers(answer);
    Ok(if found == Some(right) { 1.0 } else { 0.0 })
}

/// The numbers of a JSON list of numbers or of strings in either kind of quotes.
fn numbers(text: &str) -> Option<Vec<f64>> {
    let list: Vec<Value> = serde_json::from_str(&text.replace('\'', "\"")).ok()?;
    let number = |value: &Value| match value {
        Value::String(text) => strip(text).parse().ok(),
        other => other.as_f64(),
    };
    list.iter().map(number).collect()
}

/// Scores the share of words in their place; at least 0.2 for the right words in another order.
pub(super) fn word_sorting(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let mut right: Vec<String> = read(problem, "sorted_words", "a list of words")?;
    let mut found: Vec<&str> = answer.split(',').map(strip).collect();
    let placed = found.iter().zip(&right).filter(|(a, b)| *a == b).count();
    let longer = found.len().max(right.len()).max(1);
    let share = placed as f64 / longer as f64;
    right.sort_unstable();
    found.sort_unstable();
    Ok(if found == right {
        share.max(0.2)
    } else {
        share
    })
}

/// Scores the share of letters in their place, ignoring case; 0.8 if more text follows the word.
pub(super) fn spell_backward(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let right = reference(problem)?.to_lowercase();
    let answer = answer.to_lowercase();
    if right == answer {
        return Ok(1.0);
    }
    let letters = right.chars().count();
    let placed = right.chars().zip(answer.chars()).filter(|(a, b)| a == b);
    let placed = placed.count();
    Ok(match placed == letters {
        true => 0.8,
        false => placed as f64 / letters as f64,
    })
}
