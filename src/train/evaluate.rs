//! How good the policy is: greedy accuracy, pass@1 and pass@k on problems that it never trained on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::learners::LearnerGroup;
use crate::environment::AgentLoop;
use crate::policy::PolicyModel;
use crate::prompt::{Problem, Tokenizer};
use crate::reward::RewardSet;
use crate::rollout::{
    GenerationConfig, LocalEngine, Question, RolloutBuffer, SamplingConfig, answer,
};
use crate::{Error, Result};

/// The domain separator of evaluation's random streams.
const EVALUATION: u64 = 0x4556_414C_0000_0000;

/// How a policy is evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Sampled completions per problem for pass@1 and pass@k; 0 leaves sampling out. Default 0.
    #[doc(alias = "val_kwargs.n")]
    pub samples: usize,
    /// The k of pass@k, at most `samples`. Default: none.
    pub k: Vec<usize>,
    /// The distribution of the sampled completions. Default: temperature 1.
    pub sampling: SamplingConfig,
    /// The reward that says whether an answer is right: a score of at least 1. Default `accuracy`.
    pub reward: String,
    /// Where the samples' randomness comes from. Default 0.
    pub seed: u64,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            samples: 0,
            k: Vec::new(),
            sampling: SamplingConfig::default(),
            reward: "accuracy".into(),
            seed: 0,
        }
    }
}

/// The result of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Share of problems answered right by greedy decoding.
    pub accuracy: f64,
    /// Mean completion length of greedy decoding, in tokens.
    pub mean_length: f64,
    /// Share of sampled completions that are right; none without samples.
    pub pass_at_1: Option<f64>,
    /// `(k, pass@k)` for each k asked for.
    pub pass_at_k: Vec<(usize, f64)>,
    /// The same for the problems of each [domain](crate::types::Problem::domain); empty if no problem has one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<String, DomainEvaluation>,
    /// The greedy completion of every problem, scored.
    pub greedy: RolloutBuffer,
}

/// The result of an evaluation for the problems of one domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainEvaluation {
    /// How many problems there are.
    pub problems: usize,
    /// Share of them answered right by greedy decoding.
    pub accuracy: f64,
    /// Mean completion length of greedy decoding, in tokens.
    pub mean_length: f64,
    /// Share of sampled completions that are right; none without samples.
    pub pass_at_1: Option<f64>,
    /// `(k, pass@k)` for each k asked for.
    pub pass_at_k: Vec<(usize, f64)>,
}

impl Evaluation {
    /// The numbers by the names of their metrics, without `eval/`: `accuracy`, `mean_length`, `pass@1`, `pass@k`, and the same of each domain as
    /// `domains/<domain>/accuracy` and so on.
    pub(super) fn metrics(&self) -> Vec<(String, f64)> {
        let all = (
            "",
            self.accuracy,
            self.mean_length,
            self.pass_at_1,
            &self.pass_at_k,
        );
        let domains = self.domains.iter().map(|(domain, found)| {
            let DomainEvaluation {
                accuracy,
                mean_length,
                pass_at_1,
                pass_at_k,
                ..
            } = found;
            (
                domain.as_str(),
                *accuracy,
                *mean_length,
                *pass_at_1,
                pass_at_k,
            )
        });
        let mut metrics = Vec::new();
        for (domain, accuracy, mean_length, pass_at_1, pass_at_k) in
            [all].into_iter().chain(domains)
        {
            let mut put = |name: &str, value: f64| {
                let place = match domain {
                    "" => String::new(),
                    domain => format!("domains/{domain}/"),
                };
                metrics.push((place + name, value));
            };
            put("accuracy", accuracy);
            put("mean_length", mean_length);
            if let Some(pass_at_1) = pass_at_1 {
                put("pass@1", pass_at_1);
            }
            for (k, value) in pass_at_k {
                put(&format!("pass@{k}"), *value);
            }
        }
        metrics
    }
}

/// The unbiased estimate of pass@k from n samples of which c are right (Chen et al., arXiv 2107.03374, eq. 1).
///
/// ```text
/// pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1..n} (1 - k / i)
/// ```
///
/// # Errors
/// Unless `c <= n` and `1 <= k <= n`.
pub fn pass_at_k(n: usize, c: usize, k: usize) -> Result<f64> {
    if k == 0 || k > n {
        return Err(Error::config(
            "k",
            k,
            format!("1 to the {n} samples of a problem"),
        ));
    }
    if c > n {
        return Err(Error::config(
            "c",
            c,
            format!("at most the {n} samples of a problem"),
        ));
    }
    if n - c < k {
        return Ok(1.0);
    }
    let all_wrong: f64 = (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Ok(1.0 - all_wrong)
}

/// Evaluates `policy` on `problems`. `generation` gives the limits; its sampling is not used.
///
/// # Errors
/// If the configuration is refused, a prompt cannot be tokenised, there is no problem, or generation fails.
pub fn evaluate<M: PolicyModel>(
    policy: &M,
    tokenizer: &dyn Tokenizer,
    rewards: &RewardSet,
    problems: &[Problem],
    generation: &GenerationConfig,
    config: &EvaluationConfig,
) -> Result<Evaluation> {
    let players = Players {
        learners: &LearnerGroup::one(),
        agent_loop: None,
    };
    evaluate_with(
        players, policy, tokenizer, rewards, problems, generation, config,
    )
}

/// Who answers the problems of an evaluation, beside the policy.
pub(super) struct Players<'a> {
    /// Divide the problems.
    pub learners: &'a LearnerGroup,
    /// Plays them, if they are not answered by single completions.
    pub agent_loop: Option<&'a AgentLoop>,
}

