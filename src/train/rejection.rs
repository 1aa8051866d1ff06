//! Rejection sampling: filtered completions of a policy as demonstrations.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::policy::PolicyModel;
use crate::prompt::Tokenizer;
use crate::reward::RewardSet;
use crate::rollout::{GenerationConfig, RolloutEngine, RolloutRequest, sample_rollouts};
use crate::types::{Problem, Rollout, RolloutGroup};
use crate::{Error, Result, random};

/// The domain separator of the random streams.
const REJECTION: u64 = 0x5245_4A45_4354_0000;

/// The settings of a [`RejectionSampler`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RejectionConfig {
    /// Completions per problem. Default 8.
    pub samples: usize,
    /// The minimum total reward. Default 1.
    pub min_reward: f64,
    /// The largest number of completions kept per problem; the first that pass are kept. Default:
    /// no limit.
    pub most_per_problem: Option<usize>,
    /// Rejects completions with the same text as a kept completion of the problem. Default true.
    pub deduplicate: bool,
    /// Rejects problems that share this many consecutive words with a text of
    /// [`RejectionSampler::keep_out`]. Default 10.
    pub ngram: usize,
    /// Keeps the same number of completions per problem, but chosen at random, as a control for the
    /// effect of the selection. Default false.
    pub random_control: bool,
    /// Problems per generation batch. Default 16.
    pub batch: usize,
    /// The random seed. Default 0.
    pub seed: u64,
}

impl Default for RejectionConfig {
    fn default() -> Self {
        Self {
            samples: 8,
            min_reward: 1.0,
            most_per_problem: None,
            deduplicate: true,
            ngram: 10,
            random_control: false,
            batch: 16,
            seed: 0,
        }
    }
}

