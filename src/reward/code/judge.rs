//! Runs a program against its tests and compares the results, in this process or in one without the
//! program.

use std::time::{Duration, Instant};

use rlvr_sandbox::{Stdio, Timeout, pipe};
use serde_json::{Value, json};

use super::output::{same_output, same_value};
use super::suite::{Asserts, Call, Stream};
use super::{Cases, Command, Exit, Folder, Language, Sandbox, Suite};
use crate::reward::RewardError;

/// The script that loads the program and calls its functions.
const DRIVER: &str = concat!(
    include_str!("python/values.py"),
    include_str!("python/driver.py")
);
/// The script that runs assertions and sends their calls to a driver.
const CHECKER: &str = concat!(
    include_str!("python/values.py"),
    include_str!("python/checker.py")
);
const DRIVER_FILE: &str = "driver.py";
const CHECKER_FILE: &str = "checker.py";

/// The outcome of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// Whether the program passed the test.
    pub passed: bool,
    /// The reason for the failure, for humans; empty if the test passed.
    pub reason: String,
}

impl TestOutcome {
    fn new(passed: bool, reason: impl FnOnce() -> String) -> Self {
        Self {
            passed,
            reason: if passed { String::new() } else { reason() },
        }
    }

    fn failed(reason: impl Into<String>) -> Self {
        Self::new(false, || reason.into())
    }
}

/// The settings of a test run.
pub(super) struct Judge<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) language: &'a Language,
    pub(super) tolerance: f64,
    /// Whether to stop at the first failure.
    pub(super) stops: bool,
    /// The end of the time for all tests.
    pub(super) deadline: Instant,
}

