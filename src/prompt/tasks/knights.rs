//! Puzzles about knights, who always tell the truth, and knaves, who always lie.

use std::ops::RangeInclusive;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Generator;
use super::draw::{between, check};
use super::logic::{Formula, Operator};
use crate::Result;
use crate::prompt::Problem;
use crate::random::shuffle;

/// First names.
const NAMES: [&str; 24] = [
    "Anna", "Boris", "Clara", "Diego", "Edith", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Katja",
    "Leo", "Marta", "Nils", "Olga", "Pablo", "Rosa", "Simon", "Tilda", "Ugo", "Vera", "Walter",
    "Xenia", "Yusuf",
];

/// Generates puzzles about knights, who always tell the truth, and knaves, who always lie, with one
/// statement of each character.
///
/// There is exactly one solution. The answer lists all characters, such as `Anna is a knight, Boris
/// is a knave`. Metadata: `names`, and `solution`, a list with `true` for each knight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KnightsKnaves {
    /// The number of characters, within 2..=8. Default: `2..=3`.
    pub people: RangeInclusive<u64>,
    /// The depth of each statement, within 1..=4; one of depth 1 is about one character. Default:
    /// `1..=2`.
    pub depth: RangeInclusive<u64>,
}

impl Default for KnightsKnaves {
    fn default() -> Self {
        Self {
            people: 2..=3,
            depth: 1..=2,
        }
    }
}

impl Generator for KnightsKnaves {
    fn validate(&self) -> Result<()> {
        check("people", &self.people, 2..=8)?;
        check("depth", &self.depth, 1..=4)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let people = between(rng, &self.people) as usize;
        let mut statement = || {
            let depth = between(rng, &self.depth);
            match Formula::draw(rng, people, depth) {
                variable @ Formula::Variable(_) if super::draw::coin(rng) => {
                    Formula::Not(Box::new(variable))
                }
                other => other,
            }
        };
        let statements: Vec<Formula> = (0..people).map(|_| statement()).collect();
        let [solution] = solutions(&statements)[..] else {
            return None;
        };
        let mut names = NAMES;
        shuffle(rng, &mut names);
        let names = &names[..people];
        let said: Vec<String> = names
            .iter()
            .zip(&statements)
            .map(|(name, statement)| format!("{name} says: \"{}.\"", spoken(statement, names)))
            .collect();
        let form = |role: &dyn Fn(usize) -> &'static str| {
            let roles = names.iter().enumerate();
            let roles: Vec<String> = roles
                .map(|(at, name)| format!("{name} is a {}", role(at)))
                .collect();
            roles.join(", ")
        };
        let prompt = format!(
            "On an island everybody is either a knight, who always tells the truth, or a knave, who always lies. You meet \
             {}. {} Who is a knight, and who is a knave? Answer in the form: {}",
            names.join(", "),
            said.join(" "),
            form(&|_| "knight/knave"),
        );
        let is_knight = |at: usize| solution >> at & 1 == 1;
        let answer = form(&|at| if is_knight(at) { "knight" } else { "knave" });
        Some(
            Problem::new(prompt, answer)
                .with_metadata("names", names)
                .with_metadata("solution", (0..people).map(is_knight).collect::<Vec<_>>()),
        )
    }
}

/// The first two assignments under which exactly the knights' statements are true.
fn solutions(statements: &[Formula]) -> Vec<u32> {
    let fits = |bits: &u32| {
        let mut people = statements.iter().enumerate();
        people.all(|(at, statement)| statement.evaluate(*bits) == (bits >> at & 1 == 1))
    };
    (0..1 << statements.len()).filter(fits).take(2).collect()
}

/// A statement in English.
fn spoken(statement: &Formula, names: &[&str]) -> String {
    // A part of a statement, in parentheses unless it is about one character.
    let part = |formula: &Formula| {
        let spoken = spoken(formula, names);
        let simple = match formula {
            Formula::Variable(_) => true,
            Formula::Not(inner) => matches!(**inner, Formula::Variable(_)),
            Formula::Binary(..) => false,
        };
        if simple {
            spoken
        } else {
            format!("({spoken})")
        }
    };
    match statement {
        Formula::Variable(at) => format!("{} is a knight", names[*at]),
        Formula::Not(inner) => match **inner {
            Formula::Variable(at) => format!("{} is a knave", names[at]),
            _ => format!("it is not true that {}", part(inner)),
        },
        Formula::Binary(operator, left, right) => {
            let (left, right) = (part(left), part(right));
            match operator {
                Operator::And => format!("{left} and {right}"),
                Operator::Or => format!("{left} or {right}"),
                Operator::Implies => format!("if {left} then {right}"),
                Operator::Iff => format!("{left} if and only if {right}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_solved_and_written_in_english() {
        let knight = |at| Formula::Variable(at);
        let knave = |at| Formula::Not(Box::new(Formula::Variable(at)));
        let both = |operator, a, b| Formula::Binary(operator, Box::new(a), Box::new(b));
        // "Both of us are knaves", said by a knave of a knight.
        let boast = both(Operator::And, knave(0), knave(1));
        let other = both(Operator::Or, knight(1), knight(0));
        assert_eq!(solutions(&[boast.clone(), other]), [0b10]);
        assert!(solutions(&[knave(0)]).is_empty());
        assert_eq!(solutions(&[knight(0)]), [0, 1]);
        let names = ["Anna", "Boris"];
        assert_eq!(
            spoken(&boast, &names),
            "Anna is a knave and Boris is a knave"
        );
        let deep = both(Operator::Implies, knight(1), Formula::Not(Box::new(boast)));
        assert_eq!(
            spoken(&deep, &names),
            "if Boris is a knight then (it is not true that (Anna is a knave and Boris is a knave))"
        );
    }
}
