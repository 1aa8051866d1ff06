//! Countdown: find an expression that uses each of the given numbers once and equals the target.

use std::collections::HashSet;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Problem, expression::evaluate_expression};
use crate::random::generator;
use crate::random::{below, shuffle};
use crate::{Error, Result};

/// The words of this task and of its worked search in a generator's address.
const COUNTDOWN: u64 = u64::from_be_bytes(*b"pr.count");
const SEARCH: u64 = u64::from_be_bytes(*b"pr.searc");
/// The maximum number of draws for a problem.
const DRAWS: usize = 10_000;
/// The maximum number of wrong expressions in a worked search.
const MAX_WRONG: u64 = 3;

/// Generates numbers and a target, such as `3 5 7=15:` with the answer `3+5+7`.
///
/// A solution uses every number exactly once, in any order, with the usual precedence. There may be
/// several; the answer is one of them, without parentheses. The metadata is
/// `{"task": "countdown", "numbers": [3, 5, 7], "target": 15}`.
///
/// ```
/// use rlvr::prompt::Countdown;
///
/// let game = Countdown {
///     operators: "+-*".into(),
///     ..Countdown::default()
/// };
/// for problem in game.problems(20, 0)? {
///     assert!(problem.metadata["target"].as_u64().unwrap() <= 30);
///     assert_eq!(problem.metadata["numbers"].as_array().unwrap().len(), 3);
/// }
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Countdown {
    /// The number of numbers, 2..=6. Default: 3.
    pub numbers: usize,
    /// The largest number, 1..=99. The smallest is 1, and numbers may repeat. Default: 9.
    pub largest: u32,
    /// The operators of a solution, each of `+-*/` at most once. Default: `+-`.
    pub operators: String,
    /// The largest target, at least 1. The smallest is 1. Default: 30.
    pub largest_target: u32,
}

impl Default for Countdown {
    fn default() -> Self {
        Self {
            numbers: 3,
            largest: 9,
            operators: "+-".into(),
            largest_target: 30,
        }
    }
}

impl Countdown {
    /// Rejects settings outside their ranges.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the name of the first invalid field.
    pub fn validate(&self) -> Result<()> {
        if !(2..=6).contains(&self.numbers) {
            return Err(Error::config("numbers", self.numbers, "2..=6"));
        }
        if !(1..=99).contains(&self.largest) {
            return Err(Error::config("largest", self.largest, "1..=99"));
        }
        let distinct: HashSet<char> = self
            .operators
            .chars()
            .filter(|&c| "+-*/".contains(c))
            .collect();
        if distinct.is_empty() || distinct.len() != self.operators.chars().count() {
            let value = format!("{:?}", self.operators);
            return Err(Error::config(
                "operators",
                value,
                "one or more of `+-*/`, each at most once",
            ));
        }
        if self.largest_target == 0 {
            return Err(Error::config("largest_target", 0, "1 or more"));
        }
        Ok(())
    }

    /// Generates one problem. Numbers and a random expression of them are drawn until its value is
    /// a valid target.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the settings are invalid, or if none of 10 000 draws has a
    /// target in `1..=largest_target`.
    pub fn generate(&self, rng: &mut impl Rng) -> Result<Problem> {
        self.validate()?;
        let found = (0..DRAWS).find_map(|_| self.draw(rng));
        found.ok_or_else(|| {
            self.too_narrow("largest_target", self.largest_target, "no target was found")
        })
    }

    /// Generates `count` problems with distinct prompts, as a pure function of the settings and
    /// `seed`.
    ///
    /// Problem `i` is drawn from its own generator until its prompt is new, so a longer list starts
    /// with the shorter one. Prompts are compared as text: `3 5 7=15:` and `5 3 7=15:` are two
    /// problems.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the settings are invalid, or if none of 10 000 draws has a new
    /// prompt because the settings allow too few.
    pub fn problems(&self, count: usize, seed: u64) -> Result<Vec<Problem>> {
        self.validate()?;
        let mut seen = HashSet::new();
        let mut problems: Vec<Problem> = Vec::new();
        for i in 0..count as u64 {
            let mut rng = generator(&[seed, COUNTDOWN, i]);
            let mut fresh = || {
                self.draw(&mut rng)
                    .filter(|problem| seen.insert(problem.prompt.clone()))
            };
            let problem = (0..DRAWS).find_map(|_| fresh()).ok_or_else(|| {
                self.too_narrow(
                    "count",
                    count,
                    &format!("only {} distinct problems were found", problems.len()),
                )
            })?;
            problems.push(problem);
        }
        Ok(problems)
    }

