//! Takes completions with their references and metadata from `rollout` and `prompt`; gives weighted, recorded rewards to `advantage`.
//!
//! A [`Reward`] looks at one completion ([`RewardInput`]) and gives a number, abstains or fails. A [`RewardSet`] runs several
//! of them over a batch, in parallel and under a time limit, and turns whatever they do into records and a total
//! ([`Scored`]): a reward that fails, panics or hangs costs its own rollout and nothing else.
//!
//! | reward | 1 if | needs |
//! |---|---|---|
//! | [`AccuracyReward`] | the answer equals the reference, as a number or by its characters | the reference |
//! | [`MathReward`] | the answer equals the reference as mathematics | the reference |
//! | [`FormatReward`] | the completion is thinking, then an answer, and nothing else | - |
//! | [`CountdownReward`] | the expression uses the numbers once each and is worth the target | `numbers`, `target` |
//! | [`FnReward`] | a closure says so | - |
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
//! Everything here is host code on text: no tensor, no model, no tokenizer. Text is matched as it is, case and all.
//!
//! # A new reward
//!
//! One file with a type that implements [`Reward`], and its line below.

mod accuracy;
mod contract;
mod countdown;
mod extract;
mod format;
mod input;
pub mod math;
mod math_reward;
mod number;
mod pool;
mod set;
mod tags;

pub use accuracy::{AccuracyReward, Comparison};
pub use contract::{FnReward, Reward, RewardError};
pub use countdown::CountdownReward;
pub use extract::{ExtractConfig, Extracted, Extractor, Rule, Thinking};
pub use format::FormatReward;
pub use input::RewardInput;
pub use math_reward::{Judged, MathReward, MathRewardConfig, Undecided};
pub use set::{RewardSet, RewardSetBuilder, Scored};
pub use tags::Tags;
