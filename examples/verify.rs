//! Looks at a data set as the mathematics reward would: what it finds in each response, and whether
//! that is the gold.
//!
//! `cargo run --release --example verify -- FILE.jsonl [--json]`
//!
//! A line of the file is an object with `gold` and either `answer`, which is compared as it is, or
//! `response`, in which the answer is looked for first, by every rule in the documented order.
//! Fields that change a line: `extract` (`number`, `bracket`, `mcq`, or the name of a rule such as
//! `boxed`), `precision` (decimals), `strict` (whether names of variables matter). Other fields are
//! ignored, blank lines are skipped.
//!
//! With `--json` there is one object on the standard output for every line, in order:
//! `{"verdict", "extracted", "rule", "reason", "micros"}`. The verdict is `equal`, `different` or
//! `undecided`; `extracted` and `rule` are null if there was nothing to extract or nothing was
//! found. The summary goes to the standard error.
//!
//! A line that cannot be read has the verdict `error`, its reason begins with the file and the
//! line, and it is repeated on the standard error. The others are judged all the same; the exit
//! status is then 1. A gold that is empty or cannot be what `extract` says is `undecided`: nothing
//! could be right.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rlvr::Error;
use rlvr::reward::{ExtractConfig, MathReward, MathRewardConfig, Rule};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says for every line of a JSON Lines file whether the answer is the gold, and why.
#[derive(Parser)]
struct Arguments {
    /// Objects with `gold` and `answer` or `response`, one a line.
    file: PathBuf,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

/// The fields of a line that are texts, or numbers that stand for their text: data sets have both.
struct Texts {
    gold: String,
    answer: Option<String>,
    response: Option<String>,
}

impl Texts {
    /// Numbers are taken as they are written: a parsed one would lose digits.
    fn read(line: &str) -> Result<Self, String> {
        let mut texts = HashMap::new();
        let mut rest = line.trim_start().strip_prefix('{').unwrap_or_default();
        // The line is an object, so that keys and values take turns.
        while let Some((key, after)) = first_value(rest) {
            let after = after.trim_start().strip_prefix(':').unwrap_or_default();
            let Some((value, after)) = first_value(after) else {
                break;
            };
            rest = after.trim_start().strip_prefix(',').unwrap_or_default();
            let key: String = serde_json::from_str(key).map_err(|error| error.to_string())?;
            if !["gold", "answer", "response"].contains(&key.as_str()) {
                continue;
            }
            let text = match value.as_bytes().first() {
                Some(b'"') => serde_json::from_str(value).map_err(|error| error.to_string())?,
                Some(b'-' | b'0'..=b'9') => value.to_string(),
                _ if value == "null" && key != "gold" => continue,
                _ => {
                    let value = shortened(value);
                    return Err(format!("`{key}` is {value}; expected a text or a number"));
                }
            };
            texts.insert(key, text);
        }
        let gold = texts.remove("gold");
        Ok(Self {
            gold: gold.ok_or("no field `gold`; expected a text or a number")?,
            answer: texts.remove("answer"),
            response: texts.remove("response"),
        })
    }
}

/// The JSON value that a text begins with, as written, and what follows it.
fn first_value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(text.split_at(values.byte_offset()))
}

#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
struct Options {
    extract: Option<String>,
    precision: Option<u32>,
    strict: Option<bool>,
}

/// What is said about a line.
#[derive(Serialize)]
struct Report {
    verdict: &'static str,
    extracted: Option<String>,
    rule: Option<Rule>,
    reason: String,
    micros: u64,
}

/// The rewards of the options met so far; most files have one.
#[derive(Default)]
struct Judge {
    rewards: HashMap<Options, MathReward>,
}

impl Judge {
    fn line(&mut self, text: &str) -> Result<Report, String> {
        let options: Options = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Texts {
            gold,
            answer,
            response,
        } = Texts::read(text)?;
        if !self.rewards.contains_key(&options) {
            let reward = reward(&options)?;
            self.rewards.insert(options.clone(), reward);
        }
        let reward = &self.rewards[&options];
        let start = Instant::now();
        let (extracted, comparison) = match (answer, response) {
            (Some(answer), None) => (None, reward.verifier().compare(&gold, &answer)),
            (None, Some(response)) => match reward.judge(&gold, &response) {
                Ok(judged) => (judged.extracted, judged.comparison),
                Err(error) => return Ok(Report::new("undecided", error.to_string(), start)),
            },
            _ => return Err("expected either `answer` or `response`".into()),
        };
        let mut report = Report::new(comparison.verdict.name(), comparison.reason, start);
        if let Some(found) = extracted {
            report.extracted = Some(found.all().to_string());
            report.rule = Some(found.rule);
        }
        Ok(report)
    }
}

/// The reward of these options: every rule unless one is asked for.
fn reward(options: &Options) -> Result<MathReward, String> {
    let mut config = MathRewardConfig {
        extract: ExtractConfig::default(),
        ..MathRewardConfig::default()
    };
    match options.extract.as_deref() {
        None => {}
        Some("number") => config.extract.rules = vec![Rule::LastNumber],
        // Where no bracket stands, as usual.
        Some("bracket") => config.extract.rules.insert(0, Rule::Bracket),
        Some(name) => {
            let rule = serde_json::from_value(Value::from(name));
            let rule = rule.map_err(|error| format!("`extract`: {error}"))?;
            config.extract.rules = vec![rule];
        }
    }
    if let Some(precision) = options.precision {
        config.math.precision = precision;
    }
    if let Some(strict) = options.strict {
        config.math.strict = strict;
    }
    MathReward::new(config).map_err(|error| error.to_string())
}

