//! Rewards by a language model as a judge, for what no rule can verify: grades by a rubric, and comparisons with each other.
//!
//! [`JudgeReward`] has each completion graded, [`PairwiseReward`] has those of a group compared. Who answers is a [`Judge`]: a server that
//! speaks OpenAI's chat protocol ([`ChatEndpoint`], feature `remote`), a model in this process ([`PolicyJudge`]), or a type that implements the
//! trait. [`CachedJudge`] remembers answers, on disk if a run is to be resumed or repeated.
//!
//! ```
//! use rlvr::reward::judge::{Judge, JudgeReward};
//! use rlvr::reward::{RewardError, RewardInput, RewardSet};
//!
//! /// Dislikes what goes without saying.
//! struct Terse;
//!
//! impl Judge for Terse {
//!     fn describe(&self) -> String {
//!         "terse".into()
//!     }
//!
//!     fn answer(&self, question: &str, _seed: u64) -> Result<String, RewardError> {
//!         let grade = if question.contains("four, as everybody knows") { 2 } else { 5 };
//!         Ok(format!("It is about {} characters.\nVerdict: {grade}", question.len()))
//!     }
//! }
//!
//! let brief = JudgeReward::new(Terse, "A good response is right and brief.").with_grades(1, 5);
//! let rewards = RewardSet::builder().add(1.0, brief).build()?;
//! let texts = ["4", "It is four, as everybody knows."];
//! let scored = rewards.score(texts.map(|text| RewardInput::new("2+2=", "4", text)).to_vec());
//! assert_eq!((scored[0].reward, scored[1].reward), (Some(1.0), Some(0.25)));
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! # What a verdict is
//!
//! The last line of an answer that begins with `Verdict:`. If there is none, or it names no grade, the question is asked again with
//! another seed. If no answer can be read, or the judge fails, the reward fails on that completion: it is never a score of zero.
//!
//! # What a policy can do to a judge
//!
//! A completion is put between marks that depend on the texts, so that it cannot write the closing one, and the judge is told that
//! what stands between them is no instruction. That makes persuasion harder and not impossible; and a policy that is trained on a judge learns
//! what the judge overrates: length, confidence, lists. A completion that keeps the judge from answering is excluded from
//! training rather than punished: watch the failures. Where a rule can verify, use the rule.

/// Setters of what a judge reads.
macro_rules! with_view {
    () => {
        /// The same reward of a judge that does not see the reference answer.
        #[must_use]
        pub fn without_reference(mut self) -> Self {
            self.reference = false;
            self
        }

        /// The same reward of what `view` makes of a completion, such as what comes after the reasoning.
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
/// The same question with the same seed has the same answer, as far as that can be had of a model: see [`Reward`](super::Reward). Others
/// are asked in between, from several threads.
pub trait Judge: Send + Sync + 'static {
    /// Everything but the question and the seed that answers depend on: the model and how it is asked. Answers that were stored under
    /// another description are not used.
    fn describe(&self) -> String;

    /// The whole answer to `question`. Another `seed` may give another one.
    ///
    /// # Errors
    /// If there is no answer, or not all of it.
    fn answer(&self, question: &str, seed: u64) -> Result<String, RewardError>;

    /// The answers to several questions with their seeds, in order. Provided: one after the other.
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
