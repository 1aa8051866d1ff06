//! Generators of completions, and the conversion of completions to rollouts.

use std::sync::Arc;

use super::decoder::Kept;
use super::generate::{
    Completion, GenerationConfig, GenerationRequest, generate, generate_on, sample_group,
};
use crate::policy::{PolicyModel, WeightFormat};
use crate::prompt::{Tokenizer, encode_problem};
use crate::types::{Problem, RolloutBuffer};
use crate::{Error, Result};

/// A generator of completions: the crate's own ([`LocalEngine`]) or an inference server.
///
/// # Contract
/// - The result has one entry per request, each with [`samples`](GenerationRequest::samples)
///   completions in order.
/// - A completion has at least one token and at most
///   [`max_new_tokens`](GenerationConfig::max_new_tokens), and one log-prob for each: under the
///   distribution that the token was drawn from, or NaN if unknown. [`sample_rollouts`] checks the lengths.
/// - The weights are those of `policy`. `version` changes whenever the weights change; a remote
///   engine loads them then.
///
/// ```
/// use burn::tensor::Device;
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::prompt::{CharTokenizer, Tokenizer};
/// use rlvr::rollout::{
///     GenerationConfig, LocalEngine, RolloutRequest, sample_rollouts,
/// };
/// use rlvr::types::Problem;
///
/// # fn main() -> rlvr::Result<()> {
/// # #[cfg(feature = "flex")] {
/// let tokenizer = CharTokenizer::new("0123456789+=", &[])?;
/// let policy = CausalConfig::new(tokenizer.vocab_size())
///     .init(0, &Device::flex().autodiff())?;
/// let config = GenerationConfig::new(8, tokenizer.stop_tokens());
/// let question =
///     RolloutRequest::new(Problem::new("1+1=", "2"), &tokenizer, 4, [0, 0])?;
/// let rollouts = sample_rollouts(
///     &mut LocalEngine,
///     &policy,
///     0,
///     &tokenizer,
///     &[question],
///     &config,
/// )?;
/// assert_eq!(rollouts.len(), 4);
/// # }
/// # Ok(())
/// # }
/// ```
pub trait RolloutEngine<M: PolicyModel>: Send {
    /// Generates the completions of every request.
    ///
    /// # Errors
    /// Returns an error if generation fails.
    fn generate(
        &mut self,
        policy: &M,
        version: u64,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Completion>>>;

    /// Returns a generator for requests that continue each other, such as the turns of a
    /// conversation: the prompt of a later request begins with the prompt and the completion of an
    /// earlier one. A session affects speed and memory, but no result beyond rounding.
    ///
    /// The default implementation calls [`generate`](Self::generate), which reads every prompt in
    /// full. The crate's own generator keeps the keys and values of completions that ended with a
    /// stop token until the session is dropped. If they exceed
    /// [`max_cache_tokens`](GenerationConfig::max_cache_tokens) together with those of running
    /// requests, the oldest are dropped first.
    fn session<'a>(&'a mut self, policy: &'a M, version: u64) -> Session<'a> {
        Box::new(move |requests, config| self.generate(policy, version, requests, config))
    }
}

/// A generator for one version of the policy; returned by [`RolloutEngine::session`].
pub type Session<'a> =
    Box<dyn FnMut(&[GenerationRequest], &GenerationConfig) -> Result<Vec<Vec<Completion>>> + 'a>;

/// The crate's own generator, which runs in this process on the policy's device; see [`generate`].
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalEngine;

impl<M: PolicyModel> RolloutEngine<M> for LocalEngine {
    fn generate(
        &mut self,
        policy: &M,
        _version: u64,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Completion>>> {
        generate(&policy.valid(), requests, config)
    }

    fn session<'a>(&'a mut self, policy: &'a M, _version: u64) -> Session<'a> {
        let mut policy = policy.valid();
        let mut kept = Kept::default();
        let mut format = WeightFormat::Trained;
        Box::new(move |requests, config| {
            if config.weights != format {
                // Keys and values of other weights.
                kept = Kept::default();
                policy = policy.clone().with_weight_format(config.weights)?;
                format = config.weights;
            }
            generate_on(&policy, requests, config, Some(&mut kept))
        })
    }
}

/// A problem with its encoded prompt and the number of completions to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutRequest {
    /// The problem.
    pub problem: Arc<Problem>,
    /// The encoded prompt.
    pub prompt: Vec<u32>,
    /// The number of completions.
    pub samples: usize,
    /// The address of the random stream; see [`GenerationRequest::address`].
    pub address: Vec<u64>,
}

impl RolloutRequest {
    /// Encodes the prompt of `problem`, for `samples` completions with random draws from `address`.
    ///
    /// # Errors
    /// Returns an error if the tokenizer cannot encode the prompt.
    pub fn new(
        problem: impl Into<Arc<Problem>>,
        tokenizer: &dyn Tokenizer,
        samples: usize,
        address: impl Into<Vec<u64>>,
    ) -> Result<Self> {
        let problem = problem.into();
        Ok(Self {
            prompt: tokenizer.encode_prompt(&problem.prompt)?,
            problem,
            samples,
            address: address.into(),
        })
    }

