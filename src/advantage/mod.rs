//! Advantage estimators: from the rewards of a batch (and a critic's values) to one advantage per
//! trained token.
//!
//! An advantage says how much better a completion was than expected. The estimators differ in that
//! expectation, the *baseline*:
//!
//! | estimator | baseline | divided by | needs | paper |
//! |---|---|---|---|---|
//! | [`Group`] | mean of the group | std of the group | groups of 2 or more | GRPO, arXiv 2402.03300 |
//! | [`GroupMean`] | mean of the group | - | groups of 2 or more | Dr. GRPO, arXiv 2503.20783 |
//! | [`LeaveOneOut`] | mean of the *others* in the group | - | groups of 2 or more | RLOO, arXiv 2402.14740 |
//! | [`LitePpo`] | mean of the group | std of the batch | groups of 2 or more | Lite PPO, arXiv 2508.08221 |
//! | [`MaxRl`] | mean of the group | mean of the group | rewards of at least 0 | MaxRL, arXiv 2602.02710 |
//! | [`PassAtK`] | second best of the group, for the best one only | std of the group | groups of 2 or more | arXiv 2503.19595 |
//! | [`Gdpo`] | mean of the group, for each reward component | std of the group, then of the batch | reward components | GDPO, arXiv 2601.05242 |
//! | [`Opo`] | mean of the group, weighted by length | - | groups of 2 or more | OPO, arXiv 2505.23585 |
//! | [`Gpg`] | mean of the group | share of the batch that has a signal | groups of 2 or more | GPG, arXiv 2504.02546 |
//! | [`OptimalTokenBaseline`] | mean of the group at each token, weighted by gradient norm | - | token probabilities | verl |
//! | [`ReinforcePlusPlusBaseline`] | mean of the group | std of all tokens | groups of 2 or more | REINFORCE++, arXiv 2501.03262 |
//! | [`ReinforcePlusPlus`] | mean of all tokens | std of all tokens | - | REINFORCE++, arXiv 2501.03262 |
//! | [`Remax`] | reward of the greedy completion | - | a greedy completion | ReMax, arXiv 2310.10505 |
//! | [`TurnReturns`] | mean of the *others* in the group at each turn | - | groups of 2 or more, turns | - |
//! | [`MtGrpo`] | mean of the group, for outcome and turn separately | std of the group | groups of 2 or more, turns | MT-GRPO, arXiv 2505.11821 |
//! | [`Gigpo`] | mean of the group, and of equal states within it | std of the group | groups of 2 or more, turns | GiGPO, arXiv 2505.10978 |
//! | [`Distillation`] | log-prob of the policy; the reward is the teacher's log-prob | - | a teacher | GKD, arXiv 2306.13649 |
//! | [`Gae`] | a critic's value of each prefix | std of all tokens, if whitened | a critic | GAE, arXiv 1506.02438 |
//!
//! # Names in other frameworks
//!
//! | framework | here |
//! |---|---|
//! | TRL `scale_rewards="group"` | `group` |
//! | TRL `scale_rewards="none"` | `group_mean` |
//! | TRL `scale_rewards="batch"` | `lite_ppo` |
//! | TRL `multi_objective_aggregation="normalize_then_sum"` | `gdpo` |
//! | TRL RLOO | `leave_one_out` |
//! | verl `gae` | `gae` with `lambda` 1 |
//! | verl `grpo`, `grpo_vectorized` | `group` with `epsilon` 1e-6, `singleton` `score`; `group_mean` with `singleton` `score` if not `norm_adv_by_std_in_grpo` |
//! | verl `grpo_passk` | `pass_at_k` |
//! | verl `gdpo` | `gdpo` with `epsilon` 1e-6, `singleton` `score`, `rescale` `{"tokens": {"epsilon": 1e-8}}` |
//! | verl `rloo` | `leave_one_out` with `singleton` `score` |
//! | verl `rloo_vectorized` | `leave_one_out` |
//! | verl `opo` | `opo` with `singleton` `score` |
//! | verl `gpg` | `gpg` with `scale` `nonzero_rewards`, `singleton` `score` |
//! | verl `reinforce_plus_plus` | `reinforce_plus_plus` |
//! | verl `reinforce_plus_plus_baseline` | `reinforce_plus_plus_baseline` with `singleton` `score` |
//! | verl `remax` | `remax` |
//! | verl `optimal_token_baseline` | `optimal_token_baseline` with `singleton` `score` |
//! | verl `tir_optimal_token_baseline` | `optimal_token_baseline` with `singleton` `score`, `align` `trained_token` |
//! | SkyRL, prime-rl MaxRL | `max_rl` |
//! | prime-rl `opd`, verl distillation with `use_policy_gradient` | `distillation` |
//!
//! # Example
//!
//! Two prompts with three completions each, in any order. One completion has no reward: it is
//! excluded from the statistics of its group and gets advantage 0.
//!
//! ```
//! use rlvr::advantage::{AdvantageEstimator, AdvantageInput, Group};
//!
//! let rewards = [Some(1.0), Some(0.0), Some(2.0), None, Some(0.0), Some(4.0)];
//! let groups = [7, 7, 3, 7, 3, 3]; // the prompt of each rollout
//! let lengths = [2, 1, 1, 3, 1, 2]; // trained tokens of each rollout
//!
//! let input = AdvantageInput::new(&rewards, &groups, &lengths);
//! let advantages = Group::default().estimate(&input)?;
//!
//! // 2, 0 and 4 have mean 2 and standard deviation 2: advantages 0, -1 and 1, on every
//! // token.
//! assert_eq!(advantages.per_token[2], [0.0]);
//! assert!((advantages.per_token[5][1] - 1.0).abs() < 1e-4);
//! assert_eq!(advantages.per_token[3], [0.0, 0.0, 0.0]);
//! assert_eq!(advantages.statistics.unscored, 1);
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! # Common rules
//!
//! - Estimators compute in `f64` on the host, without tensors, and are deterministic. The loss
//!   treats advantages as constants: no gradient passes through them.
//! - `None` is a reward that could not be given. Such a rollout is excluded from every mean,
//!   standard deviation and whitening; its advantages are exactly 0.
//! - With estimators that compare rollouts only within their group, a group whose scored rewards
//!   are all equal gets advantages of exactly 0. The test is `max == min`, not a small standard
//!   deviation, so rounding errors are never scaled up into a signal. The same holds for a group
//!   with a single scored rollout, unless its [`SingletonGroup`] selects the raw score. (Whitening
//!   over tokens shifts those zeros: [`ReinforcePlusPlusBaseline`].)
//! - Standard deviations are unbiased (divisor `n - 1`), computed in two passes, and bounded below
//!   by a floor.
//! - [`AdvantageInput::token_rewards`] are added at their tokens by [`Gae`], [`ReinforcePlusPlus`],
//!   [`Remax`] and [`OptimalTokenBaseline`]; estimators that compare whole rollouts add their sum
//!   to the outcome reward; [`Gdpo`] with components returns an error.
//! - Rewards that are not finite and slices of different lengths are errors; the message names the
//!   rollout.
//!
//! # Custom estimators
//!
//! Implement [`AdvantageEstimator`] and pass it to [`Estimator::custom`];
//! [`Advantages::per_rollout`] does the common part. An estimator of this crate is one file with a
//! serde struct that implements the trait, its `mod` below, and its name in the list of
//! [`Estimator`].

