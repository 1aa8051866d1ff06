//! Rejection sampling: a policy's own completions, filtered, as demonstrations.

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
use crate::rollout::{GenerationConfig, Question, RolloutEngine, answer};
use crate::types::{Problem, Rollout, RolloutGroup};
use crate::{Error, Result, random};

/// The domain separator of the random streams.
const REJECTION: u64 = 0x5245_4A45_4354_0000;

/// How completions are sampled and which are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RejectionConfig {
    /// Completions of each problem. Default 8.
    pub samples: usize,
    /// The smallest total reward of a completion that is kept. Default 1.
    pub min_reward: f64,
    /// The most completions of a problem that are kept, the first that pass. Default: all.
    pub most_per_problem: Option<usize>,
    /// Reject completions whose text another kept completion of the problem has. Default true.
    pub deduplicate: bool,
    /// Reject problems that share this many consecutive words with a text to be kept out ([`RejectionSampler::keep_out`]).
    /// Default 10.
    pub ngram: usize,
    /// Keep as many completions of each problem as would be kept, but chosen at random: the control that tells what the
    /// selection is worth. Default false.
    pub random_control: bool,
    /// Problems that are generated together. Default 16.
    pub batch: usize,
    /// Where the randomness comes from. Default 0.
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
    /// [`Error::Config`] naming the field, its value and what would be right.
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

/// A completion that was kept: a line of the file.
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

/// What was kept and what was not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectionReport {
    /// Problems that were looked at.
    pub problems: usize,
    /// Completions that were sampled.
    pub sampled: usize,
    /// Completions that were kept.
    pub kept: usize,
    /// Completions that were rejected, by reason: `contaminated`, `unscored`, `truncated`, `reward`, the names of the rules, `duplicate`,
    /// `surplus`.
    pub rejected: BTreeMap<String, usize>,
}

/// A named condition of a completion that is kept.
type Rule = (
    String,
    Arc<dyn Fn(&Problem, &Rollout) -> bool + Send + Sync>,
);

/// Samples completions and keeps those that pass, as DeepSeek-R1 made its supervised data (arXiv 2501.12948, section 2.3.3).
///
/// A completion is kept if its problem is not contaminated, it was scored and not cut off, its total reward suffices, every
/// rule holds, and no other has the same text. The kept ones are appended to a JSON Lines file ([`KeptCompletion`]), a batch at a time, each
/// batch followed by a line with the report so far: a run that was stopped goes on behind its last whole batch.
#[derive(Clone)]
pub struct RejectionSampler {
    config: RejectionConfig,
    rules: Vec<Rule>,
    kept_out: HashSet<Vec<String>>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Kept(KeptCompletion),
    Report { report: RejectionReport },
}

impl RejectionSampler {
    /// A sampler without rules.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn new(config: RejectionConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            config,
            rules: Vec::new(),
            kept_out: HashSet::new(),
        })
    }

    /// The same with one more condition, by the name that rejections are counted under.
    #[must_use]
    pub fn rule(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&Problem, &Rollout) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rules.push((name.into(), Arc::new(holds)));
        self
    }

    /// The same with texts, such as the prompts of held-out problems, whose n-grams of words no problem may have.
    #[must_use]
    pub fn keep_out<'a>(mut self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        for text in texts {
            self.kept_out.extend(ngrams(text, self.config.ngram));
        }
        self
    }

    /// Samples completions of `problems` and appends those that are kept to `file`. If the file holds part of such a run, goes on behind it.
    ///
    /// # Errors
    /// If generation fails, or the file cannot be read or written, or is no such file.
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
                    Question::new(problem.clone(), tokenizer, samples, address)?,
                ));
            }
            let (indices, questions): (Vec<usize>, Vec<Question>) = questions.into_iter().unzip();
            let mut rollouts = answer(engine, policy, 0, tokenizer, &questions, generation)?;
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

    /// The completions of a group that are kept.
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

    /// Why a completion by itself is rejected.
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

/// Every run of `count` words, in lower case and without punctuation around them. A shorter text is one run.
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

/// The state at the end of the last whole batch of `path`; what follows it is cut off.
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
        // The last line may have been cut off.
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

/// The completions of a file that [`RejectionSampler::run`] wrote.
///
/// # Errors
/// If the file cannot be read or is no such file.
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