    /// The request for an engine.
    pub(crate) fn request(&self) -> GenerationRequest {
        GenerationRequest::new(self.prompt.clone(), self.samples, self.address.clone())
    }
}

/// Generates the policy's completions of every question, as groups of rollouts that are not yet
/// scored.
///
/// `version` is the number of optimizer updates of the policy; it is recorded in the rollouts.
///
/// # Errors
/// Returns an error if generation fails, the engine violates its contract, or a completion cannot
/// be decoded.
pub fn sample_rollouts<M: PolicyModel>(
    engine: &mut dyn RolloutEngine<M>,
    policy: &M,
    version: u64,
    tokenizer: &dyn Tokenizer,
    questions: &[RolloutRequest],
    config: &GenerationConfig,
) -> Result<RolloutBuffer> {
    let requests: Vec<_> = questions.iter().map(RolloutRequest::request).collect();
    let answers = engine.generate(policy, version, &requests, config)?;
    check_answers(&answers, &requests, config, policy.vocab_size())?;
    let mut buffer = RolloutBuffer::new();
    for (question, completions) in questions.iter().zip(answers) {
        let (problem, prompt) = (question.problem.clone(), question.prompt.clone());
        buffer.push(sample_group(
            problem,
            prompt,
            completions,
            tokenizer,
            version,
        )?);
    }
    Ok(buffer)
}

/// Checks the result of an engine against its contract.
pub(crate) fn check_answers(
    answers: &[Vec<Completion>],
    requests: &[GenerationRequest],
    config: &GenerationConfig,
    vocabulary: usize,
) -> Result<()> {
    if answers.len() != requests.len() {
        return Err(Error::shape(
            "answers of the engine",
            answers.len(),
            format!("{}, one for each request", requests.len()),
        ));
    }
    for (index, (completions, request)) in answers.iter().zip(requests).enumerate() {
        if completions.len() != request.samples {
            return Err(Error::shape(
                format!("completions of request {index}"),
                completions.len(),
                format!("{}, as requested", request.samples),
            ));
        }
        for (sample, completion) in completions.iter().enumerate() {
            let which = format!("completion {sample} of request {index}");
            check_completion(completion, &which, config, vocabulary)?;
        }
    }
    Ok(())
}

/// Checks a completion against the contract of an engine. `which` names it in errors.
pub(crate) fn check_completion(
    completion: &Completion,
    which: &str,
    config: &GenerationConfig,
    vocabulary: usize,
) -> Result<()> {
    let tokens = completion.tokens.len();
    let what = |part: &str| format!("{part} of {which}");
    if !(1..=config.max_new_tokens).contains(&tokens) {
        let expected = format!("1 to max_new_tokens = {}", config.max_new_tokens);
        return Err(Error::shape(what("tokens"), tokens, expected));
    }
    if completion.log_probs.len() != tokens {
        let expected = format!("{tokens}, one for each token");
        return Err(Error::shape(
            what("log-probs"),
            completion.log_probs.len(),
            expected,
        ));
    }
    let spans: usize = completion.versions.iter().map(|span| span.tokens).sum();
    if !completion.versions.is_empty() && spans != tokens {
        let expected = format!("{tokens}, each token once");
        return Err(Error::shape(
            what("tokens in the versions"),
            spans,
            expected,
        ));
    }
    let unknown = |id: &&u32| **id as usize >= vocabulary;
    match completion.tokens.iter().find(unknown) {
        Some(&id) => Err(Error::UnknownToken { id, vocabulary }),
        None => Ok(()),
    }
}

/// Encodes the prompts of `problems`, in order, and checks that each has at least one token, only
/// tokens of the policy's vocabulary, and room for `max_new_tokens` more within the policy's
/// `max_positions`.
///
/// # Errors
/// Returns [`Error::Config`] with the index of the first problem that does not fit, and the reason.
pub(crate) fn check_prompts<'a>(
    problems: impl IntoIterator<Item = &'a Problem>,
    tokenizer: &dyn Tokenizer,
    vocabulary: usize,
    max_positions: usize,
    max_new_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let encode = |(index, problem): (usize, &Problem)| {
        let invalid = |value: String, expected: String| {
            Err(Error::config(
                format!("problems[{index}].prompt"),
                value,
                expected,
            ))
        };
        let prompt = encode_problem(index, problem, tokenizer)?;
        if prompt.is_empty() {
            return invalid("0 tokens".into(), "at least 1 token".into());
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
            let expected = format!("ids below the policy's vocabulary of {vocabulary}");
            return invalid(format!("token id {id}"), expected);
        }
        // The last token of a completion is never fed back.
        if prompt.len() + max_new_tokens > max_positions + 1 {
            let room = (max_positions + 1).saturating_sub(max_new_tokens);
            return invalid(
                format!("{} tokens", prompt.len()),
                format!(
                    "at most {room}: a completion may have {max_new_tokens} (generation.max_new_tokens) and the policy \
                     reads {max_positions} (max_position_embeddings)"
                ),
            );
        }
        Ok(prompt)
    };
    problems.into_iter().enumerate().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::CharTokenizer;
    use crate::types::FinishReason;