    /// Returns a worked search for the solution, for supervised warm-up: up to three wrong
    /// expressions of the numbers, each with its value, then the answer with the target.
    ///
    /// The wrong expressions are a pure function of the settings and the prompt.
    ///
    /// ```
    /// use rlvr::prompt::{Countdown, Problem};
    ///
    /// let worked = Countdown::default().worked(&Problem::new("3 5 7=15:", "3+5+7"))?;
    /// assert!(worked.ends_with("3+5+7=15"));
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the prompt is not of these settings, if the answer does not
    /// solve it, or if the settings are invalid.
    pub fn worked(&self, problem: &Problem) -> Result<String> {
        self.validate()?;
        let (numbers, target) = self.parse(&problem.prompt).ok_or_else(|| {
            let expected = format!(
                "{} numbers in 1..={}, `=`, a target in 1..={} and `:`, such as `3 5 7=15:`",
                self.numbers, self.largest, self.largest_target
            );
            Error::config("prompt", format!("{:?}", problem.prompt), expected)
        })?;
        if !solves(&problem.answer, &numbers, target) {
            let expected =
                format!("an expression equal to {target} that uses each of {numbers:?} once");
            return Err(Error::config(
                "answer",
                format!("{:?}", problem.answer),
                expected,
            ));
        }
        let mut address = vec![SEARCH, target];
        address.extend(&numbers);
        let mut rng = generator(&address);
        let wanted = 1 + below(&mut rng, MAX_WRONG) as usize;
        let right = format!("{}={target}", problem.answer);
        let mut lines: Vec<String> = Vec::new();
        // There may be fewer wrong expressions than wanted, so the number of draws is bounded.
        for _ in 0..8 * wanted {
            let expression = self.expression(&numbers, &mut rng);
            let Ok(evaluated) = evaluate_expression(&expression) else {
                continue;
            };
            let line = format!("{expression}={}", evaluated.value);
            if evaluated.value != target.into() && !lines.contains(&line) {
                lines.push(line);
            }
            if lines.len() == wanted {
                break;
            }
        }
        lines.push(right);
        Ok(lines.join(","))
    }

    /// Returns the characters of prompts, answers and worked searches with these operators.
    ///
    /// Negative values need no further character, since only expressions with `-` have them; the
    /// same holds for fractions and `/`.
    pub fn alphabet(&self) -> String {
        format!("0123456789{} =:,", self.operators)
    }

    /// Draws numbers and an expression; `None` if its value is not a valid target.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let numbers: Vec<u64> = (0..self.numbers)
            .map(|_| 1 + below(rng, self.largest.into()))
            .collect();
        let expression = self.expression(&numbers, rng);
        let value = evaluate_expression(&expression).ok()?.value.to_integer()?;
        let target = u64::try_from(value)
            .ok()
            .filter(|target| (1..=self.largest_target.into()).contains(target))?;
        Some(
            Problem::new(prompt(&numbers, target), expression)
                .with_metadata("task", "countdown")
                .with_metadata("numbers", numbers)
                .with_metadata("target", target),
        )
    }

    /// The numbers in random order with random operators between them.
    fn expression(&self, numbers: &[u64], rng: &mut impl Rng) -> String {
        let operators = self.operators.as_bytes();
        let mut order = numbers.to_vec();
        shuffle(rng, &mut order);
        let mut text = String::new();
        for number in order {
            if !text.is_empty() {
                text.push(operators[below(rng, operators.len() as u64) as usize].into());
            }
            text += &number.to_string();
        }
        text
    }

    /// The numbers and the target of a prompt, if it is of these settings.
    fn parse(&self, text: &str) -> Option<(Vec<u64>, u64)> {
        let (numbers, target) = text.strip_suffix(':')?.split_once('=')?;
        let numbers: Vec<u64> = numbers
            .split(' ')
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        let target: u64 = target.parse().ok()?;
        let in_range = numbers.len() == self.numbers
            && numbers
                .iter()
                .all(|number| (1..=self.largest.into()).contains(number))
            && (1..=self.largest_target.into()).contains(&target);
        // Plus signs and leading zeros are parsed, but are not in prompts.
        (in_range && prompt(&numbers, target) == text).then_some((numbers, target))
    }

    fn too_narrow(&self, field: &str, value: impl std::fmt::Display, what: &str) -> Error {
        let expected =
            format!("settings that allow more problems: {what} in {DRAWS} draws of {self:?}");
        Error::config(field, value, expected)
    }
}

