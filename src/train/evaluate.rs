//! Evaluation on held-out problems: greedy accuracy, pass@1 and pass@k.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::learners::LearnerGroup;
use crate::environment::AgentLoop;
use crate::policy::{PolicyModel, WeightFormat};
use crate::prompt::{Problem, Tokenizer};
use crate::reward::RewardSet;
use crate::rollout::{
    GenerationConfig, LocalEngine, Rollout, RolloutBuffer, RolloutGroup, RolloutRequest,
    SamplingConfig, sample_rollouts,
};
use crate::{Error, Result};

/// The domain separator of evaluation's random streams.
const EVALUATION: u64 = 0x4556_414C_0000_0000;

/// The settings of an evaluation.
///
/// ```
/// use rlvr::train::EvaluationConfig;
///
/// // Greedy accuracy, and pass@1, pass@4 and pass@8 from 8 samples per problem.
/// let config = EvaluationConfig {
///     samples: 8,
///     k: vec![4, 8],
///     ..EvaluationConfig::default()
/// };
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Sampled completions per problem for pass@1 and pass@k; 0 for greedy decoding only. Default 0.
    #[doc(alias = "val_kwargs.n")]
    pub samples: usize,
    /// The values of k for pass@k, each at most `samples`. Default: none.
    pub k: Vec<usize>,
    /// The n of maj@n (majority voting, self-consistency), at most `samples`. Default: none.
    #[doc(alias("self_consistency", "cons@64"))]
    pub maj: Vec<usize>,
    /// The distribution of the sampled completions. Default: temperature 1.
    pub sampling: SamplingConfig,
    /// The reward that says whether an answer is right. Default `accuracy`.
    pub reward: String,
    /// The least score of that reward at which an answer is right. Default 1.
    pub threshold: f64,
    /// Where the samples' randomness comes from. Default 0.
    pub seed: u64,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            samples: 0,
            k: Vec::new(),
            maj: Vec::new(),
            sampling: SamplingConfig::default(),
            reward: "accuracy".into(),
            threshold: 1.0,
            seed: 0,
        }
    }
}

/// A mean over problems.
///
/// The standard error is that of problems drawn at random, `sqrt(s^2 / n)` with the sample variance
/// `s^2` of the `n` problems' values; 0 if there is one problem. With several samples of a problem
/// its value is their mean, so that samples of one problem do not count as independent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl Estimate {
    /// `None` without values.
    fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_error = match values.len() {
            0 => return None,
            1 => 0.0,
            _ => (squares / (count - 1.0) / count).sqrt(),
        };
        Some(Self {
            mean,
            standard_error,
        })
    }
}

/// The mean total reward and the mean of each reward of scored completions, by name. Completions
/// without a score are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RewardEstimates {
    /// The weighted total; `None` if no completion has one.
    pub total: Option<Estimate>,
    /// Each reward that scored a completion.
    pub rewards: BTreeMap<String, Estimate>,
}

impl RewardEstimates {
    fn of(buffer: &RolloutBuffer, names: &[&str]) -> Self {
        let estimate = |score: &dyn Fn(&Rollout) -> Option<f64>| {
            let each = buffer.groups.iter().filter_map(|group| {
                let scores: Vec<f64> = group.rollouts.iter().filter_map(score).collect();
                Estimate::of(&scores).map(|scores| scores.mean)
            });
            Estimate::of(&each.collect::<Vec<_>>())
        };
        let rewards = names.iter().filter_map(|name| {
            let found = estimate(&|rollout| rollout.score(name))?;
            Some((name.to_string(), found))
        });
        Self {
            total: estimate(&|rollout| rollout.reward),
            rewards: rewards.collect(),
        }
    }

    /// The numbers as metrics whose names begin with `place`.
    fn metrics(&self, place: &str) -> impl Iterator<Item = (String, f64)> {
        let total = self.total.map(|total| (format!("{place}reward"), total));
        let rewards = self.rewards.iter();
        let rewards = rewards.map(move |(name, found)| (format!("{place}rewards/{name}"), *found));
        total.into_iter().chain(rewards).flat_map(|(name, found)| {
            [
                (format!("{name}/mean"), found.mean),
                (format!("{name}/standard_error"), found.standard_error),
            ]
        })
    }
}

