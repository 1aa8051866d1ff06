//! Propositional logic: formulas and their consequences.

use std::fmt;
use std::ops::RangeInclusive;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Generator;
use super::draw::{between, check};
use crate::Result;
use crate::prompt::Problem;
use crate::random::below;

/// A formula over numbered variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Formula {
    Variable(usize),
    Not(Box<Formula>),
    Binary(Operator, Box<Formula>, Box<Formula>),
}

/// A binary connective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    And,
    Or,
    Implies,
    Iff,
}

impl Operator {
    /// In order of increasing precedence.
    pub(crate) const ALL: [Self; 4] = [Self::Iff, Self::Implies, Self::Or, Self::And];

    pub(crate) fn symbol(self) -> char {
        match self {
            Self::And => '∧',
            Self::Or => '∨',
            Self::Implies => '→',
            Self::Iff => '↔',
        }
    }
}

impl Formula {
    /// The value if variable `i` is bit `i` of `bits`; there are at most 32 variables.
    pub(crate) fn evaluate(&self, bits: u32) -> bool {
        match self {
            Self::Variable(at) => bits >> at & 1 == 1,
            Self::Not(inner) => !inner.evaluate(bits),
            Self::Binary(operator, left, right) => {
                let (left, right) = (left.evaluate(bits), right.evaluate(bits));
                match operator {
                    Operator::And => left && right,
                    Operator::Or => left || right,
                    Operator::Implies => !left || right,
                    Operator::Iff => left == right,
                }
            }
        }
    }

    /// The truth table for `variables` variables.
    pub(super) fn table(&self, variables: usize) -> Vec<bool> {
        (0..1 << variables)
            .map(|bits| self.evaluate(bits))
            .collect()
    }

    /// Draws a formula of this depth: a variable has depth 1, and every operator adds 1.
    pub(super) fn draw(rng: &mut impl Rng, variables: usize, depth: u64) -> Self {
        if depth <= 1 {
            return Self::Variable(below(rng, variables as u64) as usize);
        }
        match below(rng, 5) as usize {
            4 => Self::Not(Box::new(Self::draw(rng, variables, depth - 1))),
            at => {
                let left = Box::new(Self::draw(rng, variables, depth - 1));
                let right = Box::new(Self::draw(rng, variables, depth - 1));
                Self::Binary(Operator::ALL[at], left, right)
            }
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, outermost: bool) -> fmt::Result {
        match self {
            Self::Variable(at) => write!(f, "{}", letter(*at)),
            Self::Not(inner) => {
                write!(f, "¬")?;
                inner.write(f, false)
            }
            Self::Binary(operator, left, right) => {
                write!(f, "{}", if outermost { "" } else { "(" })?;
                left.write(f, false)?;
                write!(f, " {} ", operator.symbol())?;
                right.write(f, false)?;
                write!(f, "{}", if outermost { "" } else { ")" })
            }
        }
    }
}

/// Writes parentheses around every binary formula but the outermost: `(P ∧ ¬Q) → R`.
impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, true)
    }
}

/// The name of a variable; the first is `P`.
fn letter(at: usize) -> char {
    char::from(b'P' + (at as u8).min(b'Z' - b'P'))
}

/// Generates premises and asks for a formula that follows from them.
///
/// The formula must not be a tautology or a premise. There may be many such formulas; the answer is
/// one of them. The premises are consistent, and none is a tautology. Metadata: `premises`,
/// `variables`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PropositionalLogic {
    /// The number of variables, within 2..=6. Default: `2..=4`.
    pub variables: RangeInclusive<u64>,
    /// The number of premises, within 1..=10. Default: `2..=4`.
    pub premises: RangeInclusive<u64>,
    /// The depth of a premise, within 1..=5; a variable has depth 1, and every operator adds 1.
    /// Default: `2..=3`.
    pub depth: RangeInclusive<u64>,
}

impl Default for PropositionalLogic {
    fn default() -> Self {
        Self {
            variables: 2..=4,
            premises: 2..=4,
            depth: 2..=3,
        }
    }
}

/// The maximum number of draws of a conclusion for given premises.
const CONCLUSIONS: usize = 100;

impl Generator for PropositionalLogic {
    fn validate(&self) -> Result<()> {
        check("variables", &self.variables, 2..=6)?;
        check("premises", &self.premises, 1..=10)?;
        check("depth", &self.depth, 1..=5)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let variables = between(rng, &self.variables) as usize;
        let count = between(rng, &self.premises);
        let mut premise = || {
            let depth = between(rng, &self.depth);
            Formula::draw(rng, variables, depth)
        };
        let premises: Vec<Formula> = (0..count).map(|_| premise()).collect();
        let tables: Vec<Vec<bool>> = premises.iter().map(|p| p.table(variables)).collect();
        let holds = |row: usize| tables.iter().all(|table| table[row]);
        let always = |table: &Vec<bool>| table.iter().all(|&value| value);
        let rows = 0..1usize << variables;
        if !rows.clone().any(holds) || tables.iter().any(always) {
            return None;
        }
        let conclusion = (0..CONCLUSIONS).find_map(|_| {
            let conclusion = Formula::draw(rng, variables, 2);
            let table = conclusion.table(variables);
            let follows = rows.clone().all(|row| !holds(row) || table[row]);
            let says_something = !always(&table) && !tables.contains(&table);
            (follows && says_something).then_some(conclusion)
        })?;
        let premises: Vec<String> = premises.iter().map(Formula::to_string).collect();
        let listed: Vec<String> = (1..)
            .zip(&premises)
            .map(|(at, premise)| format!("{at}. {premise}"))
            .collect();
        let prompt = format!(
            "These statements are true:\n{}\nState something that follows from them, that is not one of them, and that is \
             not true by itself. Write ∧ for and, ∨ for or, ¬ for not, → for implies, ↔ for if and only if. Answer with one \
             formula of at least one operator.",
            listed.join("\n")
        );
        let names: Vec<String> = (0..variables).map(|at| letter(at).to_string()).collect();
        Some(
            Problem::new(prompt, conclusion.to_string())
                .with_metadata("premises", premises)
                .with_metadata("variables", names),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_evaluated_and_displayed() {
        let variable = |at| Box::new(Formula::Variable(at));
        for (operator, expected) in Operator::ALL.into_iter().zip([
            [true, false, false, true],
            [true, false, true, true],
            [false, true, true, true],
            [false, false, false, true],
        ]) {
            let formula = Formula::Binary(operator, variable(0), variable(1));
            assert_eq!(formula.table(2), expected, "{formula}");
        }
        let inner = Formula::Binary(Operator::Or, variable(0), variable(1));
        let formula = Formula::Binary(
            Operator::Implies,
            Box::new(Formula::Not(Box::new(inner))),
            Box::new(Formula::Not(variable(2))),
        );
        assert_eq!(formula.to_string(), "¬(P ∨ Q) → ¬R");
        assert_eq!(letter(10), 'Z');
    }
}