impl Report {
    fn new(verdict: &'static str, reason: String, start: Instant) -> Self {
        Self {
            verdict,
            extracted: None,
            rule: None,
            reason,
            micros: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn row(&self, number: usize) -> String {
        let rule = self.rule.map_or("-", Rule::name);
        let found = self.extracted.as_deref().map_or("-".into(), shortened);
        let reason = shortened(&self.reason);
        let verdict = self.verdict;
        format!("{number:>6}  {verdict:<10}{rule:<17}{found:<32}  {reason}")
    }
}

/// A text on one line, cut to what a table has room for.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut short: String = text.chars().take(LONGEST).collect();
    short = short.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    short
}

/// How many of what there were.
#[derive(Default)]
struct Summary {
    lines: usize,
    verdicts: BTreeMap<&'static str, usize>,
    rules: BTreeMap<&'static str, usize>,
    slowest: (u64, usize),
}

impl Summary {
    fn add(&mut self, report: &Report, number: usize) {
        self.lines += 1;
        *self.verdicts.entry(report.verdict).or_default() += 1;
        if let Some(rule) = report.rule {
            *self.rules.entry(rule.name()).or_default() += 1;
        }
        self.slowest = self.slowest.max((report.micros, number));
    }

    fn text(&self, elapsed: Duration) -> String {
        let list = |counts: &BTreeMap<&str, usize>| {
            let each = counts.iter().map(|(name, count)| format!("{name} {count}"));
            each.collect::<Vec<_>>().join(", ")
        };
        let mut text = format!("{} lines: {}", self.lines, list(&self.verdicts));
        if !self.rules.is_empty() {
            text += &format!("\nextracted by: {}", list(&self.rules));
        }
        let (micros, number) = self.slowest;
        let millis = elapsed.as_secs_f64() * 1e3;
        text + &format!("\n{millis:.1} ms in all; the slowest, line {number}, {micros} us")
    }
}

fn run(arguments: &Arguments) -> rlvr::Result<bool> {
    let path = arguments.file.as_path();
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut judge = Judge::default();
    let mut summary = Summary::default();
    let started = Instant::now();
    for (index, text) in BufReader::new(file).split(b'\n').enumerate() {
        let text = text.map_err(|error| Error::io(path, error))?;
        let number = index + 1;
        // Files of some editors begin with a byte order mark.
        let text = match text.strip_prefix("\u{feff}".as_bytes()) {
            Some(rest) if index == 0 => rest,
            _ => &text,
        };
        if text.trim_ascii().is_empty() {
            continue;
        }
        let read = str::from_utf8(text).map_err(|error| error.to_string());
        let report = read.and_then(|text| judge.line(text));
        let report = report.unwrap_or_else(|reason| broken(path, number, reason));
        summary.add(&report, number);
        let line = if arguments.json {
            serde_json::to_string(&report).expect("texts and numbers")
        } else {
            report.row(number)
        };
        writeln!(out, "{line}").map_err(|error| Error::io("standard output", error))?;
    }
    let text = summary.text(started.elapsed());
    if arguments.json {
        eprintln!("{text}");
    } else {
        writeln!(out, "{text}").map_err(|error| Error::io("standard output", error))?;
    }
    out.flush()
        .map_err(|error| Error::io("standard output", error))?;
    Ok(!summary.verdicts.contains_key("error"))
}

/// The report on a line that cannot be read.
fn broken(path: &Path, line: usize, reason: String) -> Report {
    let error = Error::Data {
        path: path.to_path_buf(),
        line,
        reason,
    };
    eprintln!("{error}");
    Report::new("error", error.to_string(), Instant::now())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(line: &str) -> Result<&'static str, String> {
        Judge::default().line(line).map(|report| report.verdict)
    }

    #[test]
    fn numbers_are_compared_digit_by_digit() {
        let big = "123456789012345678901234567890";
        let line = |gold: &str, answer: &str| format!(r#"{{"gold": {gold}, "answer": {answer}}}"#);
        assert_eq!(verdict(&line(big, &format!("\"{big}\""))), Ok("equal"));
        assert_eq!(verdict(&line(big, big)), Ok("equal"));
        let next = "123456789012345678901234567891";
        assert_eq!(verdict(&line(big, next)), Ok("different"));
        assert_eq!(verdict(&line("0.10", "\"1/10\"")), Ok("equal"));
        assert_eq!(verdict(&line("1e3", "\"1000\"")), Ok("equal"));
    }

    #[test]
    fn what_is_neither_text_nor_number_is_named() {
        for (line, message) in [
            (
                r#"{"gold": null, "answer": "5"}"#,
                "`gold` is null; expected a text or a number",
            ),
            (
                r#"{"gold": "5", "answer": [5]}"#,
                "`answer` is [5]; expected a text or a number",
            ),
            (
                r#"{"answer": "5"}"#,
                "no field `gold`; expected a text or a number",
            ),
            (r#"{"gold": "5"}"#, "expected either `answer` or `response`"),
            (
                r#"{"gold": "5", "answer": "5", "response": "5"}"#,
                "expected either `answer` or `response`",
            ),
        ] {
            assert_eq!(verdict(line), Err(message.into()), "{line}");
        }
        assert!(verdict(r#"{"gold": "5", "answer": "5", "precision": "x"}"#).is_err());
        assert!(verdict("[]").is_err());
        let nested = r#" {"more": {"gold": 7, "a": "}"}, "gold": "5", "answer": null, "response": "\\boxed{5}"} "#;
        assert_eq!(verdict(nested), Ok("equal"));
    }
}