/// The result of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Share of the problems solved by greedy decoding.
    pub accuracy: f64,
    /// The standard error of `accuracy`, see [`Estimate`].
    #[serde(default)]
    pub accuracy_standard_error: f64,
    /// Mean completion length of greedy decoding, in tokens.
    pub mean_length: f64,
    /// Share of the samples that are right; `None` without samples.
    pub pass_at_1: Option<f64>,
    /// The standard error of `pass_at_1`, see [`Estimate`].
    #[serde(default)]
    pub pass_at_1_standard_error: Option<f64>,
    /// `(k, pass@k)` for each k asked for.
    pub pass_at_k: Vec<(usize, f64)>,
    /// `(n, maj@n)` for each n asked for: the share of problems of which the most frequent answer
    /// among the first n samples is right. Of equally frequent ones the first counts. Answers are
    /// equal if their texts are: what [`Extractor`](crate::reward::Extractor) finds, or the
    /// whole completion.
    #[serde(default)]
    pub maj_at_n: Vec<(usize, f64)>,
    /// The rewards of the greedy completions.
    #[serde(default)]
    pub greedy_rewards: RewardEstimates,
    /// The rewards of the sampled completions; empty without samples.
    #[serde(default)]
    pub sampled_rewards: RewardEstimates,
    /// The same for the problems of each [domain](crate::types::Problem::domain); empty if no
    /// problem has one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<String, DomainEvaluation>,
    /// The greedy completion of every problem, scored.
    pub greedy: RolloutBuffer,
    /// The sampled completions of every problem, scored; empty without samples.
    #[serde(default)]
    pub sampled: RolloutBuffer,
}

/// The result of an evaluation for the problems of one domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainEvaluation {
    /// The number of problems.
    pub problems: usize,
    /// Share of the problems solved by greedy decoding.
    pub accuracy: f64,
    /// Mean completion length of greedy decoding, in tokens.
    pub mean_length: f64,
    /// Share of the samples that are right; `None` without samples.
    pub pass_at_1: Option<f64>,
    /// `(k, pass@k)` for each configured k.
    pub pass_at_k: Vec<(usize, f64)>,
}

impl Evaluation {
    /// Returns the metrics by name, without `eval/`: `accuracy`, `mean_length`, `pass@1`, `pass@k`,
    /// and the same for each domain as `domains/<domain>/accuracy` and so on.
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
        metrics.push((
            "accuracy/standard_error".into(),
            self.accuracy_standard_error,
        ));
        if let Some(error) = self.pass_at_1_standard_error {
            metrics.push(("pass@1/standard_error".into(), error));
        }
        for (n, value) in &self.maj_at_n {
            metrics.push((format!("maj@{n}"), *value));
        }
        metrics.extend(self.greedy_rewards.metrics(""));
        metrics.extend(self.sampled_rewards.metrics("sampled/"));
        metrics
    }
}

/// Estimates pass@k without bias from `n` samples of which `c` are right (Chen et al., arXiv
/// 2107.03374, eq. 1).
///
/// ```text
/// pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1..n} (1 - k / i)
/// ```
///
/// # Errors
/// Returns an error unless `c <= n` and `1 <= k <= n`.
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

/// Evaluates `policy` on `problems`. Completions are limited as in `generation`, whose sampling is
/// not used.
///
/// # Errors
/// Returns an error if the configuration is invalid, a prompt cannot be tokenised, there are no
/// problems, or generation fails.
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

/// How the problems of an evaluation are answered.
pub(super) struct Players<'a> {
    /// The learners that share the problems.
    pub learners: &'a LearnerGroup,
    /// Runs episodes of several turns; `None` for single completions.
    pub agent_loop: Option<&'a AgentLoop>,
}

