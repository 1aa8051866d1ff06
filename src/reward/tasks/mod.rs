//! The reward for answers to reasoning tasks, with partial credit.

mod lists;
mod logic;
mod metadata;
mod numbers;
mod puzzles;
mod text;

pub(super) use text::is_python_space;

use super::setters::{with_extract, with_name};
use super::{Extractor, Reward, RewardError, RewardInput, Rule};
use crate::types::Problem;
use crate::{Error, Result};

/// Scores an answer from 0 to 1. Returns an error if the problem lacks what it needs.
type Scorer = fn(&Problem, &str) -> Result<f64, RewardError>;

/// The tasks by name.
const SCORERS: [(&str, Scorer); 20] = [
    ("chain_sum", numbers::decimal),
    ("basic_arithmetic", numbers::contained),
    ("simple_equations", numbers::contained),
    ("countdown", numbers::countdown),
    ("base_conversion", numbers::contained),
    ("prime_factorization", numbers::prime_factorization),
    ("fraction_simplification", numbers::fraction_simplification),
    ("gcd", numbers::contained),
    ("lcm", numbers::contained),
    ("number_sorting", lists::number_sorting),
    ("word_sorting", lists::word_sorting),
    ("letter_counting", numbers::contained),
    ("spell_backward", lists::spell_backward),
    ("mini_sudoku", puzzles::mini_sudoku),
    ("shortest_path", puzzles::shortest_path),
    ("propositional_logic", logic::propositional_logic),
    ("knights_knaves", puzzles::knights_knaves),
    // These have no generator in this crate.
    ("decimal_arithmetic", numbers::decimal_arithmetic),
    ("gsm_symbolic", numbers::gsm_symbolic),
    ("polynomial_equations", numbers::polynomial_equations),
];

/// Scores the answer to a [task](crate::prompt::tasks) from 0 to 1, with partial credit.
///
/// The task is `metadata["task"]`, so that one reward serves a mixture of tasks; [`of`](Self::of)
/// scores problems of a single task that do not name it. Problems of
/// [reasoning_gym](https://github.com/open-thought/reasoning-gym) are scored as well: the rules are
/// those of version 0.1.25, except for the differences below. The last three tasks in the table
/// have no generator in this crate.
///
/// | task | score |
/// |---|---|
/// | `basic_arithmetic`, `simple_equations`, `base_conversion`, `gcd`, `lcm`, `letter_counting` | 1 for the reference; an answer that contains it scores its share of the characters |
/// | `chain_sum` | the same, and 1 for the same number in another form (`+01,000.00`) |
/// | `countdown` | 1 for a solution, 0.05 for another expression, 0.01 for anything else |
/// | `prime_factorization` | 1 for the primes in any order, 0.5 for other factors of the number, 0.01 for other numbers |
/// | `fraction_simplification` | 1 for the fraction, 0.1 if one part is that of the question, 0.05 for another fraction, else 0.01 |
/// | `number_sorting` | 1 for the list, else 0 |
/// | `word_sorting` | the share of words in their place; at least 0.2 for the right words in another order |
/// | `spell_backward` | the share of letters in their place; 0.8 if more text follows the word |
/// | `mini_sudoku` | the share of right cells; times 0.9 in another form, and less for a longer text |
/// | `shortest_path` | 1 for a shortest path, 0.5 for a longer one |
/// | `propositional_logic` | 1 for a formula that follows, 0.25 if it follows but is not new, 0.05 if it does not follow |
/// | `knights_knaves` | 1 if all roles are right; if only some are, 0.3 + 0.7 of their share; else 0 |
/// | `decimal_arithmetic` | 1 if the answer is off by at most one unit of the last decimal place of the question, else 0 |
/// | `gsm_symbolic` | 1 if the first number in the answer is right, 0.01 if it is not |
/// | `polynomial_equations` | mean of `exp(-10 d)` over the distances `d` of the solutions from the nearest, minus 0.5 for each missing or extra solution |
///
/// Differences from the package:
///
/// - A completion without an answer scores 0, and so does an answer for which the package raises an
///   exception.
/// - `countdown` reads `+ - * /` (also `×`, `÷`, `−`), parentheses and unary minus, and computes
///   exactly. It accepts no powers, functions, decimals or unary plus, and no value that is only
///   close to the target.
/// - `number_sorting` compares exactly; the package allows every number to be off by 1, and NaN for
///   any number.
/// - `word_sorting` divides by the number of words of the answer if that is larger; in the package,
///   appended words cost nothing.
/// - `spell_backward` gives 0.8 to any answer that continues the word; in the package, rounding
///   decides between 0.8 and about 1.
/// - `gsm_symbolic` reads the sign of the number.
/// - In `propositional_logic` a premise, or a formula equivalent to one, is not new. Formulas
///   longer than 1000 characters, or with more than 12 variables including those of the premises,
///   score 0.
///
/// Partial credit is possible without solving the problem: a policy may learn to print many
/// numbers. [`exact`](Self::exact) scores only 1 or 0.
///
/// ```
/// use rlvr::reward::{Reward, RewardInput, TaskReward};
///
/// let reward = TaskReward::new();
/// let score = |completion| {
///     let input = RewardInput::new("", "2 × 2 × 3", completion)
///         .with_metadata("task", "prime_factorization");
///     reward.score(&input).unwrap().unwrap()
/// };
/// assert_eq!(score("<answer>3 × 2 × 2</answer>"), 1.0);
/// assert_eq!(score("<answer>2 × 6</answer>"), 0.5);
/// assert_eq!(score("2 × 2 × 3"), 0.0);
/// ```
///
/// The name of the reward is `accuracy`, so that the metric has the same name for every task.
///
/// # Errors
/// [`score`](Reward::score) returns an error if the task is missing or unknown, or if the reference
/// or metadata that it needs are missing or of the wrong type.
#[derive(Clone, Debug)]
pub struct TaskReward {
    name: String,
    extractor: Extractor,
    /// The index among the scorers; `None` reads the metadata.
    task: Option<usize>,
    exact: bool,
}

