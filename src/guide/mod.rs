//! A short guide: the method, and a chapter for each part of it.
//!
//! | chapter | |
//! |---|---|
//! | [`method`] | what one step does, in pictures |
//! | [`is_it_learning`] | what to look at during a run, and what to change |
//! | [`prompts_and_policies`] | problems, tokenizers, models, open weights |
//! | [`rollouts`] | generation, engines, several turns |
//! | [`rewards`] | verifiers, composition, failures |
//! | [`objectives`] | advantages and losses |
//! | [`training`] | runs, checkpoints, several learners, cost |

#[doc = include_str!("method.md")]
pub mod method {}
#[doc = include_str!("is_it_learning.md")]
pub mod is_it_learning {}
#[doc = include_str!("prompts_and_policies.md")]
pub mod prompts_and_policies {}
#[doc = include_str!("rollouts.md")]
pub mod rollouts {}
#[doc = include_str!("rewards.md")]
pub mod rewards {}
#[doc = include_str!("objectives.md")]
pub mod objectives {}
#[doc = include_str!("training.md")]
pub mod training {}
