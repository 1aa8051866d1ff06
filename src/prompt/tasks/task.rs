//! The enum of all tasks.

use std::collections::HashSet;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::*;
use crate::prompt::{Countdown, Problem};
use crate::random::generator;
use crate::{Error, Result};

/// The word of the tasks in a generator's address.
const TASKS: u64 = u64::from_be_bytes(*b"pr.tasks");
/// The maximum number of draws for a problem.
const DRAWS: usize = 10_000;

/// The generator of a task, for [`Task`].
pub(super) trait Generator {
    /// Rejects settings outside their ranges.
    fn validate(&self) -> Result<()>;

    /// Draws a problem, or returns `None` if the draw is not a valid problem. The settings must be
    /// valid.
    fn draw(&self, rng: &mut impl Rng) -> Option<Problem>;
}

macro_rules! tasks {
    ($($name:literal $task:ident,)*) => {
        /// One of the [tasks](crate::prompt::tasks), with its difficulty.
        ///
        /// In JSON it is the name and the settings of the task,
        /// `{"task": "gcd", "numbers": {"start": 2, "end": 3}}`. Missing settings have their
        /// defaults.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "task")]
        #[non_exhaustive]
        pub enum Task {
            $(
                #[doc = concat!("`", $name, "`.")]
                #[serde(rename = $name)]
                $task($task),
            )*
        }

        $(
            impl From<$task> for Task {
                fn from(task: $task) -> Self {
                    Self::$task(task)
                }
            }
        )*

        impl Task {
            /// The names of all tasks.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// Returns the task of this name with the default difficulty.
            ///
            /// # Errors
            /// Returns [`Error::Config`] with the valid names if there is no such task.
            pub fn named(name: &str) -> Result<Self> {
                match name {
                    $($name => Ok($task::default().into()),)*
                    _ => {
                        let expected = format!("one of {}", Self::NAMES.join(", "));
                        Err(Error::config("task", format!("{name:?}"), expected))
                    }
                }
            }

            /// Returns the name of the task.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$task(_) => $name,)*
                }
            }

            /// Rejects settings outside their ranges.
            ///
            /// # Errors
            /// Returns [`Error::Config`] with the name of the first invalid field.
            pub fn validate(&self) -> Result<()> {
                match self {
                    $(Self::$task(task) => Generator::validate(task),)*
                }
            }

            /// Draws a problem, as [`Generator::draw`].
            fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
                let problem = match self {
                    $(Self::$task(task) => Generator::draw(task, rng),)*
                };
                problem.map(|problem| problem.with_metadata("task", self.name()))
            }
        }
    };
}

tasks! {
    "chain_sum" ChainSum,
    "basic_arithmetic" BasicArithmetic,
    "simple_equations" SimpleEquations,
    "countdown" Countdown,
    "base_conversion" BaseConversion,
    "prime_factorization" PrimeFactorization,
    "fraction_simplification" FractionSimplification,
    "gcd" Gcd,
    "lcm" Lcm,
    "number_sorting" NumberSorting,
    "word_sorting" WordSorting,
    "letter_counting" LetterCounting,
    "spell_backward" SpellBackward,
    "mini_sudoku" MiniSudoku,
    "shortest_path" ShortestPath,
    "propositional_logic" PropositionalLogic,
    "knights_knaves" KnightsKnaves,
}

impl Task {
    /// Generates one problem.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the settings are invalid, or if none of 10 000 draws is a valid
    /// problem.
    pub fn generate(&self, rng: &mut impl Rng) -> Result<Problem> {
        self.validate()?;
        let found = (0..DRAWS).find_map(|_| self.draw(rng));
        found.ok_or_else(|| {
            let value = format!("{self:?}");
            let expected = format!("settings with a valid problem in {DRAWS} draws");
            Error::config("task", value, expected)
        })
    }

    /// Generates `count` problems with distinct prompts, as a pure function of the settings and
    /// `seed`.
    ///
    /// Problem `i` is drawn from its own generator until its prompt is new, so a longer list starts
    /// with the shorter one.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the settings are invalid, or if none of 10 000 draws has a new
    /// prompt because the settings allow too few.
    pub fn problems(&self, count: usize, seed: u64) -> Result<Vec<Problem>> {
        self.validate()?;
        let mut address = vec![seed, TASKS];
        address.extend(self.name().as_bytes().chunks(8).map(word));
        let mut seen = HashSet::new();
        let mut problems: Vec<Problem> = Vec::new();
        for i in 0..count as u64 {
            let mut rng = generator(&[&address[..], &[i]].concat());
            let mut fresh = || {
                self.draw(&mut rng)
                    .filter(|problem| seen.insert(problem.prompt.clone()))
            };
            let problem = (0..DRAWS).find_map(|_| fresh()).ok_or_else(|| {
                let expected = format!(
                    "settings that allow more problems: only {} distinct ones were found in {DRAWS} draws of {self:?}",
                    problems.len()
                );
                Error::config("count", count, expected)
            })?;
            problems.push(problem);
        }
        Ok(problems)
    }
}