impl Default for TaskReward {
    fn default() -> Self {
        Self {
            name: "accuracy".into(),
            extractor: Rule::AnswerTag.into(),
            task: None,
            exact: false,
        }
    }
}

impl TaskReward {
    /// Creates the reward `accuracy` for the task that each problem names, with [`Rule::AnswerTag`]
    /// and the default [`Tags`](super::Tags).
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the reward for problems of a single task.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if there is no such task; the message lists the tasks.
    pub fn of(task: &str) -> Result<Self> {
        let position = SCORERS.iter().position(|(name, _)| *name == task);
        let Some(position) = position else {
            let expected = format!("one of {}", names());
            return Err(Error::config("task", format!("{task:?}"), expected));
        };
        Ok(Self {
            task: Some(position),
            ..Self::default()
        })
    }

    /// Disables partial credit: an answer scores 1 if it is fully right, else 0.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    with_name!();
    with_extract!();

    /// Returns the score of an answer that has already been extracted from the completion.
    ///
    /// # Errors
    /// Returns an error under the same conditions as scoring a completion.
    pub fn score_answer(&self, problem: &Problem, answer: &str) -> Result<f64, RewardError> {
        let score = self.scorer(problem)?(problem, answer)?;
        Ok(match self.exact && score < 1.0 {
            true => 0.0,
            false => score,
        })
    }

    fn scorer(&self, problem: &Problem) -> Result<Scorer, RewardError> {
        if let Some((_, scorer)) = self.task.and_then(|task| SCORERS.get(task)) {
            return Ok(*scorer);
        }
        let task = metadata::text(problem, "task")?;
        let found = SCORERS.iter().find(|(name, _)| *name == task);
        found.map(|(_, scorer)| *scorer).ok_or_else(|| {
            format!("metadata `task` is {task:?}; expected one of {}", names()).into()
        })
    }
}

impl Reward for TaskReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        // The problem is read even without an answer: invalid metadata is an error regardless of
        // the completion.
        let answer = self.extractor.extract(input.completion());
        let score = self.score_answer(&input.problem, answer.as_ref().map_or("", |a| a.all()))?;
        Ok(Some(match answer {
            Some(_) => score,
            None => 0.0,
        }))
    }
}

