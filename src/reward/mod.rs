//! Takes completions with their references from `rollout` and `prompt`, and reward models from `policy`; gives weighted,
//! recorded rewards to `advantage`.
//!
//! A [`Reward`] looks at one completion ([`RewardInput`]) and gives a number, abstains or fails; a [`GroupReward`] looks at all
//! completions of a problem and at what other rewards said of them. A [`RewardSet`] runs several of both over a batch, in
//! parallel and under time limits, and turns whatever they do into records and a total ([`Scored`]): a reward that fails,
//! panics or hangs costs its own rollout and nothing else.
//!
//! **Is it right?**
//!
//! | reward | 1 if | needs |
//! |---|---|---|
//! | [`AccuracyReward`] | the answer equals the reference, as a number or by its characters | the reference |
//! | [`MathReward`] | the answer equals the reference as mathematics | the reference |
//! | [`CountdownReward`] | the expression uses the numbers once each and is worth the target | `numbers`, `target` |
//! | [`ModelReward`] | a reward model says so: any number | a [`ValueModel`](crate::policy::ValueModel) |
//! | [`CodeReward`](code::CodeReward) | 1 if the program passes its tests, or their share (feature `code`) | the tests |
//! | [`FnReward`] | a closure says so: any number | - |
//!
//! **Is it written as it should be?**
//!
//! | reward | | from |
//! |---|---|---|
//! | [`FormatReward`] | 1 for thinking, then an answer, and nothing else | DeepSeek-R1, read strictly |
//! | [`LineFormatReward`] | 1 for thinking and answer with their tags on lines of their own | open-r1 |
//! | [`ThinkFormatReward`] | 1 for thinking at the start | TRL |
//! | [`CodeFormatReward`] | 1 for an answer with a block of code | open-r1 |
//! | [`TagCountReward`] | 1/4 for each tag | open-r1 |
//! | [`ReasoningStepsReward`] | 1/3 for each mark of a step, up to 1 | open-r1 |
//! | [`LanguageReward`] | share of the words that are in the language | DeepSeek-R1 |
//! | [`RepetitionReward`] | down to -1 for repeated n-grams | Yeo et al., open-r1, TRL |
//!
//! **Is it too long?**
//!
//! | reward | | from |
//! |---|---|---|
//! | [`SoftOverlongReward`] | falls from 0 to -1 before the limit | DAPO, verl |
//! | [`CosineLengthReward`] | right and short is best, wrong and short is worst | Yeo et al., TRL, open-r1 |
//! | [`KimiLengthReward`] | shorter than the others of the group | Kimi k1.5 |
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
//! let totals: Vec<_> = scored.iter().map(|one| one.total).collect();
//! assert_eq!(totals, [Some(1.2), Some(1.0), Some(0.0)]);
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! Text is matched as it is, case and all. But for [`ModelReward`] everything here is host code on text: no tensor, no
//! model, no tokenizer.
//!
//! # Putting them together
//!
//! Scores are added by weight. [`RewardOptions`] say for each reward under which condition it is run ([`Gate`]), what counts
//! where it gave no number ([`Missing`]), how long it may take and how many of it run at once; the set can gate and clamp the
//! total. DeepSeek-R1-Zero adds accuracy and format with equal weight; with a gate, a right answer counts only if it can be
//! found by a program:
//!
//! ```
//! use rlvr::reward::*;
//!
//! let rewards = RewardSet::builder()
//!     .add(0.1, FormatReward::new())
//!     .add_with(1.0, AccuracyReward::new(), RewardOptions::new().gate(Gate::on("format")))
//!     .add(0.2, LanguageReward::new("en")?)
//!     .add(0.5, RepetitionReward::new(3, -1.0)?)
//!     .add_group(0.1, KimiLengthReward::new()) // reads what `accuracy` said
//!     .clamp(-1.0, 2.0)
//!     .build()?;
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! # A new reward
//!
//! One file with a type that implements [`Reward`], and its line below. The trait says what a slow one does.

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
mod length;
#[cfg(feature = "math")]
mod math_reward;
mod model;
mod pool;
mod set;
mod token;

#[cfg(feature = "math")]
pub use accuracy::{AccuracyReward, Comparison};
pub use contract::{FnReward, Reward, RewardError};
#[cfg(feature = "math")]
pub use countdown::CountdownReward;
#[cfg(feature = "math")]
pub use form::{
    CodeFormatReward, FormatReward, LanguageReward, LineFormatReward, ReasoningStepsReward,
    RepetitionReward, RepetitionUnit, TagCountReward, ThinkFormatReward, repeated_share,
};
pub use group::{GroupInput, GroupReward};
pub use input::RewardInput;
pub use length::{CosineLengthReward, KimiLengthReward, LengthUnit, SoftOverlongReward};
#[cfg(feature = "math")]
pub use math_reward::{Judged, MathReward, MathRewardConfig, Undecided};
pub use model::ModelReward;
#[cfg(feature = "math")]
pub use rlvr_math::{ExtractConfig, Extracted, Extractor, Rule, Tags, Thinking};
pub use set::{Gate, Missing, RewardOptions, RewardSet, RewardSetBuilder, Scored};
pub use token::{TokenReward, score_tokens};

/// Equality of mathematical answers: the crate [`rlvr_math`].
#[cfg(feature = "math")]
pub mod math {
    pub use rlvr_math::{Comparison, MathConfig, MathVerifier, Verdict};
}