mod custom;
mod distillation;
mod estimator;
mod gae;
mod gdpo;
mod gigpo;
mod gpg;
mod group;
mod group_mean;
mod input;
mod leave_one_out;
mod lite_ppo;
mod max_rl;
mod moments;
mod mt_grpo;
mod opo;
mod optimal_token_baseline;
mod pass_at_k;
mod reinforce_plus_plus;
mod reinforce_plus_plus_baseline;
mod remax;
mod returns;
mod singleton;
mod statistics;
mod turn_returns;
mod whiten;

#[cfg(test)]
mod tests;

pub use distillation::Distillation;
pub use estimator::{AdvantageEstimator, Advantages, Estimator};
pub use gae::Gae;
pub use gdpo::{Gdpo, Rescale};
pub use gigpo::Gigpo;
pub use gpg::{Gpg, GpgScale};
pub use group::Group;
pub use group_mean::GroupMean;
pub use input::{AdvantageInput, Components, Probabilities, TurnCredit};
pub use leave_one_out::LeaveOneOut;
pub use lite_ppo::LitePpo;
pub use max_rl::MaxRl;
pub use mt_grpo::{MtGrpo, TurnAssignment};
pub use opo::Opo;
pub use optimal_token_baseline::{Align, OptimalTokenBaseline};
pub use pass_at_k::PassAtK;
pub use reinforce_plus_plus::ReinforcePlusPlus;
pub use reinforce_plus_plus_baseline::ReinforcePlusPlusBaseline;
pub use remax::Remax;
pub use singleton::SingletonGroup;
pub use statistics::GroupStatistics;
pub use turn_returns::TurnReturns;
pub use whiten::whiten;
