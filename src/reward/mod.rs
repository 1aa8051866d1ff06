//! Rewards that score completions, and sets that run them in parallel and record the results.
//!
//! A [`Reward`] scores one completion ([`RewardInput`]), abstains or fails. A [`GroupReward`]
//! scores all completions of a problem at once and may read the scores of other rewards. A
//! [`TokenReward`] scores every token. A [`RewardSet`] runs rewards over a batch, in parallel and
//! under time limits, and writes their records and the weighted total into the
//! [`Rollout`](crate::rollout::Rollout)s. A reward that fails, panics or hangs affects only its own
//! rollout.
//!
//! **Correctness**
//!
//! | reward | 1 if | needs |
//! |---|---|---|
//! | [`AccuracyReward`] | the answer equals the reference, as a number or as text | the reference |
//! | [`MathReward`] | the answer is mathematically equal to the reference | the reference |
//! | [`CountdownReward`] | the expression uses each number once and equals the target | `numbers`, `target` |
//! | [`TaskReward`] | the answer to a [reasoning task](crate::prompt::tasks) is right, with partial credit | depends on the task |
//! | [`ModelReward`] | (any number, from a reward model) | a [`ValueModel`](crate::policy::ValueModel) |
//! | [`JudgeReward`](judge::JudgeReward) | (0 to 1, graded by a language model) | a [`Judge`](judge::Judge) |
//! | [`PairwiseReward`](judge::PairwiseReward) | (0 to 1, compared with the group by a language model) | a [`Judge`](judge::Judge) |
//! | [`CodeReward`](code::CodeReward) | the program passes its tests, or the share that it passes (feature `code`) | the tests |
//! | [`FnReward`] | (any number, from a closure) | - |
//!
//! **Format and style**
//!
//! | reward | | from |
//! |---|---|---|
//! | [`FormatReward`] | 1 for thinking, then an answer, and nothing else | DeepSeek-R1, strict |
//! | [`LineFormatReward`] | 1 for thinking and answer with their tags on lines of their own | open-r1 |
//! | [`ThinkFormatReward`] | 1 for thinking at the start | TRL |
//! | [`CodeFormatReward`] | 1 for an answer with a code block | open-r1 |
//! | [`TagCountReward`] | 1/4 for each tag | open-r1 |
//! | [`ReasoningStepsReward`] | 1/3 for each step marker, up to 1 | open-r1 |
//! | [`LanguageReward`] | share of the words in the language | DeepSeek-R1 |
//! | [`RepetitionReward`] | down to -1 for repeated n-grams | Yeo et al., open-r1, TRL |
//!
//! **Length**
//!
//! | reward | | from |
//! |---|---|---|
//! | [`SoftOverlongReward`] | falls from 0 to -1 before the limit | DAPO, verl |
//! | [`CosineLengthReward`] | short right answers score highest, short wrong answers lowest | Yeo et al., TRL, open-r1 |
//! | [`KimiLengthReward`] | higher for answers shorter than the others of the group | Kimi k1.5 |
//!
//! ```
//! use rlvr::reward::{AccuracyReward, FormatReward, RewardInput, RewardSet};
//!
//! let rewards = RewardSet::builder()
//!     .add(1.0, AccuracyReward::new())
//!     .add(0.2, FormatReward::new())
//!     .build()?;
//!
//! let scored = rewards.score(vec![
//!     RewardInput::new("37+48=", "85", "<think>7+8=15</think><answer>85</answer>"),
//!     RewardInput::new("37+48=", "85", "I think it is <answer>85</answer>"),
//!     RewardInput::new("37+48=", "85", "85"),
//! ]);
//!
//! let totals: Vec<_> = scored.iter().map(|one| one.reward).collect();
//! assert_eq!(totals, [Some(1.2), Some(1.0), Some(0.0)]);
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! Text is matched exactly, including case. Except for [`ModelReward`] and [`judge`], all rewards
//! work on text on the host: they need no tensor, model or tokenizer.
//!
//! # Combining rewards
//!
//! The total is the weighted sum of the scores. For each reward, [`RewardOptions`] set the
//! condition under which it runs ([`Gate`]), what replaces a missing score ([`Missing`]), its time
//! limit and the number of concurrent calls. The set can also gate and clamp the total.
//! DeepSeek-R1-Zero adds accuracy and format with equal weight; with a gate, a right answer counts
//! only if the format is right:
//!
//! ```
//! use rlvr::reward::*;
//!
//! let rewards = RewardSet::builder()
//!     .add(0.1, FormatReward::new())
//!     .add_with(
//!         1.0,
//!         AccuracyReward::new(),
//!         RewardOptions::new().with_gate(Gate::on("format")),
//!     )
//!     .add(0.2, LanguageReward::new("en")?)
//!     .add(0.5, RepetitionReward::new(3, -1.0)?)
//!     .add_group(0.1, KimiLengthReward::new()) // reads the scores of `accuracy`
//!     .clamp(-1.0, 2.0)
//!     .build()?;
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! Rewards that read the text of a completion, as well as [`Extractor`] and [`Tags`], require the
//! feature `math`.
//!
//! # Custom rewards
//!
//! [`FnReward`] turns a closure into a reward. A custom type implements [`Reward`]; its
//! documentation also covers slow rewards.

#[cfg(feature = "math")]
mod accuracy;
#[cfg(feature = "code")]
pub mod code;
mod contract;
#[cfg(feature = "math")]
mod countdown;
pub(crate) mod failures;
#[cfg(feature = "math")]
mod form;
mod group;
mod input;
pub mod judge;
mod length;
#[cfg(feature = "math")]
mod math_reward;
mod model;
pub(crate) mod pool;
mod set;
mod setters;
#[cfg(feature = "math")]
mod tasks;
mod token;

#[cfg(feature = "math")]
pub use accuracy::{AccuracyReward, Comparison};
pub use contract::{FnReward, Reward, RewardError};
#[cfg(feature = "math")]
pub use countdown::CountdownReward;
#[cfg(feature = "language")]
pub use form::LanguageReward;
#[cfg(feature = "math")]
pub use form::{
    CodeFormatReward, FormatReward, LineFormatReward, ReasoningStepsReward, RepetitionReward,
    RepetitionUnit, TagCountReward, ThinkFormatReward,
};
pub use group::{GroupInput, GroupReward};
pub use input::RewardInput;
pub use length::{CosineLengthReward, KimiLengthReward, LengthUnit, SoftOverlongReward};
#[cfg(feature = "math")]
pub use math_reward::{Judged, MathReward, MathRewardConfig, Undecided};
pub use model::ModelReward;
pub(crate) use model::tokens_to_score;
#[cfg(feature = "math")]
pub use rlvr_math::{ExtractConfig, Extracted, Extractor, Rule, Tags, Thinking};
pub use set::{Gate, Missing, RewardOptions, RewardSet, RewardSetBuilder};
#[cfg(feature = "math")]
pub use tasks::TaskReward;
pub use token::TokenReward;
pub(crate) use token::score_tokens;

/// The comparison of mathematical answers, from the crate [`rlvr_math`].
#[cfg(feature = "math")]
pub mod math {
    pub use rlvr_math::{Comparison, MathConfig, MathVerifier, Verdict};
}
