//! The reward for programs that pass their tests.

use serde::{Deserialize, Serialize};

use super::judge::{Judge, TestOutcome, deadline};
use super::{Cases, Language, Sandbox, SandboxConfig, SandboxReport, Stream, Suite};
use crate::reward::setters::{with_extract, with_name};
use crate::reward::{ExtractConfig, Extractor, Reward, RewardError, RewardInput, Rule};
use crate::{Error, Result};

/// How passed tests are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scoring {
    /// 1 if all tests pass, else 0; testing stops at the first failure. The default, since a
    /// program that always gives the same answer often passes some of the tests.
    #[default]
    AllOrNothing,
    /// The share of tests that pass.
    Fraction,
}

/// The settings of a [`CodeReward`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CodeConfig {
    /// The language. Default: [`Language::python`].
    pub language: Language,
    /// The limits for each test, and the measures of confinement.
    pub sandbox: SandboxConfig,
    /// How passed tests are scored. Default: all or nothing.
    pub scoring: Scoring,
    /// The tolerance for numbers in outputs and values, relative to the larger of 1 and the
    /// expected number. Default: 0.
    pub tolerance: f64,
    /// The time limit for all tests of one completion, in seconds, more than 0 and at most a day.
    /// Tests that have not run by then fail. Default: 60.
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

/// Scores a program by the tests of its problem. The program is the last fenced block of the
/// language in the completion; the tests are in the metadata (see [`Suite`]).
///
/// [`Scoring`] determines the score. A completion without a program scores 0.
///
/// Programs take time: give the set a [time limit](crate::reward::RewardSetBuilder::time_limit)
/// above `total_seconds`. The [module documentation](super) states the guarantees about confinement
/// and verdict.
///
/// ```no_run
/// use rlvr::reward::code::{CodeConfig, CodeReward};
/// use rlvr::reward::{Reward, RewardInput};
/// use serde_json::json;
///
/// let reward = CodeReward::new(CodeConfig::default())?;
/// let input = RewardInput::new(
///     "Add two numbers.",
///     "",
///     "```python\ndef add(a, b):\n    return a + b\n```",
/// )
/// .with_metadata(
///     "tests",
///     json!([
///         {"assert": "assert add(1, 2) == 3"},
///         {"assert": "assert add('a', 'b') == 'ab'"},
///     ]),
/// );
/// assert_eq!(reward.score(&input).unwrap(), Some(1.0));
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// # Errors
/// [`score`](Reward::score) returns an error if the problem has no tests, if the tests cannot be
/// run, or if the sandbox fails; it never scores 0 instead.
#[derive(Clone, Debug)]
pub struct CodeReward {
    name: String,
    config: CodeConfig,
    extractor: Extractor,
    sandbox: Sandbox,
}

impl CodeReward {
    /// Creates the reward `code`: sets up a sandbox and runs the trial program of the language in
    /// it.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a setting is invalid, if a required measure is not available,
    /// or if the trial program fails because the interpreter is missing or not readable in the
    /// sandbox. Returns [`Error::Io`] if no folder can be created for the runs.
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
        let stream = Stream {
            input: String::new(),
            output: "ok".into(),
        };
        let suite = Suite {
            prelude: String::new(),
            cases: Cases::Streams(vec![stream]),
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

    /// Returns the state of each measure of confinement.
    pub fn report(&self) -> &SandboxReport {
        self.sandbox.report()
    }

    /// Returns the settings, with the commands resolved to absolute paths.
    pub fn config(&self) -> &CodeConfig {
        &self.config
    }

    /// Runs a program against tests and returns the outcome of each, in order. With
    /// [`Scoring::AllOrNothing`] the tests after the first failure do not run.
    ///
    /// # Errors
    /// Returns an error if the sandbox fails or the tests cannot be run.
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
        // First the tests: invalid ones are an error regardless of the completion.
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
