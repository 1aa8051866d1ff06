//! Takes a batch's rewards from `reward` (and a critic's values from `policy`), gives an advantage per trained token to `loss`.
//!
//! An advantage says how much better a completion was than what was to be expected. The expectation, the *baseline*, is
//! what the estimators differ in:
//!
//! | estimator | baseline | divided by | needs | paper |
//! |---|---|---|---|---|
//! | [`Group`] | mean of the group | std of the group | groups of 2 or more | GRPO, arXiv 2402.03300 |
//! | [`GroupMean`] | mean of the group | - | groups of 2 or more | Dr. GRPO, arXiv 2503.20783 |
//! | [`LeaveOneOut`] | mean of the *others* in the group | - | groups of 2 or more | RLOO, arXiv 2402.14740 |
//! | [`LitePpo`] | mean of the group | std of the batch | groups of 2 or more | Lite PPO, arXiv 2508.08221 |
//! | [`MaxRl`] | mean of the group | mean of the group | rewards of 0 and more | MaxRL, arXiv 2602.02710 |
//! | [`PassAtK`] | for the best of a group the second best | std of the group | groups of 2 or more | arXiv 2503.19595 |
//! | [`Gdpo`] | mean of the group, each reward by itself | std of the group, then of the batch | rewards one by one | GDPO, arXiv 2601.05242 |
//! | [`Opo`] | mean of the group by length | - | groups of 2 or more | OPO, arXiv 2505.23585 |
//! | [`Gpg`] | mean of the group | share of the batch with a signal | groups of 2 or more | GPG, arXiv 2504.02546 |
//! | [`OptimalTokenBaseline`] | mean of the group by token and by gradient norm | - | probabilities of the tokens | verl |
//! | [`ReinforcePlusPlusBaseline`] | mean of the group | std of all tokens | groups of 2 or more | REINFORCE++, arXiv 2501.03262 |
//! | [`ReinforcePlusPlus`] | mean of all tokens | std of all tokens | - | REINFORCE++, arXiv 2501.03262 |
//! | [`Remax`] | reward of the greedy completion | - | a greedy completion | ReMax, arXiv 2310.10505 |
//! | [`TurnReturns`] | mean of the *others* in the group by turn | - | groups of 2 or more, turns | - |
//! | [`MtGrpo`] | mean of the group, outcome and turn by themselves | std of the group | groups of 2 or more, turns | MT-GRPO, arXiv 2505.11821 |
//! | [`Gigpo`] | mean of the group, and of equal states in it | std of the group | groups of 2 or more, turns | GiGPO, arXiv 2505.10978 |
//! | [`Distillation`] | the log-prob of the policy; the reward is that of a teacher | - | a teacher | GKD, arXiv 2306.13649 |
//! | [`Gae`] | a critic's value of each prefix | std of all tokens, if whitened | a critic | GAE, arXiv 1506.02438 |
//!
//! # By the name it has elsewhere
//!
//! | there | here |
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
//! | verl `tir_optimal_token_baseline` | the same with `align` `trained_token` |
//! | SkyRL, prime-rl MaxRL | `max_rl` |
//! | prime-rl `opd`, verl distillation with `use_policy_gradient` | `distillation` |
//!
//! # Dense rewards
//!
//! [`AdvantageInput::token_rewards`] go where the estimator has a place for them: [`Gae`], [`ReinforcePlusPlus`], [`Remax`] and
//! [`OptimalTokenBaseline`] pay them at their tokens; estimators that compare whole rollouts add their sum to the outcome;
//! [`Gdpo`] with components refuses them.
//!
//! Everything here is host arithmetic in `f64` on plain slices: no tensor, no model, no tokenizer. The result depends on the
//! numbers alone and is the same on every run. Advantages are constants to the loss: no gradient passes through them.
//!
//! # With one's own rollouts
//!
//! Two prompts, three completions each, in any order. One completion could not be scored: it leaves the statistics of its
//! group and gets advantage 0.
//!
//! ```
//! use rlvr::advantage::{AdvantageEstimator, AdvantageInput, Group};
//!
//! let rewards = [Some(1.0), Some(0.0), Some(2.0), None, Some(0.0), Some(4.0)];
//! let groups = [7, 7, 3, 7, 3, 3]; // which prompt each rollout answers
//! let lengths = [2, 1, 1, 3, 1, 2]; // trained tokens of each
//!
//! let advantages = Group::default().estimate(&AdvantageInput::new(&rewards, &groups, &lengths))?;
//!
//! // 2, 0 and 4 have mean 2 and standard deviation 2: advantages 0, -1 and 1, on every token of the rollout.
//! assert_eq!(advantages.per_token[2], [0.0]);
//! assert!((advantages.per_token[5][1] - 1.0).abs() < 1e-4);
//! assert_eq!(advantages.per_token[3], [0.0, 0.0, 0.0]);
//! assert_eq!(advantages.statistics.unscored, 1);
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! The arithmetic is also there without the types around it:
//!
//! ```
//! use rlvr::advantage::leave_one_out;
//!
//! let advantages = leave_one_out(&[Some(6.0), Some(3.0), Some(9.0), Some(12.0)], &[0, 0, 1, 1])?;
//! assert_eq!(advantages, [3.0, -3.0, -3.0, 3.0]);
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! # What holds for all of them
//!
//! - `None` is a reward that could not be given. Such a rollout is in no mean, no standard deviation and no whitening; its
//!   advantages are exactly 0.
//! - With every estimator that compares rollouts within their group and nowhere else, a group whose scored rewards are all equal gets
//!   advantages of exactly 0, found by `max == min` and not by a small standard deviation: rounding is never scaled up into
//!   a signal. So does a group with a single scored rollout, unless its [`SingletonGroup`] asks for the bare score. (Whitening over
//!   tokens shifts those zeros: [`ReinforcePlusPlusBaseline`].)
//! - Standard deviations are unbiased (divisor `n - 1`), computed in two passes, and kept above a floor.
//! - Rewards that are not finite are refused with the index of the rollout; so are slices whose lengths disagree.
//!
//! # A new estimator
//!
//! One file with a serde struct that implements [`AdvantageEstimator`], its `mod` below, and its name in the list of
//! [`Estimator`]: configuration files and the trainer know it from then on. Outside of this crate [`Estimator::custom`] takes it.
//! [`Advantages::per_rollout`] does the common part.

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
pub use gae::{Gae, gae};
pub use gdpo::{Gdpo, Rescale};
pub use gigpo::Gigpo;
pub use gpg::{Gpg, GpgScale};
pub use group::{Group, group_normalized};
pub use group_mean::{GroupMean, group_centered};
pub use input::{AdvantageInput, Components, Probabilities, TurnCredit};
pub use leave_one_out::{LeaveOneOut, leave_one_out};
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