fn prompt(numbers: &[u64], target: u64) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    format!("{}={target}:", numbers.join(" "))
}

/// Returns true if `expression` equals `target` and uses each of `numbers` exactly once.
fn solves(expression: &str, numbers: &[u64], target: u64) -> bool {
    evaluate_expression(expression).is_ok_and(|mut evaluated| {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        evaluated.numbers.sort_unstable();
        evaluated.value == target.into() && evaluated.numbers == numbers
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn game(numbers: usize, largest: u32, operators: &str, largest_target: u32) -> Countdown {
        Countdown {
            numbers,
            largest,
            operators: operators.into(),
            largest_target,
        }
    }

    #[test]
    fn invalid_settings_are_errors_that_name_the_field() {
        for (wrong, field) in [
            (game(1, 9, "+", 30), "numbers"),
            (game(7, 9, "+", 30), "numbers"),
            (game(3, 0, "+", 30), "largest"),
            (game(3, 100, "+", 30), "largest"),
            (game(3, 9, "", 30), "operators"),
            (game(3, 9, "++", 30), "operators"),
            (game(3, 9, "+^", 30), "operators"),
            (game(3, 9, "+", 0), "largest_target"),
        ] {
            let start = format!("invalid `{field}`");
            for error in [
                wrong.validate(),
                wrong.generate(&mut generator(&[0])).map(drop),
                wrong.problems(1, 0).map(drop),
            ] {
                assert!(
                    error.unwrap_err().to_string().starts_with(&start),
                    "{wrong:?}"
                );
            }
        }
        assert!(serde_json::from_str::<Countdown>(r#"{"number": 3}"#).is_err());
        let config: Countdown = serde_json::from_str(r#"{"numbers": 4}"#).unwrap();
        assert_eq!(config, game(4, 9, "+-", 30));
    }

    #[test]
    fn settings_with_too_few_problems_are_errors() {
        // 1+1 is the only sum, and 2 is larger than the largest target.
        let error = game(2, 1, "+", 1)
            .generate(&mut generator(&[0]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no target was found in 10000"), "{error}");
        assert_eq!(game(2, 2, "+", 30).problems(4, 0).unwrap().len(), 4);
        let error = game(2, 2, "+", 30).problems(5, 0).unwrap_err().to_string();
        assert!(error.starts_with("invalid `count`: 5"), "{error}");
        assert!(
            error.contains("only 4 distinct problems were found"),
            "{error}"
        );
    }

    #[test]
    fn the_problems_of_seed_0_are_stable_across_releases() {
        let written = |game: Countdown| -> Vec<String> {
            let problems = game.problems(3, 0).unwrap();
            problems
                .iter()
                .map(|problem| {
                    format!(
                        "{}{} {}",
                        problem.prompt,
                        problem.answer,
                        game.worked(problem).unwrap()
                    )
                })
                .collect()
        };
        assert_eq!(
            written(Countdown::default()),
            [
                "1 5 8=4:8+1-5 8+1+5=14,5+1+8=14,5-1+8=12,8+1-5=4",
                "1 3 5=3:1-3+5 3-5+1=-1,1+3+5=9,1-3+5=3",
                "2 2 3=7:3+2+2 2-2-3=-3,2-3+2=1,2-3-2=-3,3+2+2=7"
            ]
        );
        assert_eq!(
            written(game(4, 20, "+-*/", 100)),
            [
                "3 18 1 1=16:1+18-3/1 1+1*18+3=22,1+18-3/1=16",
                "9 15 7 15=14:15+15-7-9 15-15+7/9=7/9,7/9-15+15=7/9,15+15-7-9=14",
                "20 3 6 4=2:4-20+6*3 3/20-4*6=-477/20,6*20*3*4=1440,4-20+6*3=2"
            ]
        );
    }

    #[test]
    fn worked_rejects_prompts_and_answers_of_other_settings() {
        let worked =
            |prompt: &str, answer: &str| Countdown::default().worked(&Problem::new(prompt, answer));
        assert!(worked("3 5 7=15:", "7+5+3").is_ok());
        for prompt in [
            "3 5 7=15",
            "3 5=8:",
            "3 5 07=15:",
            "+3 5 7=15:",
            "3 5 10=18:",
            "0 5 7=12:",
            "3  5 7=15:",
            "",
            "=:",
        ] {
            let error = worked(prompt, "3+5+7").unwrap_err().to_string();
            assert!(error.starts_with("invalid `prompt`"), "{error}");
        }
        for answer in ["3+5-7", "15", "3+5+7+0", "7+7+1", "3+5+", ""] {
            let error = worked("3 5 7=15:", answer).unwrap_err().to_string();
            assert!(error.starts_with("invalid `answer`"), "{error}");
        }
        // There is no wrong expression of 1 and 1.
        let worked = game(2, 1, "+", 2)
            .worked(&Problem::new("1 1=2:", "1+1"))
            .unwrap();
        assert_eq!(worked, "1+1=2");
    }

    proptest! {
        #[test]
        fn answers_solve_their_problems(
            numbers in 2usize..7, largest in 2u32..99, operators in "\\+?-\\*?/?", seed: u64,
        ) {
            let game = game(numbers, largest, &operators, 1000);
            let Ok(problem) = game.generate(&mut generator(&[seed])) else { return Ok(()) };
            let target = problem.metadata["target"].as_u64().unwrap();
            let drawn: Vec<u64> = serde_json::from_value(problem.metadata["numbers"].clone()).unwrap();
            prop_assert_eq!(&problem.prompt, &prompt(&drawn, target));
            prop_assert!((1..=1000).contains(&target) && solves(&problem.answer, &drawn, target));

            let worked = game.worked(&problem).unwrap();
            prop_assert_eq!(&worked, &game.worked(&problem).unwrap());
            let lines: Vec<&str> = worked.split(',').collect();
            let (right, wrong) = lines.split_last().unwrap();
            prop_assert_eq!(*right, format!("{}={target}", problem.answer));
            prop_assert!(wrong.len() <= 3);
            for line in wrong {
                let (expression, value) = line.split_once('=').unwrap();
                let evaluated = evaluate_expression(expression).unwrap();
                prop_assert_eq!(evaluated.value.to_string(), value);
                prop_assert!(!solves(expression, &drawn, target) && evaluated.numbers.len() == numbers);
            }
            let all = problem.prompt + &problem.answer + &worked;
            prop_assert!(all.chars().all(|c| game.alphabet().contains(c)));
        }

        #[test]
        fn a_longer_list_starts_with_the_shorter(short in 0usize..30, more in 0usize..30, seed: u64) {
            let game = Countdown::default();
            let (short, long) = (game.problems(short, seed).unwrap(), game.problems(short + more, seed).unwrap());
            prop_assert_eq!(&long[..short.len()], &short[..]);
            let prompts: HashSet<&str> = long.iter().map(|problem| problem.prompt.as_str()).collect();
            prop_assert_eq!(prompts.len(), long.len());
        }
    }
}