    fn completion(tokens: &[u32], log_probs: usize) -> Completion {
        Completion::new(tokens.to_vec(), vec![-0.5; log_probs], FinishReason::Stop)
    }

    #[test]
    fn completions_that_violate_the_contract_are_errors() {
        let requests = [GenerationRequest::new(vec![1], 2, [0])];
        let config = GenerationConfig::new(3, vec![1]);
        let fine = vec![vec![completion(&[4, 1], 2), completion(&[1], 1)]];
        check_answers(&fine, &requests, &config, 5).unwrap();
        for (answers, word) in [
            (vec![], "answers of the engine: got 0"),
            (
                vec![vec![completion(&[1], 1)]],
                "completions of request 0: got 1",
            ),
            (
                vec![vec![completion(&[1], 1), completion(&[], 0)]],
                "tokens of completion 1 of request 0: got 0",
            ),
            (
                vec![vec![completion(&[2, 2, 2, 2], 4), completion(&[1], 1)]],
                "tokens of completion 0",
            ),
            (
                vec![vec![completion(&[1], 2), completion(&[1], 1)]],
                "log-probs of completion 0",
            ),
            (
                vec![vec![completion(&[5], 1), completion(&[1], 1)]],
                "token id 5",
            ),
        ] {
            let message = check_answers(&answers, &requests, &config, 5)
                .unwrap_err()
                .to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn errors_name_the_prompt_that_does_not_fit() {
        let tokenizer = CharTokenizer::new("abc", &[]).unwrap();
        let check = |prompts: &[&str], vocabulary, positions| {
            let problem = |prompt: &&str| Problem::new(*prompt, "");
            let problems: Vec<_> = prompts.iter().map(problem).collect();
            check_prompts(&problems, &tokenizer, vocabulary, positions, 4)
        };
        assert_eq!(check(&["a", "ab"], 5, 5).unwrap().len(), 2);
        for (prompts, vocabulary, words) in [
            (&["a", "abc"][..], 5, ["problems[1]", "at most 2"]),
            (&["a", "x"], 5, ["problems[1]", "'x'"]),
            (&["a", ""], 5, ["problems[1]", "0 tokens"]),
            (&["c"], 3, ["problems[0]", "vocabulary of 3"]),
        ] {
            let message = check(prompts, vocabulary, 5).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{message}");
            }
        }
    }
}
