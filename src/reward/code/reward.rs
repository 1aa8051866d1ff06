//! The reward for a program that passes its tests.

use serde::{Deserialize, Serialize};

use super::judge::{Judge, TestOutcome, deadline};
use super::{Language, Sandbox, SandboxConfig, SandboxReport, Suite};
use crate::reward::setters::{with_extract, with_name};
use crate::reward::{ExtractConfig, Extractor, Reward, RewardError, RewardInput, Rule};
use crate::{Error, Result};

/// What tests that are passed come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scoring {
    /// 1 if all tests are passed, else 0; the first failure ends it. The default: a part of the tests is often passed by a
    /// program that answers always the same.
    #[default]
    AllOrNothing,
    /// The share of the tests that are passed.
    Fraction,
}

/// The settings of a [`CodeReward`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CodeConfig {
    /// The language. Default: [`Language::python`].
    pub language: Language,
    /// Limits, for each test, and measures of confinement.
    pub sandbox: SandboxConfig,
    /// What tests that are passed come to. Default: all or nothing.
    pub scoring: Scoring,
    /// How far numbers of an output or a value may be off, as a part of the larger of 1 and the expected number. Default: 0.
    pub tolerance: f64,
    /// Seconds for all tests of one completion, more than 0 and at most a day; what has not run then is not passed.
    /// Default: 60.
    pub total_seconds: f64,
}

impl Default for CodeConfig {
    fn default() -> Self {
        Self {
            language: Language::python(),
            sandbox: SandboxConfig::default(),
            scoring: Scoring::default(),
            tolerance: 0.0,
            total_seconds: 60.0,
        }
    }
}

/// Rewards a program that passes the tests of its problem: the program is the last fenced block of the language in the
/// completion, the tests are in the metadata (see [`Suite`]).
///
/// The score is that of [`Scoring`]. A completion without a program scores 0. A problem without tests, tests that cannot be
/// run, or a sandbox that does not work is an error, never a 0.
///
/// Programs take their time: give the set a [time limit](crate::reward::RewardSetBuilder::time_limit) above `total_seconds`.
/// What is guaranteed about the confinement and about the verdict is at the head of [`code`](super).
///
/// ```no_run
/// use rlvr::reward::code::{CodeConfig, CodeReward};
/// use rlvr::reward::{Reward, RewardInput};
/// use serde_json::json;
///
/// let reward = CodeReward::new(CodeConfig::default())?;
/// let input = RewardInput::new("Add two numbers.", "", "```python\ndef add(a, b):\n    return a + b\n```")
///     .with_metadata("tests", json!([
///         {"assert": "assert add(1, 2) == 3"},
///         {"assert": "assert add('a', 'b') == 'ab'"},
///     ]));
/// assert_eq!(reward.score(&input).unwrap(), Some(1.0));
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CodeReward {
    name: String,
    config: CodeConfig,
    extractor: Extractor,
    sandbox: Sandbox,
}

impl CodeReward {
    /// The reward called `code`, after a sandbox has been made and the language's trial program has been run in it.
    ///
    /// # Errors
    /// [`Error::Config`] if a setting makes no sense, a measure that is required cannot be had, or the trial fails - the
    /// interpreter is not there, or not readable in the sandbox; [`Error::Io`] if no folder can be made for the runs.
    pub fn new(config: CodeConfig) -> Result<Self> {
        if !(config.tolerance >= 0.0 && config.tolerance.is_finite()) {
            let expected = "0 or more, finite";
            return Err(Error::config("tolerance", config.tolerance, expected));
        }
        if !(config.total_seconds > 0.0 && config.total_seconds <= 86_400.0) {
            let expected = "more than 0 and at most 86,400 (a day)";
            return Err(Error::config(
                "total_seconds",
                config.total_seconds,
                expected,
            ));
        }
        let language = config.language.clone().resolved()?;
        let mut limits = config.sandbox.clone();
        limits.read_only.extend(language.read_only.iter().cloned());
        let sandbox = Sandbox::new(limits)?;
        let extractor = Extractor::new(ExtractConfig {
            languages: language.fences.clone(),
            ..ExtractConfig::with_rules([Rule::Code])
        })?;
        let reward = Self {
            name: "code".into(),
            config: CodeConfig { language, ..config },
            extractor,
            sandbox,
        };
        reward.try_language()?;
        Ok(reward)
    }

    /// Runs the trial program.
    fn try_language(&self) -> Result<()> {
        let language = &self.config.language;
        let stream = super::Stream {
            input: String::new(),
            output: "ok".into(),
        };
        let suite = Suite {
            prelude: String::new(),
            cases: super::Cases::Streams(vec![stream]),
        };
        let why = match self.judge(&language.trial, &suite) {
            Ok(cases) if cases.iter().all(|case| case.passed) => return Ok(()),
            Ok(cases) => cases.into_iter().map(|case| case.reason).collect(),
            Err(error) => error.to_string(),
        };
        let program = language.compile.as_ref().unwrap_or(&language.run);
        let program = program.first().map_or("", String::as_str);
        Err(Error::config(
            "language.run",
            format!("{program}: the trial program did not print \"ok\" in the sandbox ({why})"),
            "a program that an unprivileged user can read and execute (not below a private home folder such as /root), with \
             its libraries in `read_only`; for Python, `Language::python_at` finds them",
        ))
    }

    with_name!();
    with_extract!();

    /// Which measures of confinement are in force.
    pub fn report(&self) -> &SandboxReport {
        self.sandbox.report()
    }

    /// The settings; the commands begin with absolute paths.
    pub fn config(&self) -> &CodeConfig {
        &self.config
    }

    /// Runs a program against tests: what became of each, in order. With [`Scoring::AllOrNothing`] those after the first
    /// failure are not run.
    ///
    /// # Errors
    /// If the sandbox does not work, or the tests cannot be run.
    pub fn judge(&self, program: &str, suite: &Suite) -> Result<Vec<TestOutcome>, RewardError> {
        let judge = Judge {
            sandbox: &self.sandbox,
            language: &self.config.language,
            tolerance: self.config.tolerance,
            stops: self.config.scoring == Scoring::AllOrNothing,
            deadline: deadline(self.config.total_seconds),
        };
        judge.judge(program, suite)
    }
}

impl Reward for CodeReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        // First: broken tests are an error whatever the completion is.
        let suite = Suite::from_metadata(&input.problem.metadata)?;
        let Some(program) = self.extractor.extract(input.completion()) else {
            return Ok(Some(0.0));
        };
        let cases = self.judge(&program.text, &suite)?;
        let passed = cases.iter().filter(|case| case.passed).count();
        Ok(Some(match self.config.scoring {
            Scoring::AllOrNothing if passed == cases.len() => 1.0,
            Scoring::AllOrNothing => 0.0,
            Scoring::Fraction => passed as f64 / cases.len() as f64,
        }))
    }
}
