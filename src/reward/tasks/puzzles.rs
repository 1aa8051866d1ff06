//! Scorers for puzzles.

use std::collections::BTreeSet;

use super::super::RewardError;
use super::metadata::{read, reference};
use super::text::{is_python_space, length, strip, words};
use crate::prompt::tasks::path::DIRECTIONS;
use crate::types::Problem;

/// Scores the share of right cells; times 0.9 in a form other than that of the reference, and less
/// for a longer text.
pub(super) fn mini_sudoku(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let reference = reference(problem)?;
    let solution: Vec<Vec<u32>> = read(problem, "solution", "a list of rows of digits")?;
    if answer.is_empty() {
        return Ok(0.0);
    }
    let same_lines = {
        let lines = |text: &'_ str| -> Vec<String> {
            let lines = text.split('\n');
            lines
                .map(|line| line.trim_end_matches(is_python_space).to_string())
                .collect()
        };
        lines(answer) == lines(reference)
    };
    let score = match same_lines {
        true => 1.0,
        false => {
            let size = solution.len();
            let digits = |line: &str| -> Vec<u32> {
                let digits = line.chars().filter_map(|c| c.to_digit(10));
                digits.filter(|&digit| digit > 0).collect()
            };
            // Lines with another number of digits are skipped.
            let rows = answer
                .split('\n')
                .map(digits)
                .filter(|row| row.len() == size);
            let right = |(row, right): (Vec<u32>, &Vec<u32>)| {
                row.iter().zip(right).filter(|(a, b)| a == b).count()
            };
            let cells: usize = rows.zip(&solution).map(right).sum();
            0.9 * (cells as f64 / (size * size).max(1) as f64)
        }
    };
    let (ours, theirs) = (length(reference), length(answer));
    Ok(match theirs > ours {
        true => score * (ours as f64 / theirs as f64),
        false => score,
    })
}

/// Scores 1 for the reference or a path of the same length, 0.5 for a longer path, else 0.
pub(super) fn shortest_path(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let reference = strip(reference(problem)?);
    let grid: Vec<Vec<String>> = read(problem, "matrix", "a list of rows of cells")?;
    let answer = strip(answer);
    if answer == reference {
        return Ok(1.0);
    }
    Ok(match leads_to_the_end(&grid, answer) {
        true if words(answer).count() == words(reference).count() => 1.0,
        true => 0.5,
        false => 0.0,
    })
}

/// Whether the steps lead from `*` to `#` inside the grid without entering a blocked cell.
fn leads_to_the_end(grid: &[Vec<String>], steps: &str) -> bool {
    let at = |row: usize, column: usize| grid.get(row).and_then(|row| row.get(column));
    let mut cells = (0..grid.len()).flat_map(|r| (0..grid[r].len()).map(move |c| (r, c)));
    let Some((mut row, mut column)) = cells.find(|&(r, c)| grid[r][c] == "*") else {
        return false;
    };
    for step in words(steps) {
        let Some((_, step)) = DIRECTIONS.iter().find(|(name, _)| *name == step) else {
            return false;
        };
        row = row.wrapping_add_signed(step.0);
        column = column.wrapping_add_signed(step.1);
        if at(row, column).is_none_or(|cell| cell == "X") {
            return false;
        }
    }
    at(row, column).is_some_and(|cell| cell == "#")
}

/// The names of the two roles in problems of reasoning_gym. The generator of this crate uses
/// knights and knaves.
const ROLES: [&str; 14] = [
    "knight", "knave", "pioneer", "laggard", "saint", "sinner", "hero", "villain", "angel",
    "devil", "altruist", "egoist", "sage", "fool",
];

/// Scores 1 if all roles are right; if only some are, 0.3 + 0.7 of their share; else 0.
pub(super) fn knights_knaves(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let reference = reference(problem)?;
    let right = roles(reference);
    if right.is_empty() {
        let expected = "names with their roles, as in `Anna is a knight`";
        return Err(format!("the reference `answer` is {reference:?}; expected {expected}").into());
    }
    let found = roles(answer);
    let same = found.intersection(&right).count();
    Ok(match found.len() == right.len() && same > 0 {
        true if same == right.len() => 1.0,
        true => 0.3 + 0.7 * same as f64 / right.len() as f64,
        false => 0.0,
    })
}

/// Pairs of a name and the role that follows it, in lower case.
fn roles(text: &str) -> BTreeSet<(String, String)> {
    let text = text.to_lowercase().replace(['.', ',', ')', '('], " ");
    // Of two adjacent words `and and`, which share a blank, one is left.
    let text = strip(&text).replace(" and ", " ");
    let (mut pairs, mut name) = (BTreeSet::new(), None);
    for word in words(&text).filter(|word| !["is", "a", "an"].contains(word)) {
        match ROLES.contains(&word) {
            true => pairs.extend(
                name.take()
                    .map(|name: &str| (name.to_string(), word.to_string())),
            ),
            false => name = Some(word),
        }
    }
    pairs
}
