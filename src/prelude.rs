//! The items that a typical training program needs.
//!
//! ```
//! use rlvr::prelude::*;
//! ```

pub use crate::policy::PolicyModel;
pub use crate::policy::causal::{CausalConfig, CausalModel};
pub use crate::prompt::{CharTokenizer, JsonLines, Tokenizer, split};
#[cfg(feature = "math")]
pub use crate::reward::{AccuracyReward, FormatReward};
pub use crate::reward::{FnReward, Reward, RewardInput, RewardSet};
pub use crate::rollout::{GenerationConfig, SamplingConfig};
pub use crate::train::observer::{MetricsFile, Observer, StepRecord};
pub use crate::train::{
    EvaluationConfig, OptimizerConfig, RunCheckpoints, RunConfig, RunEvaluation, Schedule, Trainer,
    TrainerConfig,
};
pub use crate::types::{Problem, Rollout, RolloutBuffer};
pub use crate::{Error, Result};