impl RejectionConfig {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`], which names the field, its value and what is expected.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("samples", Some(self.samples)),
            ("most_per_problem", self.most_per_problem),
            ("ngram", Some(self.ngram)),
            ("batch", Some(self.batch)),
        ] {
            if value == Some(0) {
                return Err(Error::config(format!("rejection.{field}"), 0, "at least 1"));
            }
        }
        match self.min_reward.is_finite() {
            true => Ok(()),
            false => Err(Error::config(
                "rejection.min_reward",
                self.min_reward,
                "a finite number",
            )),
        }
    }
}

/// A kept completion: a line of the output file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptCompletion {
    /// The problem's prompt.
    pub question: String,
    /// The completion, without the stop token.
    pub response: String,
    /// The problem's reference answer.
    pub answer: String,
    /// The index of the problem.
    pub problem: usize,
    /// The index of the sample.
    pub sample: usize,
    /// The total reward.
    pub reward: f64,
}

/// The counts of kept and rejected completions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectionReport {
    /// Problems processed.
    pub problems: usize,
    /// Completions sampled.
    pub sampled: usize,
    /// Completions kept.
    pub kept: usize,
    /// Completions rejected, by reason: `contaminated`, `unscored`, `truncated`, `reward`, the
    /// names of the rules, `duplicate`, `surplus`.
    pub rejected: BTreeMap<String, usize>,
}

/// A named condition that kept completions must satisfy.
type Rule = (
    String,
    Arc<dyn Fn(&Problem, &Rollout) -> bool + Send + Sync>,
);

/// Samples completions and keeps those that pass all checks, as DeepSeek-R1 did for its supervised
/// data (arXiv 2501.12948, section 2.3.3).
///
/// A completion is kept if its problem is not contaminated, it is scored and not truncated, its
/// total reward is at least [`RejectionConfig::min_reward`], every rule holds, and no kept
/// completion has the same text. Kept completions are appended to a JSON Lines file
/// ([`KeptCompletion`]) in batches. Each batch ends with a line that contains the report so far, so
/// an interrupted run continues after its last complete batch. The file can be read as a
/// [`DemonstrationFile`](super::DemonstrationFile).
#[derive(Clone)]
pub struct RejectionSampler {
    config: RejectionConfig,
    rules: Vec<Rule>,
    kept_out: HashSet<Vec<String>>,
}

/// A line of the output file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Kept(KeptCompletion),
    Report { report: RejectionReport },
}

impl RejectionSampler {
    /// Creates a sampler without rules.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid.
    pub fn new(config: RejectionConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            config,
            rules: Vec::new(),
            kept_out: HashSet::new(),
        })
    }

    /// Adds a condition. Rejections are counted under `name`.
    #[must_use]
    pub fn rule(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&Problem, &Rollout) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rules.push((name.into(), Arc::new(holds)));
        self
    }

    /// Adds texts, such as the prompts of held-out problems. Problems that share an n-gram of words
    /// with one of them are rejected.
    #[must_use]
    pub fn keep_out<'a>(mut self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        for text in texts {
            self.kept_out.extend(ngrams(text, self.config.ngram));
        }
        self
    }

    /// Samples completions of `problems` and appends the kept ones to `file`. If the file contains
    /// a part of this run, continues after it.
    ///
    /// # Errors
    /// Returns an error if generation fails, or the file cannot be read or written or was not
    /// written by a rejection sampler.
    #[allow(clippy::too_many_arguments)]
    pub fn run<M: PolicyModel>(
        &self,
        engine: &mut dyn RolloutEngine<M>,
        policy: &M,
        tokenizer: &dyn Tokenizer,
        rewards: &RewardSet,
        problems: &[Problem],
        generation: &GenerationConfig,
        file: impl AsRef<Path>,
    ) -> Result<RejectionReport> {
        let path = file.as_ref();
        let mut report = resume(path)?;
        let mut out = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|e| Error::io(path, e))?;
        while report.problems < problems.len() {
            let first = report.problems;
            let last = (first + self.config.batch).min(problems.len());
            let mut questions = Vec::new();
            for (index, problem) in problems.iter().enumerate().take(last).skip(first) {
                if self.is_contaminated(problem) {
                    report.reject("contaminated", self.config.samples);
                    continue;
                }
                let address = [self.config.seed, REJECTION, index as u64];
                let samples = self.config.samples;
                questions.push((
                    index,
                    RolloutRequest::new(problem.clone(), tokenizer, samples, address)?,
                ));
            }
            let (indices, questions): (Vec<usize>, Vec<RolloutRequest>) =
                questions.into_iter().unzip();
            let mut rollouts =
                sample_rollouts(engine, policy, 0, tokenizer, &questions, generation)?;
            rewards.score_rollouts(&mut rollouts);
            let mut lines = Vec::new();
            for (index, group) in indices.into_iter().zip(&rollouts.groups) {
                for kept in self.select(index, group, &mut report) {
                    write_line(&mut lines, path, &Line::Kept(kept))?;
                }
            }
            report.problems = last;
            let state = Line::Report {
                report: report.clone(),
            };
            write_line(&mut lines, path, &state)?;
            out.write_all(&lines).map_err(|e| Error::io(path, e))?;
            out.sync_data().map_err(|e| Error::io(path, e))?;
        }
        Ok(report)
    }

    /// Returns the kept completions of a group.
    fn select(
        &self,
        index: usize,
        group: &RolloutGroup,
        report: &mut RejectionReport,
    ) -> Vec<KeptCompletion> {
        let problem = &group.problem;
        report.sampled += group.rollouts.len();
        let mut kept: Vec<&Rollout> = Vec::new();
        for rollout in &group.rollouts {
            let reason = self.refuse(problem, rollout).or_else(|| {
                let most = self.config.most_per_problem.unwrap_or(usize::MAX);
                let same = |other: &&Rollout| other.text == rollout.text;
                if self.config.deduplicate && kept.iter().any(same) {
                    return Some("duplicate".into());
                }
                (kept.len() >= most).then(|| "surplus".into())
            });
            match reason {
                Some(reason) => report.reject(&reason, 1),
                None => kept.push(rollout),
            }
        }
        if self.config.random_control {
            let mut all: Vec<&Rollout> = group.rollouts.iter().collect();
            let address = [self.config.seed, REJECTION, index as u64, u64::MAX];
            all.shuffle(&mut random::generator(&address));
            all.truncate(kept.len());
            kept = all;
        }
        report.kept += kept.len();
        kept.into_iter()
            .map(|rollout| KeptCompletion {
                question: problem.prompt.clone(),
                response: rollout.text.clone(),
                answer: problem.answer.clone(),
                problem: index,
                sample: rollout.sample,
                reward: rollout.total_reward().unwrap_or(f64::NAN),
            })
            .collect()
    }

    /// Returns the reason to reject a completion on its own, if any.
    fn refuse(&self, problem: &Problem, rollout: &Rollout) -> Option<String> {
        let Some(reward) = rollout.total_reward() else {
            return Some("unscored".into());
        };
        if rollout.is_truncated() {
            return Some("truncated".into());
        }
        if reward < self.config.min_reward {
            return Some("reward".into());
        }
        let broken = self
            .rules
            .iter()
            .find(|(_, holds)| !holds(problem, rollout));
        broken.map(|(name, _)| name.clone())
    }

    fn is_contaminated(&self, problem: &Problem) -> bool {
        let mut grams = ngrams(&problem.prompt, self.config.ngram);
        grams.any(|gram| self.kept_out.contains(&gram))
    }
}

impl RejectionReport {
    fn reject(&mut self, reason: &str, count: usize) {
        *self.rejected.entry(reason.into()).or_default() += count;
    }
}

/// Returns every n-gram of `count` words, in lower case and without surrounding punctuation. A
/// shorter text is one n-gram.
fn ngrams(text: &str, count: usize) -> impl Iterator<Item = Vec<String>> {
    let word = |word: &str| {
        let plain = word.trim_matches(|c: char| !c.is_alphanumeric());
        plain.to_lowercase()
    };
    let words: Vec<String> = text.split_whitespace().map(word).collect();
    let runs: Vec<Vec<String>> = match words.len() {
        0 => Vec::new(),
        few if few <= count => vec![words],
        _ => words.windows(count).map(<[String]>::to_vec).collect(),
    };
    runs.into_iter()
}

fn write_line(lines: &mut Vec<u8>, path: &Path, line: &Line) -> Result<()> {
    serde_json::to_writer(&mut *lines, line).map_err(|e| Error::io(path, e.into()))?;
    lines.push(b'\n');
    Ok(())
}

/// Returns the report at the end of the last complete batch of `path`, and truncates the file after
/// it.
fn resume(path: &Path) -> Result<RejectionReport> {
    let mut report = RejectionReport::default();
    if !path.exists() {
        return Ok(report);
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let (mut length, mut whole) = (0u64, 0u64);
    let mut reader = BufReader::new(file);
    let mut text = String::new();
    let mut number = 0;
    loop {
        text.clear();
        let read = reader
            .read_line(&mut text)
            .map_err(|e| Error::io(path, e))?;
        // The last line may be incomplete.
        if read == 0 || !text.ends_with('\n') {
            break;
        }
        number += 1;
        length += read as u64;
        match serde_json::from_str::<Line>(&text) {
            Ok(Line::Kept(_)) => {}
            Ok(Line::Report { report: found }) => (report, whole) = (found, length),
            Err(_) => {
                return Err(Error::Data {
                    path: path.to_path_buf(),
                    line: number,
                    reason: "not a line of a rejection sampling run; use a new file".into(),
                });
            }
        }
    }
    let file = OpenOptions::new().write(true).open(path);
    let cut = file.and_then(|file| file.set_len(whole));
    cut.map_err(|e| Error::io(path, e))?;
    Ok(report)
}

/// Reads the completions of a file that [`RejectionSampler::run`] wrote.
///
/// # Errors
/// Returns [`Error::Io`] if the file cannot be read, and [`Error::Data`] if a line has another
/// format.
pub fn read_kept(path: impl AsRef<Path>) -> Result<Vec<KeptCompletion>> {
    let path = path.as_ref();
    let file = BufReader::new(File::open(path).map_err(|e| Error::io(path, e))?);
    let mut kept = Vec::new();
    for (index, line) in file.lines().enumerate() {
        let line = line.map_err(|e| Error::io(path, e))?;
        match serde_json::from_str(&line) {
            Ok(Line::Kept(one)) => kept.push(one),
            Ok(Line::Report { .. }) => {}
            Err(e) => {
                return Err(Error::Data {
                    path: path.to_path_buf(),
                    line: index + 1,
                    reason: e.to_string(),
                });
            }
        }
    }
    Ok(kept)
}