fn names() -> String {
    SCORERS.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::tasks::Task;
    use proptest::prelude::*;

    #[test]
    fn reference_answers_score_1_and_empty_answers_almost_0() {
        assert_eq!(SCORERS.map(|(name, _)| name)[..17], *Task::NAMES);
        let reward = TaskReward::new();
        for name in Task::NAMES {
            for problem in Task::named(name).unwrap().problems(100, 5).unwrap() {
                let completion = format!("<think>.</think><answer>{}</answer>", problem.answer);
                let mut input = RewardInput::new("", "", completion);
                input.problem = problem.into();
                assert_eq!(reward.score(&input).unwrap(), Some(1.0), "{input:?}");
                assert_eq!(reward.clone().exact().score(&input).unwrap(), Some(1.0));
                let alone = TaskReward::of(name).unwrap();
                assert_eq!(alone.score(&input).unwrap(), Some(1.0));
                let blank = reward.score_answer(&input.problem, "").unwrap();
                assert!(blank < 0.02, "{name}: {blank}");
            }
        }
    }

    #[test]
    fn answers_to_other_problems_are_rarely_right() {
        for name in Task::NAMES {
            let problems = Task::named(name).unwrap().problems(60, 6).unwrap();
            let right = |(a, b): (&Problem, &Problem)| {
                let exact = TaskReward::new().exact();
                exact.score_answer(a, &b.answer).unwrap() == 1.0
            };
            let both = problems.iter().zip(&problems[1..]).filter(|p| right(*p));
            // Small numbers, common conclusions and the roles of two people can coincide.
            let count = both.count();
            assert!(count < 25, "{name}: {count} of 59");
        }
    }

    #[test]
    fn the_task_is_named_by_the_problem_or_the_reward() {
        let problem = Problem::new("", "12");
        let error = |reward: &TaskReward, problem: &Problem| {
            reward.score_answer(problem, "12").unwrap_err().to_string()
        };
        let reward = TaskReward::new();
        assert!(error(&reward, &problem).starts_with("metadata `task` is missing"));
        let chess = problem.clone().with_metadata("task", "chess");
        let message = error(&reward, &chess);
        assert!(
            message.starts_with("metadata `task` is \"chess\"; expected one of chain_sum,"),
            "{message}"
        );
        assert_eq!(
            TaskReward::of("gcd")
                .unwrap()
                .score_answer(&chess, "12")
                .unwrap(),
            1.0
        );
        let message = TaskReward::of("chess").unwrap_err().to_string();
        assert!(
            message.starts_with("invalid `task`: \"chess\"; expected one of"),
            "{message}"
        );
        assert_eq!(TaskReward::new().with_name("gcd").name(), "gcd");
        let wrong = TaskReward::of("gcd").unwrap();
        assert_eq!(wrong.score_answer(&problem, "12 or 13").unwrap(), 0.25);
        assert_eq!(
            wrong.exact().score_answer(&problem, "12 or 13").unwrap(),
            0.0
        );
    }

    #[test]
    fn missing_and_invalid_metadata_are_errors() {
        for (name, key) in [
            ("countdown", "numbers"),
            ("countdown", "target"),
            ("fraction_simplification", "simplified_numerator"),
            ("word_sorting", "sorted_words"),
            ("mini_sudoku", "solution"),
            ("shortest_path", "matrix"),
            ("propositional_logic", "premises"),
            ("propositional_logic", "variables"),
        ] {
            let mut problem = Task::named(name).unwrap().problems(1, 0).unwrap().remove(0);
            let score = |problem: &Problem| {
                let input = RewardInput {
                    problem: problem.clone().into(),
                    ..RewardInput::new("", "", "")
                };
                TaskReward::new().score(&input).unwrap_err().to_string()
            };
            problem.metadata.insert(key.into(), 1.5.into());
            let message = score(&problem);
            assert!(
                message.starts_with(&format!("metadata `{key}` is 1.5; expected")),
                "{message}"
            );
            problem.metadata.remove(key);
            let message = score(&problem);
            assert!(
                message.starts_with(&format!("metadata `{key}` is missing; expected")),
                "{message}"
            );
        }
        for name in Task::NAMES.iter().filter(|name| {
            ![
                "countdown",
                "fraction_simplification",
                "propositional_logic",
                "word_sorting",
            ]
            .contains(*name)
        }) {
            let mut problem = Task::named(name).unwrap().problems(1, 0).unwrap().remove(0);
            problem.answer.clear();
            let error = TaskReward::new()
                .score_answer(&problem, "1")
                .unwrap_err()
                .to_string();
            assert!(error.contains("`answer`"), "{name}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_scored_between_0_and_1(
            wild in any::<String>(),
            close in "[0-9PQ¬∧→↔() ,×/\\[\\]'\\\\a-z{}$#*-]{0,60}",
        ) {
            for name in Task::NAMES {
                let problem = Task::named(name).unwrap().problems(1, 0).unwrap().remove(0);
                for answer in [&wild, &close] {
                    let score = TaskReward::new().score_answer(&problem, answer).unwrap();
                    prop_assert!((0.0..=1.0).contains(&score), "{name}: {answer}: {score}");
                }
            }
        }
    }
}
