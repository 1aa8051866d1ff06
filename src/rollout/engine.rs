//! Where completions come from, and how they become rollouts.

use std::sync::Arc;

use super::decoder::Kept;
use super::generate::{
    Completion, GenerationConfig, GenerationRequest, generate, generate_on, sample_group,
};
use crate::policy::PolicyModel;
use crate::prompt::{Tokenizer, encode_problem};
use crate::types::{Problem, RolloutBuffer};
use crate::{Error, Result};

/// Generates completions: the crate's own generator ([`LocalEngine`]), or an inference server.
///
/// # Contract
/// - The result has one entry per request, each with [`samples`](GenerationRequest::samples) completions in order.
/// - A completion has at least one token and at most [`max_new_tokens`](GenerationConfig::max_new_tokens), and one log-prob for
///   each: that of the distribution it was drawn from, or NaN if it is unknown. [`answer`] checks this.
/// - The weights are those of `policy`. `version` changes whenever they do, so that a remote engine knows when to load them.
pub trait RolloutEngine<M: PolicyModel>: Send {
    /// Completions of every request.
    ///
    /// # Errors
    /// If the requests cannot be answered.
    fn generate(
        &mut self,
        policy: &M,
        version: u64,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Completion>>>;

    /// A generator for requests that continue each other, as the turns of a conversation do: the prompt of a later one begins with the prompt
    /// and the completion of an earlier one. It changes speed and memory, and no result beyond rounding.
    ///
    /// Provided: [`generate`](Self::generate), which reads every prompt whole. The crate's own generator keeps the keys and values of completions
    /// that ended with a stop token until the session is dropped, or until they exceed
    /// [`max_cache_tokens`](GenerationConfig::max_cache_tokens) together with those of running requests: then the oldest go first.
    fn session<'a>(&'a mut self, policy: &'a M, version: u64) -> Session<'a> {
        Box::new(move |requests, config| self.generate(policy, version, requests, config))
    }
}

/// Answers requests of one version of the policy, as [`RolloutEngine::generate`] does; see [`RolloutEngine::session`].
pub type Session<'a> =
    Box<dyn FnMut(&[GenerationRequest], &GenerationConfig) -> Result<Vec<Vec<Completion>>> + 'a>;

/// The crate's own generator, in this process and on the policy's device; see [`generate`].
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
        let policy = policy.valid();
        let mut kept = Kept::default();
        Box::new(move |requests, config| generate_on(&policy, requests, config, Some(&mut kept)))
    }
}

/// A problem to be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The problem.
    pub problem: Arc<Problem>,
    /// Its prompt as the policy reads it.
    pub prompt: Vec<u32>,
    /// How many completions.
    pub samples: usize,
    /// The address of the completions' randomness; see [`GenerationRequest::address`].
    pub address: Vec<u64>,
}

impl Question {
    /// `samples` completions of `problem`, with randomness from `address`.
    ///
    /// # Errors
    /// If the tokenizer cannot encode the prompt.
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

    /// What is asked of an engine.
    pub(crate) fn request(&self) -> GenerationRequest {
        GenerationRequest::new(self.prompt.clone(), self.samples, self.address.clone())
    }
}

/// The policy's completions of every question as groups of rollouts, not yet scored.
///
/// `version` is the number of optimizer updates that made the policy; the rollouts carry it.
///
/// # Errors
/// If generation fails, the engine breaks its contract, or a completion cannot be decoded.
pub fn answer<M: PolicyModel>(
    engine: &mut dyn RolloutEngine<M>,
    policy: &M,
    version: u64,
    tokenizer: &dyn Tokenizer,
    questions: &[Question],
    config: &GenerationConfig,
) -> Result<RolloutBuffer> {
    let requests: Vec<_> = questions.iter().map(Question::request).collect();
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

/// Checks what an engine gave against its contract.
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
                format!("{}, as asked of the engine", request.samples),
            ));
        }
        for (sample, completion) in completions.iter().enumerate() {
            let which = format!("completion {sample} of request {index}");
            check_completion(completion, &which, config, vocabulary)?;
        }
    }
    Ok(())
}

/// Checks a completion, called `which` in the error, against the contract of an engine.
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

/// The encoded prompts of `problems`, in order, after checking that each can be answered: it has at least one token, only tokens
/// of the policy's vocabulary, and room for `max_new_tokens` more within the policy's `max_positions`.
///
/// # Errors
/// [`Error::Config`] that names the index of the first problem that does not fit, and why.
pub fn check_prompts<'a>(
    problems: impl IntoIterator<Item = &'a Problem>,
    tokenizer: &dyn Tokenizer,
    vocabulary: usize,
    max_positions: usize,
    max_new_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let encode = |(index, problem): (usize, &Problem)| {
        let refuse = |value: String, expected: String| {
            Err(Error::config(
                format!("problems[{index}].prompt"),
                value,
                expected,
            ))
        };
        let prompt = encode_problem(index, problem, tokenizer)?;
        if prompt.is_empty() {
            return refuse("0 tokens".into(), "at least 1 token".into());
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
            let expected = format!("ids below the policy's vocabulary of {vocabulary}");
            return refuse(format!("token id {id}"), expected);
        }
        // The last token of a completion is never read again.
        if prompt.len() + max_new_tokens > max_positions + 1 {
            let room = (max_positions + 1).saturating_sub(max_new_tokens);
            return refuse(
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
    fn what_an_engine_gives_is_checked() {
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
    fn a_prompt_that_cannot_be_answered_is_named() {
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
