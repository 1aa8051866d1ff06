//! Saving, loading and using a policy that was trained from scratch.

use std::path::Path;

use rlvr::burn::module::Module;
use rlvr::burn::store::ModuleRecord;
use rlvr::burn::tensor::{Bytes, Device};
use rlvr::prompt::Tokenizer;
use rlvr::rollout::{
    GenerationConfig, LocalEngine, RolloutRequest, SamplingConfig, sample_rollouts,
};
use rlvr::types::Problem;
use rlvr::{Error, Result};

use crate::policy::GruPolicy;

/// Saves the weights. The program itself knows the shape of the policy.
pub fn save(policy: &GruPolicy, to: &Path) -> Result<()> {
    let saved = policy.valid().save_file(to);
    saved.map_err(|error| Error::model_file(to, error))
}

/// Loads the weights onto a device without autodiff. (`Module::load_file` would read each tensor
/// when it is first used, and the file may be gone by then.)
pub fn load(from: &Path, vocabulary: usize, device: &Device) -> Result<GruPolicy> {
    let bytes = std::fs::read(from).map_err(|error| Error::io(from, error))?;
    let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes));
    let policy =
        record.and_then(|record| GruPolicy::new(vocabulary, device).try_load_record(record));
    policy.map_err(|error| Error::model_file(from, error))
}

/// Returns the most likely completion of each prompt.
pub fn ask(policy: &GruPolicy, tokenizer: &dyn Tokenizer, prompts: &[&str]) -> Result<Vec<String>> {
    let config = GenerationConfig::new(4, tokenizer.stop_tokens());
    let config = config.with_sampling(SamplingConfig::greedy());
    let question = |prompt: &&str| RolloutRequest::new(Problem::new(*prompt, ""), tokenizer, 1, []);
    let questions: Vec<RolloutRequest> = prompts.iter().map(question).collect::<Result<_>>()?;
    let answers = sample_rollouts(&mut LocalEngine, policy, 0, tokenizer, &questions, &config)?;
    Ok(answers
        .rollouts()
        .map(|rollout| rollout.text.clone())
        .collect())
}
