//! Grades for single completions.

use std::fmt;

use super::Judge;
use super::ask::ask;
use super::question;
use crate::reward::setters::with_name;
use crate::reward::{Reward, RewardError, RewardInput};
use crate::{Error, Result};

/// Maps a completion to the text that the judge reads.
pub(super) type View = Box<dyn Fn(&str) -> String + Send + Sync>;

/// Scores a completion with the grade that a judge gives it by a rubric, scaled to 0 to 1.
///
/// ```text
/// reward = mean over the votes of (grade - worst) / (best - worst)
/// ```
///
/// The judge reads the prompt, the completion, and the reference answer unless it is empty. The
/// [module](super) describes the form of the question and what happens to answers without a grade.
/// In a set, give the reward as many workers as the judge answers concurrently, and a time limit
/// for its slowest answer including all attempts
/// ([`RewardOptions::with_concurrency`](crate::reward::RewardOptions::with_concurrency),
/// [`with_time_limit`](crate::reward::RewardOptions::with_time_limit)).
///
/// # Errors
/// [`score`](Reward::score) returns an error if the judge fails, or if one of its votes has no
/// grade.
pub struct JudgeReward<J> {
    name: String,
    judge: J,
    rubric: String,
    grades: (i64, i64),
    votes: u64,
    reference: bool,
    view: View,
    batch: usize,
}

impl<J: Judge> JudgeReward<J> {
    /// Creates the reward `judge`: integer grades from 1 to 10, one vote, one completion per call.
    pub fn new(judge: J, rubric: impl Into<String>) -> Self {
        Self {
            name: "judge".into(),
            judge,
            rubric: rubric.into(),
            grades: (1, 10),
            votes: 1,
            reference: true,
            view: Box::new(str::to_string),
            batch: 1,
        }
    }

    with_name!();

    /// Sets the range of grades. With 0 and 1, the judge answers yes or no.
    #[must_use]
    pub fn with_grades(mut self, worst: i64, best: i64) -> Self {
        self.grades = (worst, best);
        self
    }

    /// Sets the number of grades to average, each requested with its own seed, 1 to 65536. More
    /// than one is useful if the judge samples. Default: 1.
    #[must_use]
    pub fn with_votes(mut self, votes: u64) -> Self {
        self.votes = votes;
        self
    }

    with_view!();

    /// Sets the number of completions per call, at least 1; they share one time limit. Default: 1.
    #[must_use]
    pub fn with_batch(mut self, completions: usize) -> Self {
        self.batch = completions;
        self
    }

    fn question(&self, input: &RewardInput) -> String {
        let response = (self.view)(input.completion());
        let reference = reference(self.reference, input);
        question::grade(
            &self.rubric,
            input.prompt(),
            reference,
            &response,
            self.grades,
        )
    }
}

/// The reference answer, if the judge may see it and there is one.
pub(super) fn reference(shown: bool, input: &RewardInput) -> Option<&str> {
    Some(input.answer()).filter(|answer| shown && !answer.trim().is_empty())
}

/// Rejects an empty rubric and an invalid number of votes.
pub(super) fn check(rubric: &str, votes: u64) -> Result<()> {
    if rubric.trim().is_empty() {
        return Err(Error::config(
            "rubric",
            "\"\"",
            "what makes a response good",
        ));
    }
    match (1..=1 << 16).contains(&votes) {
        true => Ok(()),
        false => Err(Error::config("votes", votes, "1 to 65536")),
    }
}

impl<J: Judge> Reward for JudgeReward<J> {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let mut scores = self.score_batch(&[input]);
        scores.pop().unwrap_or(Ok(None))
    }

    fn score_batch(&self, inputs: &[&RewardInput]) -> Vec<Result<Option<f64>, RewardError>> {
        let questions = inputs.iter().flat_map(|input| {
            let question = self.question(input);
            (0..self.votes).map(move |vote| (question.clone(), vote))
        });
        let read = |answer: &str| question::read_grade(answer, self.grades);
        let mut grades = ask(&self.judge, questions.collect(), read).into_iter();
        let (worst, best) = self.grades;
        let score = |_| -> Result<Option<f64>, RewardError> {
            // All votes are consumed, so that the next completion starts with its own.
            let votes: Vec<_> = grades.by_ref().take(self.votes as usize).collect();
            let votes: Vec<i64> = votes.into_iter().collect::<Result<_, _>>()?;
            let above = |grade: &i64| (*grade as f64 - worst as f64) / (best as f64 - worst as f64);
            let sum: f64 = votes.iter().map(above).sum();
            Ok(Some(sum / votes.len() as f64))
        };
        inputs.iter().map(score).collect()
    }

    fn batch_size(&self) -> usize {
        self.batch
    }

    fn validate(&self) -> Result<()> {
        check(&self.rubric, self.votes)?;
        let (worst, best) = self.grades;
        if worst >= best {
            let expected = format!("a best grade above the worst, {worst}");
            return Err(Error::config("grades", best, expected));
        }
        match self.batch {
            0 => Err(Error::config("batch", 0, "1 or more")),
            _ => Ok(()),
        }
    }
}

impl<J: Judge> fmt::Debug for JudgeReward<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JudgeReward")
            .field("name", &self.name)
            .field("judge", &self.judge.describe())
            .field("grades", &self.grades)
            .field("votes", &self.votes)
            .finish_non_exhaustive()
    }
}