/// [`evaluate`], with several learners and an agent loop.
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
    if let Some(&n) = config.maj.iter().find(|&&n| n == 0 || n > config.samples) {
        let range = format!("1 to samples = {}", config.samples);
        return Err(Error::config("evaluation.maj", n, range));
    }
    if !config.threshold.is_finite() {
        let expected = "a finite number";
        return Err(Error::config(
            "evaluation.threshold",
            config.threshold,
            expected,
        ));
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
                None => RolloutRequest::new(problem.clone(), tokenizer, 1, address),
                // The environment supplies the prompt.
                Some(_) => Ok(RolloutRequest {
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
        let generation = GenerationConfig {
            sampling,
            weights: WeightFormat::Trained,
            ..generation.clone()
        };
        let engine = &mut LocalEngine;
        let mut own = || {
            let mut all = RolloutBuffer::new();
            for block in learners.own_blocks(questions.len()) {
                let questions = &questions[block];
                let mut buffer = match agent_loop {
                    None => sample_rollouts(engine, policy, 0, tokenizer, questions, &generation)?,
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
    let is_right = |rollout: &Rollout| {
        let score = rollout.score(&config.reward);
        score.is_some_and(|score| score >= config.threshold)
    };
    let right = |buffer: &RolloutBuffer| -> Vec<usize> {
        let count = |group: &RolloutGroup| group.rollouts.iter().filter(|r| is_right(r)).count();
        buffer.groups.iter().map(count).collect()
    };

    let greedy = answer(1, SamplingConfig::greedy())?;
    let (counts, sampled) = match config.samples {
        0 => (None, RolloutBuffer::new()),
        samples => {
            let sampled = answer(samples, config.sampling)?;
            (Some(right(&sampled)), sampled)
        }
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
    let standard_error = |counts: &[usize], of: usize| {
        let shares: Vec<f64> = counts.iter().map(|&c| c as f64 / of as f64).collect();
        Estimate::of(&shares).map(|shares| shares.standard_error)
    };
    let sampled_right = answers.counts.as_deref();
    let maj_at_n = config.maj.iter().map(|&n| {
        let right = |group: &&RolloutGroup| is_right(majority(&group.rollouts[..n]));
        let right = sampled.groups.iter().filter(right).count();
        (n, right as f64 / problems.len() as f64)
    });
    Ok(Evaluation {
        accuracy,
        accuracy_standard_error: standard_error(&answers.right, 1).unwrap_or(0.0),
        mean_length,
        pass_at_1,
        pass_at_1_standard_error: sampled_right
            .and_then(|counts| standard_error(counts, config.samples)),
        pass_at_k,
        maj_at_n: maj_at_n.collect(),
        greedy_rewards: RewardEstimates::of(&greedy, &known),
        sampled_rewards: RewardEstimates::of(&sampled, &known),
        domains: domains.collect::<Result<_>>()?,
        greedy,
        sampled,
    })
}

/// The first of the rollouts, at least one, with the most frequent answer.
fn majority(rollouts: &[Rollout]) -> &Rollout {
    #[cfg(feature = "math")]
    let answer = |rollout: &Rollout| {
        let found = crate::reward::Extractor::default().extract(&rollout.text);
        found.map_or_else(
            || rollout.text.trim().into(),
            |found| found.all().to_string(),
        )
    };
    #[cfg(not(feature = "math"))]
    let answer = |rollout: &Rollout| rollout.text.trim().to_string();
    let mut votes: Vec<(String, usize, &Rollout)> = Vec::new();
    for rollout in rollouts {
        let answer = answer(rollout);
        match votes.iter_mut().find(|(other, ..)| *other == answer) {
            Some((_, count, _)) => *count += 1,
            None => votes.push((answer, 1, rollout)),
        }
    }
    let most = votes.iter().map(|&(_, count, _)| count).max();
    let winner = votes.iter().find(|&&(_, count, _)| Some(count) == most);
    winner.map_or(&rollouts[0], |&(_, _, rollout)| rollout)
}

/// The graded answers to each problem.
struct Answers<'a> {
    config: &'a EvaluationConfig,
    /// 1 where the greedy completion is right, 0 elsewhere.
    right: Vec<usize>,
    /// The lengths of the greedy completions, in tokens.
    lengths: Vec<usize>,
    /// The number of right samples; `None` without samples.
    counts: Option<Vec<usize>>,
}

impl Answers<'_> {
    /// Averages over the problems with the indices `own`.
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
    fn estimates_by_hand() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[2.0]).unwrap().standard_error, 0.0);
        // Mean 2, sample variance 4 / 3 of 4 values.
        let four = Estimate::of(&[1.0, 1.0, 3.0, 3.0]).unwrap();
        assert_eq!(four.mean, 2.0);
        assert!((four.standard_error - (1f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn majority_takes_the_most_frequent_answer_and_breaks_ties_by_order() {
        let rollout = |text: &str| Rollout::new(vec![1], vec![-1.0], text.to_string());
        let all = ["b", "a", " a", "b", "c", "a"].map(rollout);
        assert_eq!(majority(&all).text, "a");
        assert_eq!(majority(&all[..4]).text, "b");
        assert_eq!(majority(&all[4..5]).text, "c");
    }

    #[test]
    fn pass_at_k_agrees_with_counting() {
        // n = 5, c = 2, k = 2: of the 10 pairs, 3 hold two wrong samples.
        assert!((pass_at_k(5, 2, 2).unwrap() - 0.7).abs() < 1e-12);
        assert!((pass_at_k(10, 3, 1).unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(pass_at_k(4, 0, 4).unwrap(), 0.0);
        assert_eq!(pass_at_k(4, 3, 2).unwrap(), 1.0);
        assert!(pass_at_k(4, 1, 5).is_err() && pass_at_k(4, 5, 1).is_err());
        assert!(pass_at_k(4, 1, 0).is_err());
    }
}