impl Judge<'_> {
    /// Returns one outcome for each test, in order.
    pub(super) fn judge(
        &self,
        program: &str,
        suite: &Suite,
    ) -> Result<Vec<TestOutcome>, RewardError> {
        let folder = self.sandbox.folder()?;
        let source = match suite.prelude.is_empty() {
            true => program.to_string(),
            false if self.language.functions => {
                let (imports, rest) = split_future_imports(program);
                format!("{imports}{}\n{rest}", suite.prelude)
            }
            false => format!("{}\n{program}", suite.prelude),
        };
        folder.write(&self.language.file, source.as_bytes())?;
        let mut cases = match self.compile(&folder)? {
            Some(reason) => vec![TestOutcome::failed(reason); suite.len()],
            None => match &suite.cases {
                Cases::Streams(streams) => self.streams(&folder, streams)?,
                Cases::Calls(calls) => self.calls(&folder, calls)?,
                Cases::Asserts(asserts) => self.asserts(&folder, suite, asserts)?,
            },
        };
        let reason = match cases.iter().all(|case| case.passed) {
            true => "not run: the time for all tests was up",
            false => "not run",
        };
        cases.resize(suite.len(), TestOutcome::failed(reason));
        Ok(cases)
    }

    /// Compiles the program if the language needs it. Returns the reason if that fails.
    fn compile(&self, folder: &Folder) -> Result<Option<String>, RewardError> {
        let Some(words) = &self.language.compile else {
            return Ok(None);
        };
        let command = self.language.command(words, folder).may_write_files();
        let ran = folder.run(&command)?;
        if ran.exit == Exit::Status(0) {
            return Ok(None);
        }
        let reason = ended(ran.exit, &ran.stderr);
        Ok(Some(format!("it does not compile: {reason}")))
    }

    fn is_over(&self, cases: &[TestOutcome]) -> bool {
        let decided = self.stops && cases.iter().any(|case| !case.passed);
        decided || Instant::now() >= self.deadline
    }

    fn streams(
        &self,
        folder: &Folder,
        streams: &[Stream],
    ) -> Result<Vec<TestOutcome>, RewardError> {
        let mut cases = Vec::new();
        let command = self.language.command(&self.language.run, folder);
        for stream in streams {
            if self.is_over(&cases) {
                break;
            }
            let ran = folder.run(&command.clone().input(stream.input.as_bytes()))?;
            cases.push(match (ran.exit, std::str::from_utf8(&ran.stdout)) {
                (Exit::Status(0), Ok(output)) => {
                    let same = same_output(&stream.output, output, self.tolerance);
                    TestOutcome::new(same, || "wrong output".into())
                }
                (Exit::Status(0), Err(_)) => TestOutcome::failed("the output is not valid UTF-8"),
                (other, _) => TestOutcome::failed(ended(other, &ran.stderr)),
            });
        }
        Ok(cases)
    }

    /// The interpreter with a script of this crate.
    fn script(&self, folder: &Folder, script: &str, argument: &str, tests: usize) -> Command {
        let interpreter = self.language.run.first().cloned().unwrap_or_default();
        let command = Command::new(interpreter)
            .argument(folder.path(script))
            .argument(argument)
            .cpu_factor(tests as u64 + 1);
        self.language.environment(command)
    }

    fn timeout(&self, lines: usize) -> Timeout {
        Timeout {
            wall: Duration::from_secs_f64(self.sandbox.config().wall_seconds),
            total: self.deadline.saturating_duration_since(Instant::now()),
            progress: Some((4, lines)),
        }
    }

    fn calls(&self, folder: &Folder, calls: &[Call]) -> Result<Vec<TestOutcome>, RewardError> {
        self.needs_functions()?;
        folder.write(DRIVER_FILE, DRIVER.as_bytes())?;
        let limit = self.sandbox.config().output_bytes as usize;
        let mut cases: Vec<TestOutcome> = Vec::new();
        while cases.len() < calls.len() && !self.is_over(&cases) {
            let left = &calls[cases.len()..];
            // The first request is answered once the program has been loaded; each call is sent
            // after the answer to the previous one.
            let mut requests = vec![line(&json!({"name": "__name__"}))];
            requests.extend(left.iter().map(request));
            let file = folder.path(&self.language.file);
            let command = self.script(folder, DRIVER_FILE, &file, left.len());
            let stdio = vec![
                (0, Stdio::Null),
                (1, Stdio::Null),
                (2, Stdio::Null),
                (3, Stdio::Dialogue(requests)),
                (4, Stdio::Capture { limit, kill: true }),
            ];
            let started = folder.spawn(&command, stdio)?;
            let (how, written) = started.wait(self.timeout(left.len() + 1))?;
            let answers = lines(&written, 4);
            if answers.is_empty() {
                let reason = format!("it was not loaded: {}", ended(how, b""));
                cases.resize(calls.len(), TestOutcome::failed(reason));
                break;
            }
            for (call, answer) in left.iter().zip(&answers[1..]) {
                cases.push(self.compare(call, answer));
            }
            if cases.len() < calls.len() && answers.len() <= left.len() {
                cases.push(TestOutcome::failed(format!(
                    "no value: {}",
                    ended(how, b"")
                )));
            }
        }
        Ok(cases)
    }

    fn compare(&self, call: &Call, answer: &Value) -> TestOutcome {
        if let Some(value) = answer.get("v") {
            let same = same_value(&call.expected, value, self.tolerance);
            return TestOutcome::new(same, || "wrong value".into());
        }
        TestOutcome::failed(match (answer.get("x"), answer.get("e"), answer.get("a")) {
            (Some(name), ..) => format!("it has no {name}"),
            (_, Some(kind), Some(text)) => format!("{kind}: {text}"),
            _ => "no value".into(),
        })
    }

    fn asserts(
        &self,
        folder: &Folder,
        suite: &Suite,
        asserts: &Asserts,
    ) -> Result<Vec<TestOutcome>, RewardError> {
        self.needs_functions()?;
        folder.write(DRIVER_FILE, DRIVER.as_bytes())?;
        // A separate folder and, when running as root, a separate user: the program cannot reach
        // the tests.
        let tests_folder = self.sandbox.folder()?;
        tests_folder.write(CHECKER_FILE, CHECKER.as_bytes())?;
        let mut setup = vec![suite.prelude.clone()];
        setup.extend(asserts.setup.iter().cloned());
        let mut cases: Vec<TestOutcome> = Vec::new();
        while cases.len() < asserts.tests.len() && !self.is_over(&cases) {
            let left = &asserts.tests[cases.len()..];
            let tests = json!({"setup": setup, "tests": left, "entry_point": asserts.entry_point});
            let Some(verdicts) = self.check(folder, &tests_folder, &tests, left.len())? else {
                let reason = TestOutcome::failed("it was not loaded, or not in time");
                cases.resize(asserts.tests.len(), reason);
                break;
            };
            for verdict in &verdicts {
                if let Some(reason) = verdict.get("broken") {
                    return Err(format!("the tests are invalid: {reason}").into());
                }
                let why = || verdict["why"].as_str().unwrap_or_default().to_string();
                cases.push(TestOutcome::new(verdict["pass"] == Value::Bool(true), why));
            }
            // If the program ended, the verdict on the test that ended it is the last one, and the
            // loop continues with a new process.
            let ended = verdicts.last().is_some_and(|last| last["dead"] == true);
            if verdicts.len() < left.len() && !ended {
                cases.push(TestOutcome::failed("not in time"));
            }
        }
        cases.truncate(asserts.tests.len());
        Ok(cases)
    }

    /// Returns the verdicts on the first tests, at least up to the end of the program; `None` if
    /// the program was not loaded.
    fn check(
        &self,
        folder: &Folder,
        tests_folder: &Folder,
        tests: &Value,
        count: usize,
    ) -> Result<Option<Vec<Value>>, RewardError> {
        let limit = self.sandbox.config().output_bytes as usize;
        let (asked, asks) = pipe()?;
        let (answers, answered) = pipe()?;
        let file = folder.path(&self.language.file);
        let program = self.script(folder, DRIVER_FILE, &file, count);
        let stdio = vec![
            (0, Stdio::Null),
            (1, Stdio::Null),
            (2, Stdio::Null),
            (3, Stdio::Pipe(asked)),
            (4, Stdio::Pipe(answered)),
        ];
        let program = folder.spawn(&program, stdio)?;
        let checker = self.script(tests_folder, CHECKER_FILE, "", count);
        let stdio = vec![
            (0, Stdio::Null),
            (1, Stdio::Null),
            (
                2,
                Stdio::Capture {
                    limit: 4096,
                    kill: false,
                },
            ),
            (3, Stdio::Input(line(tests))),
            (4, Stdio::Capture { limit, kill: true }),
            (5, Stdio::Pipe(asks)),
            (6, Stdio::Pipe(answers)),
        ];
        let checker = tests_folder.spawn(&checker, stdio)?;
        let (how, written) = checker.wait(self.timeout(count + 2))?;
        drop(program);
        let mut found = lines(&written, 4).into_iter();
        if found.next().is_none() {
            if Instant::now() >= self.deadline {
                return Ok(None);
            }
            let errors = written.iter().find(|(number, _)| *number == 2);
            let errors = errors.map_or(&b""[..], |(_, errors)| errors);
            return Err(format!("the checker did not start: {}", ended(how, errors)).into());
        }
        match found.next() {
            Some(broken) if broken.get("broken").is_some() => Ok(Some(vec![broken])),
            Some(loaded) if loaded["loaded"] == true => Ok(Some(found.collect())),
            _ => Ok(None),
        }
    }

    fn needs_functions(&self) -> Result<(), RewardError> {
        match self.language.functions {
            true => Ok(()),
            false => Err("the tests call functions, and the language is not Python".into()),
        }
    }
}

