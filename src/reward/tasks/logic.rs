//! Scorer for conclusions of propositional logic.

use super::super::RewardError;
use super::metadata::read;
use super::text::is_python_space;
use crate::prompt::tasks::logic::{Formula, Operator};
use crate::types::Problem;

/// The maximum length of a formula, in characters, which bounds the recursion.
const MAX_CHARACTERS: usize = 1000;
/// The maximum number of variables, since all assignments are tried.
const MAX_VARIABLES: usize = 12;

/// Scores 1 for a formula that follows from the premises, 0.25 if it follows but is not new, 0.05
/// if it does not follow, and 0 if it is not a formula.
pub(super) fn propositional_logic(problem: &Problem, answer: &str) -> Result<f64, RewardError> {
    let allowed: Vec<String> = read(problem, "variables", "a list of letters")?;
    let written: Vec<String> = read(problem, "premises", "a list of formulas")?;
    let mut names = Vec::new();
    let premises: Vec<Formula> = written
        .iter()
        .map(|premise| {
            parse(premise, &mut names).ok_or_else(|| {
                format!("metadata `premises` has {premise:?}; expected a formula").into()
            })
        })
        .collect::<Result<_, RewardError>>()?;
    if names.len() > MAX_VARIABLES {
        let count = names.len();
        return Err(format!(
            "metadata `premises` has {count} variables; expected at most {MAX_VARIABLES}"
        )
        .into());
    }
    let is_known = |letter: char| allowed.iter().any(|name| name.chars().eq([letter]));
    let mut capitals = answer.chars().filter(char::is_ascii_uppercase);
    if !capitals.all(is_known) {
        return Ok(0.0);
    }
    let Some(conclusion) = parse(answer, &mut names) else {
        return Ok(0.0);
    };
    if names.len() > MAX_VARIABLES {
        return Ok(0.0);
    }
    let mut follows = true;
    let mut always = true;
    let mut repeats = vec![true; premises.len()];
    for bits in 0..1u32 << names.len() {
        let value = conclusion.evaluate(bits);
        let mut holds = true;
        for (premise, repeats) in premises.iter().zip(&mut repeats) {
            let premise = premise.evaluate(bits);
            holds &= premise;
            *repeats &= premise == value;
        }
        follows &= value || !holds;
        always &= value;
    }
    let is_new = !always && !repeats.contains(&true) && !matches!(conclusion, Formula::Variable(_));
    Ok(match (follows, is_new) {
        (true, true) => 1.0,
        (true, false) => 0.25,
        (false, _) => 0.05,
    })
}

/// Parses a formula and adds its variables to `names`. Returns `None` if something is missing or
/// the formula is too long.
///
/// `↔` binds loosest, then `→`, `∨`, `∧`, and `¬` tightest; operators of equal precedence are
/// left-associative. Any text without operators is a variable.
fn parse(text: &str, names: &mut Vec<String>) -> Option<Formula> {
    let characters: Vec<char> = text.chars().take(MAX_CHARACTERS + 1).collect();
    (characters.len() <= MAX_CHARACTERS).then(|| read_formula(&characters, names))?
}

fn read_formula(text: &[char], names: &mut Vec<String>) -> Option<Formula> {
    let mut text = text;
    loop {
        text = stripped(text);
        match text {
            [] => return None,
            ['(', inner @ .., ')'] if is_closed(inner) => text = inner,
            _ => break,
        }
    }
    for operator in Operator::ALL {
        let mut depth = 0i32;
        for (at, &character) in text.iter().enumerate().rev() {
            match character {
                ')' => depth += 1,
                '(' => depth -= 1,
                _ if depth == 0 && character == operator.symbol() => {
                    let left = read_formula(&text[..at], names)?;
                    let right = read_formula(&text[at + 1..], names)?;
                    return Some(Formula::Binary(operator, left.into(), right.into()));
                }
                _ => {}
            }
        }
    }
    if let ['¬', inner @ ..] = text {
        return Some(Formula::Not(read_formula(inner, names)?.into()));
    }
    let name: String = text.iter().collect();
    let known = names.iter().position(|known| *known == name);
    let at = known.unwrap_or(names.len());
    if known.is_none() {
        names.push(name);
    }
    Some(Formula::Variable(at))
}