/// The same, played with an agent loop if there is one, and divided among the learners.
pub(super) fn evaluate_with<M: PolicyModel>(
    Players {
        learners,
        agent_loop,
    }: Players<'_>,
    policy: &M,
    tokenizer: &dyn Tokenizer,
    rewards: &RewardSet,
    problems: &[Problem],
    generation: &GenerationConfig,
    config: &EvaluationConfig,
) -> Result<Evaluation> {
    if problems.is_empty() {
        return Err(Error::config("problems", "none", "at least one problem"));
    }
    if let Some(&k) = config.k.iter().find(|&&k| k == 0 || k > config.samples) {
        let range = format!("1 to samples = {}", config.samples);
        return Err(Error::config("evaluation.k", k, range));
    }
    let known = rewards.names();
    if !known.iter().any(|name| *name == config.reward) {
        return Err(Error::config(
            "evaluation.reward",
            &config.reward,
            format!("one of {known:?}"),
        ));
    }
    let mut questions = problems
        .iter()
        .enumerate()
        .map(|(index, problem)| {
            let address = [config.seed, EVALUATION, index as u64];
            match agent_loop {
                None => Question::new(problem.clone(), tokenizer, 1, address),
                // The environment says what the policy reads.
                Some(_) => Ok(Question {
                    problem: problem.clone().into(),
                    prompt: Vec::new(),
                    samples: 1,
                    address: address.to_vec(),
                }),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let mut answer = |samples: usize, sampling: SamplingConfig| -> Result<RolloutBuffer> {
        for question in &mut questions {
            question.samples = samples;
        }
        let generation = generation.clone().with_sampling(sampling);
        let engine = &mut LocalEngine;
        let mut own = || {
            let mut all = RolloutBuffer::new();
            for block in learners.own_blocks(questions.len()) {
                let questions = &questions[block];
                let mut buffer = match agent_loop {
                    None => answer(engine, policy, 0, tokenizer, questions, &generation)?,
                    Some(agent_loop) => {
                        agent_loop.run(engine, policy, 0, tokenizer, questions, &generation)?
                    }
                };
                rewards.score_rollouts(&mut buffer);
                all.groups.extend(buffer.groups);
            }
            Ok(all)
        };
        let all = learners.gather("evaluation", own())?;
        let groups = all.into_iter().flat_map(|part| part.groups).collect();
        Ok(RolloutBuffer { groups })
    };
    let right = |buffer: &RolloutBuffer| -> Vec<usize> {
        let is_right = |score: f64| score >= 1.0;
        let count = |group: &crate::rollout::RolloutGroup| {
            let scores = group.rollouts.iter().map(|r| r.score(&config.reward));
            scores.filter(|score| score.is_some_and(is_right)).count()
        };
        buffer.groups.iter().map(count).collect()
    };

    let greedy = answer(1, SamplingConfig::greedy())?;
    let counts = match config.samples {
        0 => None,
        samples => Some(right(&answer(samples, config.sampling)?)),
    };
    let answers = Answers {
        config,
        right: right(&greedy),
        lengths: greedy
            .groups
            .iter()
            .map(|group| group.trained_tokens())
            .collect(),
        counts,
    };
    let all: Vec<usize> = (0..problems.len()).collect();
    let mut domains: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, problem) in problems.iter().enumerate() {
        if let Some(domain) = problem.domain() {
            domains.entry(domain).or_default().push(index);
        }
    }
    let domains = domains.into_iter();
    let domains = domains.map(|(name, own)| Ok((name.to_string(), answers.summary(&own)?)));
    let DomainEvaluation {
        accuracy,
        mean_length,
        pass_at_1,
        pass_at_k,
        ..
    } = answers.summary(&all)?;
    Ok(Evaluation {
        accuracy,
        mean_length,
        pass_at_1,
        pass_at_k,
        domains: domains.collect::<Result<_>>()?,
        greedy,
    })
}

/// What the answers to each problem were worth.
struct Answers<'a> {
    config: &'a EvaluationConfig,
    /// 1 where the greedy completion is right, 0 elsewhere.
    right: Vec<usize>,
    /// Of the greedy completions.
    lengths: Vec<usize>,
    /// How many of the samples are right; none without samples.
    counts: Option<Vec<usize>>,
}

impl Answers<'_> {
    /// The means over the problems at `own`.
    fn summary(&self, own: &[usize]) -> Result<DomainEvaluation> {
        let share = |numbers: &[usize]| {
            let sum: usize = own.iter().map(|&problem| numbers[problem]).sum();
            sum as f64 / own.len() as f64
        };
        let mut summary = DomainEvaluation {
            problems: own.len(),
            accuracy: share(&self.right),
            mean_length: share(&self.lengths),
            ..DomainEvaluation::default()
        };
        if let Some(counts) = &self.counts {
            let samples = self.config.samples;
            let mean = |k: usize| -> Result<f64> {
                let each = own.iter().map(|&one| pass_at_k(samples, counts[one], k));
                Ok(each.sum::<Result<f64>>()? / own.len() as f64)
            };
            summary.pass_at_1 = Some(mean(1)?);
            for &k in &self.config.k {
                summary.pass_at_k.push((k, mean(k)?));
            }
        }
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_by_counting() {
        // n = 5, c = 2, k = 2: of the 10 pairs, 3 hold two wrong samples.
        assert!((pass_at_k(5, 2, 2).unwrap() - 0.7).abs() < 1e-12);
        assert!((pass_at_k(10, 3, 1).unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(pass_at_k(4, 0, 4).unwrap(), 0.0);
        assert_eq!(pass_at_k(4, 3, 2).unwrap(), 1.0);
        assert!(pass_at_k(4, 1, 5).is_err() && pass_at_k(4, 5, 1).is_err());
        assert!(pass_at_k(4, 1, 0).is_err());
    }
}