/// Splits a program into its `from __future__` imports, which Python requires first, and the rest.
fn split_future_imports(program: &str) -> (String, String) {
    let (mut imports, mut rest) = (String::new(), String::new());
    let mut lines = program.split_inclusive('\n');
    while let Some(line) = lines.next() {
        let text = line.trim_end();
        if text.starts_with("from __future__ import") {
            imports.push_str(line);
            // A list in parentheses may span several lines.
            let mut is_open = text.contains('(') && !text.contains(')');
            while is_open && let Some(line) = lines.next() {
                imports.push_str(line);
                is_open = !line.contains(')');
            }
            if !imports.ends_with('\n') {
                imports.push('\n');
            }
            continue;
        }
        rest.push_str(line);
        let quotes = ["\"\"\"", "'''"];
        if let Some(quotes) = quotes.into_iter().find(|quotes| text.starts_with(quotes)) {
            // Skip a docstring.
            let mut is_open = !text[quotes.len()..].contains(quotes);
            while is_open && let Some(line) = lines.next() {
                rest.push_str(line);
                is_open = !line.contains(quotes);
            }
        } else if !text.is_empty() && !text.starts_with('#') {
            break;
        }
    }
    rest.extend(lines);
    (imports, rest)
}

fn line(value: &Value) -> Vec<u8> {
    let mut text = value.to_string().into_bytes();
    text.push(b'\n');
    text
}

/// A call in the format of the driver.
fn request(call: &Call) -> Vec<u8> {
    let args: Vec<Value> = call.args.iter().map(tagged).collect();
    let kwargs: Vec<Value> = call
        .kwargs
        .iter()
        .map(|(name, value)| json!([name, tagged(value)]))
        .collect();
    line(&json!({"name": call.function, "args": args, "kwargs": kwargs}))
}

/// A JSON value in the format of `python/values.py`. Its depth is bounded by the JSON parser.
fn tagged(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => json!({"f": number.to_string()}),
        Value::Number(number) => json!({"i": number.to_string()}),
        Value::Array(list) => list.iter().map(tagged).collect(),
        Value::Object(map) => {
            let pairs: Vec<Value> = map
                .iter()
                .map(|(key, value)| json!([key, tagged(value)]))
                .collect();
            json!({"d": pairs})
        }
        other => other.clone(),
    }
}

/// The complete lines that were written to a descriptor, each parsed as JSON, or null if it is
/// invalid.
fn lines(written: &[(i32, Vec<u8>)], number: i32) -> Vec<Value> {
    let Some((_, bytes)) = written.iter().find(|(other, _)| *other == number) else {
        return Vec::new();
    };
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    // The text after the last line break is not a complete line.
    lines.pop();
    lines
        .into_iter()
        .map(|line| serde_json::from_slice(line).unwrap_or(Value::Null))
        .collect()
}

/// Describes how a program ended, with the last line of its errors.
fn ended(how: Exit, errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let last = text.trim().lines().next_back().unwrap_or_default();
    let last: String = last.chars().take(200).collect();
    let how = match how {
        Exit::Status(status) => format!("status {status}"),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
        Exit::WallLimit => "not in time".into(),
        Exit::OutputLimit => "too much output".into(),
        other => format!("ended: {other:?}"),
    };
    match last.is_empty() {
        true => how,
        false => format!("{how}: {last}"),
    }
}

/// The deadline of tests that may take `total` seconds.
pub(super) fn deadline(total: f64) -> Instant {
    Instant::now() + Duration::from_secs_f64(total)
}