fn stripped(mut text: &[char]) -> &[char] {
    while let [first, rest @ ..] = text
        && is_python_space(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_python_space(*last)
    {
        text = rest;
    }
    text
}

/// Whether all parentheses are balanced.
fn is_closed(text: &[char]) -> bool {
    let mut depth = 0i32;
    for character in text {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
    }
    depth == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::tasks::Task;
    use std::time::Instant;

    fn score(premises: &[&str], answer: &str) -> f64 {
        let problem = Problem::new("", "")
            .with_metadata("variables", vec!["P", "Q", "R"])
            .with_metadata("premises", premises);
        propositional_logic(&problem, answer).unwrap()
    }

    #[test]
    fn conclusions_are_scored_by_whether_they_follow() {
        for (answer, expected) in [
            ("P ∨ Q", 1.0),
            ("(P ∨ Q)", 1.0),
            ("¬¬P ∧ (P→Q)", 0.25),
            ("P", 0.25),
            ("P ∨ ¬P", 0.25),
            ("P → Q", 0.25),
            ("¬P ∨ Q", 0.25),
            ("¬Q ∨ R", 0.05),
            ("S ∨ P", 0.0),
            ("", 0.0),
            ("P ∨", 0.0),
            ("something else", 0.05),
        ] {
            // The last premise is equivalent to the others together.
            let premises = ["P", "P → Q", "P ∧ Q"];
            assert_eq!(score(&premises, answer), expected, "{answer}");
        }
        assert_eq!(score(&["P", "P → Q"], "P ∧ Q"), 1.0);
        assert_eq!(score(&["P", "P → Q"], "P ∧ Q ∧ Q"), 1.0);
        // Left-associative: (P → Q) → R.
        let mut names = Vec::new();
        let formula = parse("P → Q → R", &mut names).unwrap();
        assert_eq!(formula.to_string(), "(P → Q) → R");
        let formula = parse("¬P ∧ Q ∨ R ↔ P → Q", &mut names).unwrap();
        assert_eq!(formula.to_string(), "((¬P ∧ Q) ∨ R) ↔ (P → Q)");
    }

    #[test]
    fn generated_formulas_are_parsed_back() {
        for problem in Task::named("propositional_logic")
            .unwrap()
            .problems(200, 0)
            .unwrap()
        {
            let premises: Vec<String> =
                serde_json::from_value(problem.metadata["premises"].clone()).unwrap();
            for text in premises.iter().chain([&problem.answer]) {
                // All variables get the numbers that they were generated with.
                let mut names: Vec<String> = ["P", "Q", "R", "S"].map(String::from).into();
                assert_eq!(parse(text, &mut names).unwrap().to_string(), *text);
                assert_eq!(names.len(), 4);
            }
        }
    }

    #[test]
    fn hostile_formulas_are_scored_quickly() {
        let many = |count: usize, part: &str| part.repeat(count);
        let variables: Vec<String> = (0..40).map(|at| format!("x{at}")).collect();
        let start = Instant::now();
        for (answer, expected) in [
            (many(998, "¬") + "P", 0.25),
            (many(999, "¬") + "P", 0.05),
            (many(1000, "¬") + "P", 0.0),
            (many(499, "(") + "P" + &many(499, ")"), 0.25),
            (many(100_000, "("), 0.0),
            // Unbalanced parentheses are a name like any other.
            (many(1000, "("), 0.05),
            (variables.join("∨"), 0.0),
            (vec!["P"; 499].join("→"), 0.25),
            (vec!["P"; 500].join("→"), 0.25),
        ] {
            assert_eq!(score(&["P"], &answer), expected, "{answer:.20}");
        }
        assert!(start.elapsed().as_secs() < 60);
    }
}
