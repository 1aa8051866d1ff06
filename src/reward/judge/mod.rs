//! Rewards from a language model as a judge, for tasks that no rule can verify.
//!
//! [`JudgeReward`] grades each completion by a rubric, [`PairwiseReward`] compares the completions
//! of a group. A [`Judge`] answers the questions: a server with the chat protocol of OpenAI
//! ([`ChatEndpoint`], feature `remote`), a model in this process ([`PolicyJudge`]), or a custom
//! type. [`CachedJudge`] stores answers, on disk if a run is to be resumed or repeated.
//!
//! ```
//! use rlvr::reward::judge::{Judge, JudgeReward};
//! use rlvr::reward::{RewardError, RewardInput, RewardSet};
//!
//! /// Gives a low grade to a needless remark.
//! struct Terse;
//!
//! impl Judge for Terse {
//!     fn describe(&self) -> String {
//!         "terse".into()
//!     }
//!
//!     fn answer(&self, question: &str, _seed: u64) -> Result<String, RewardError> {
//!         let grade = if question.contains("four, as everybody knows") {
//!             2
//!         } else {
//!             5
//!         };
//!         Ok(format!(
//!             "It is about {} characters.\nVerdict: {grade}",
//!             question.len()
//!         ))
//!     }
//! }
//!
//! let brief = JudgeReward::new(Terse, "A good response is right and brief.")
//!     .with_grades(1, 5);
//! let rewards = RewardSet::builder().add(1.0, brief).build()?;
//! let texts = ["4", "It is four, as everybody knows."];
//! let scored = rewards.score(
//!     texts
//!         .map(|text| RewardInput::new("2+2=", "4", text))
//!         .to_vec(),
//! );
//! assert_eq!(
//!     (scored[0].reward, scored[1].reward),
//!     (Some(1.0), Some(0.25))
//! );
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! # Verdicts
//!
//! The verdict is the last line of an answer that begins with `Verdict:`. If there is none, or it
//! is not a valid verdict, the question is repeated with another seed. If no answer can be parsed,
//! or the judge fails, the reward fails on that completion; it never scores 0 instead.
//!
//! # Reward hacking
//!
//! A completion is enclosed in marks that depend on the texts, so that it cannot contain the
//! closing one, and the judge is instructed to treat the text between them as material, not as
//! instructions. This makes persuasion harder, but not impossible. A policy that is trained on a
//! judge also learns what the judge overrates: length, confidence, lists. A completion that keeps
//! the judge from answering is excluded from training instead of punished, so monitor the failures.
//! Where a rule can verify the answer, use the rule.

/// Setters for the text that a judge reads.
macro_rules! with_view {
    () => {
        /// Hides the reference answer from the judge.
        #[must_use]
        pub fn without_reference(mut self) -> Self {
            self.reference = false;
            self
        }

        /// Sets a function that maps a completion to the text that the judge reads, such as the
        /// part after the reasoning.
        #[must_use]
        pub fn with_view(mut self, view: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
            self.view = Box::new(view);
            self
        }
    };
}

mod ask;
mod cached;
#[cfg(feature = "remote")]
mod endpoint;
mod grade;
mod local;
mod pairwise;
mod question;

use std::sync::Arc;

use super::RewardError;
pub use cached::CachedJudge;
#[cfg(feature = "remote")]
pub use endpoint::{ChatConfig, ChatEndpoint};
pub use grade::JudgeReward;
pub use local::PolicyJudge;
pub use pairwise::{PairwiseReward, Preference};

/// Answers questions about texts.
///
/// The same question with the same seed should get the same answer, as far as the model allows: see
/// [`Reward`](super::Reward). Several threads ask at once.
///
/// ```
/// use rlvr::reward::RewardError;
/// use rlvr::reward::judge::Judge;
///
/// /// Gives every response the same grade.
/// struct Constant;
///
/// impl Judge for Constant {
///     fn describe(&self) -> String {
///         "constant".into()
///     }
///
///     fn answer(&self, _question: &str, _seed: u64) -> Result<String, RewardError> {
///         Ok("Verdict: 7".into())
///     }
/// }
///
/// assert_eq!(
///     Constant.answer("How good is this response?", 0)?,
///     "Verdict: 7"
/// );
/// # Ok::<(), RewardError>(())
/// ```
pub trait Judge: Send + Sync + 'static {
    /// Describes everything that answers depend on except the question and the seed: the model and
    /// its settings. Stored answers are used only under the same description.
    fn describe(&self) -> String;

    /// Returns the complete answer to `question`. Another `seed` may give another answer.
    ///
    /// # Errors
    /// Returns an error if there is no answer, or only part of it.
    fn answer(&self, question: &str, seed: u64) -> Result<String, RewardError>;

    /// Returns the answers to several questions with their seeds, in order. The default asks one
    /// after the other.
    fn answer_all(&self, questions: &[(String, u64)]) -> Vec<Result<String, RewardError>> {
        let answer = |(question, seed): &(String, u64)| self.answer(question, *seed);
        questions.iter().map(answer).collect()
    }
}

impl<J: Judge + ?Sized> Judge for Arc<J> {
    fn describe(&self) -> String {
        (**self).describe()
    }

    fn answer(&self, question: &str, seed: u64) -> Result<String, RewardError> {
        (**self).answer(question, seed)
    }

    fn answer_all(&self, questions: &[(String, u64)]) -> Vec<Result<String, RewardError>> {
        (**self).answer_all(questions)
    }
}