/// Packs up to eight bytes of a name into a word of an address.
fn word(bytes: &[u8]) -> u64 {
    let shift = |word: u64, byte: &u8| word << 8 | u64::from(*byte);
    bytes.iter().fold(0, shift)
}

/// [`Countdown`] with a prompt in English.
impl Generator for Countdown {
    fn validate(&self) -> Result<()> {
        Countdown::validate(self)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let mut problem = Countdown::draw(self, rng)?;
        let (numbers, target) = problem.prompt.strip_suffix(':')?.split_once('=')?;
        problem.prompt = format!(
            "Write an expression worth {target} that uses each of these numbers once: {}. It may have {} and parentheses. \
             Answer with the expression only.",
            numbers.replace(' ', ", "),
            self.operators
                .chars()
                .map(String::from)
                .collect::<Vec<_>>()
                .join(" "),
        );
        Some(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_a_name_a_json_form_and_problems() {
        for name in Task::NAMES {
            let task = Task::named(name).unwrap();
            assert_eq!(task.name(), *name);
            let text = serde_json::to_string(&task).unwrap();
            assert!(
                text.starts_with(&format!("{{\"task\":\"{name}\"")),
                "{text}"
            );
            assert_eq!(serde_json::from_str::<Task>(&text).unwrap(), task);
            let bare = format!("{{\"task\": \"{name}\"}}");
            assert_eq!(serde_json::from_str::<Task>(&bare).unwrap(), task);
            let unknown = format!("{{\"task\": \"{name}\", \"x\": 1}}");
            assert!(serde_json::from_str::<Task>(&unknown).is_err(), "{name}");

            let problems = task.problems(60, 1).unwrap();
            assert_eq!(problems[..20], task.problems(20, 1).unwrap());
            assert_ne!(problems[..20], task.problems(20, 2).unwrap());
            for problem in &problems {
                assert_eq!(problem.metadata["task"], *name);
                assert!(!problem.prompt.is_empty() && !problem.answer.is_empty());
            }
            let once = task.generate(&mut generator(&[4])).unwrap();
            assert_eq!(once, task.generate(&mut generator(&[4])).unwrap());
        }
        let error = Task::named("chess").unwrap_err().to_string();
        assert!(
            error.starts_with("invalid `task`: \"chess\"; expected one of chain_sum,"),
            "{error}"
        );
    }

    #[test]
    fn the_problems_of_seed_0_are_stable_across_releases() {
        let checksum = |name: &&str| {
            let problems = Task::named(name).unwrap().problems(5, 0).unwrap();
            let text: String = problems.into_iter().map(|p| p.prompt + &p.answer).collect();
            crc32fast::hash(text.as_bytes())
        };
        let checksums: Vec<u32> = Task::NAMES.iter().map(checksum).collect();
        assert_eq!(checksums, STABLE);
    }

    /// Checksums of prompts and answers in version 0.1.0.
    const STABLE: [u32; 17] = [
        1743113076, 3911856285, 2823239839, 2566494681, 162552220, 2338426315, 4036886463,
        2973110837, 3591496602, 270319289, 2919675170, 1175884493, 1976387773, 2274965092,
        1859443103, 1968951818, 1141568198,
    ];

    #[test]
    fn invalid_settings_are_errors_that_name_the_field() {
        let wrong = |json: &str| {
            let task: Task = serde_json::from_str(json).unwrap();
            let error = task.problems(1, 0).unwrap_err().to_string();
            assert_eq!(
                error,
                task.generate(&mut generator(&[0])).unwrap_err().to_string()
            );
            error
        };
        for (json, field) in [
            (
                r#"{"task": "chain_sum", "terms": {"start": 1, "end": 3}}"#,
                "terms",
            ),
            (
                r#"{"task": "chain_sum", "digits": {"start": 3, "end": 2}}"#,
                "digits",
            ),
            (
                r#"{"task": "basic_arithmetic", "digits": {"start": 1, "end": 5}}"#,
                "digits",
            ),
            (
                r#"{"task": "simple_equations", "value": {"start": 0, "end": 5}}"#,
                "value",
            ),
            (r#"{"task": "countdown", "numbers": 1}"#, "numbers"),
            (
                r#"{"task": "base_conversion", "base": {"start": 2, "end": 37}}"#,
                "base",
            ),
            (
                r#"{"task": "prime_factorization", "value": {"start": 1, "end": 9}}"#,
                "value",
            ),
            (
                r#"{"task": "fraction_simplification", "factor": {"start": 1, "end": 9}}"#,
                "factor",
            ),
            (
                r#"{"task": "gcd", "value": {"start": 0, "end": 9}}"#,
                "value",
            ),
            (
                r#"{"task": "lcm", "numbers": {"start": 2, "end": 7}}"#,
                "numbers",
            ),
            (
                r#"{"task": "number_sorting", "decimals": {"start": 0, "end": 7}}"#,
                "decimals",
            ),
            (
                r#"{"task": "word_sorting", "words": {"start": 1, "end": 7}}"#,
                "words",
            ),
            (
                r#"{"task": "letter_counting", "words": {"start": 0, "end": 7}}"#,
                "words",
            ),
            (
                r#"{"task": "spell_backward", "letters": {"start": 0, "end": 7}}"#,
                "letters",
            ),
            (
                r#"{"task": "mini_sudoku", "empty": {"start": 8, "end": 13}}"#,
                "empty",
            ),
            (r#"{"task": "shortest_path", "blocked": 1.5}"#, "blocked"),
            (
                r#"{"task": "propositional_logic", "variables": {"start": 2, "end": 7}}"#,
                "variables",
            ),
            (
                r#"{"task": "knights_knaves", "people": {"start": 1, "end": 2}}"#,
                "people",
            ),
        ] {
            let error = wrong(json);
            assert!(error.starts_with(&format!("invalid `{field}`")), "{error}");
        }
        assert_eq!(
            wrong(r#"{"task": "chain_sum", "digits": {"start": 3, "end": 2}}"#),
            "invalid `digits`: 3..=2; expected a non-empty range within 1..=15"
        );
    }

    #[test]
    fn settings_with_too_few_problems_are_errors() {
        let one = BaseConversion {
            base: 7..=7,
            ..BaseConversion::default()
        };
        let error = Task::from(one)
            .generate(&mut generator(&[0]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("10000 draws"), "{error}");
        let few = Task::from(PrimeFactorization { value: 2..=4 });
        assert_eq!(few.problems(3, 0).unwrap().len(), 3);
        let error = few.problems(4, 0).unwrap_err().to_string();
        assert!(
            error.starts_with("invalid `count`: 4") && error.contains("only 3 distinct"),
            "{error}"
        );
        // No cell is blocked, so every grid has a path.
        let open = ShortestPath {
            blocked: 0.0,
            infeasible: 1.0,
            rows: 2..=2,
            columns: 2..=2,
        };
        assert!(Task::from(open).problems(1, 0).is_err());
    }

    #[test]
    fn problems_can_be_generated_at_the_limits_of_the_settings() {
        let tasks: [Task; 9] = [
            ChainSum {
                terms: 100..=100,
                digits: 15..=15,
            }
            .into(),
            BasicArithmetic {
                terms: 12..=12,
                digits: 1..=4,
                parentheses: true,
            }
            .into(),
            SimpleEquations {
                terms: 20..=20,
                value: 1_000_000..=1_000_000,
            }
            .into(),
            BaseConversion {
                base: 35..=36,
                value: 999_999_999_999_999..=1_000_000_000_000_000,
            }
            .into(),
            FractionSimplification {
                value: 999_999..=1_000_000,
                factor: 1_000_000..=1_000_000,
            }
            .into(),
            Lcm {
                numbers: 6..=6,
                value: 999..=1000,
            }
            .into(),
            NumberSorting {
                numbers: 1000..=1000,
                decimals: 6..=6,
                value: -1_000_000_000..=1_000_000_000,
            }
            .into(),
            PropositionalLogic {
                variables: 6..=6,
                premises: 10..=10,
                depth: 5..=5,
            }
            .into(),
            KnightsKnaves {
                people: 8..=8,
                depth: 4..=4,
            }
            .into(),
        ];
        for task in tasks {
            task.problems(1, 3).unwrap();
        }
    }
}
