//! Looks at a data set as the mathematics reward would: what it finds in each response, and whether that is the gold.
//!
//! `cargo run --release --example verify -- FILE.jsonl [--json]`
//!
//! A line of the file is an object with `gold` and either `answer`, which is compared as it is, or `response`, in which the
//! answer is looked for first, by every rule in the documented order. Fields that change a line: `extract` (`number`,
//! `bracket`, `mcq`, or the name of a rule such as `boxed`), `precision` (decimals), `strict` (whether names of variables
//! matter). Other fields are ignored, blank lines are skipped.
//!
//! With `--json` there is one object on the standard output for every line, in order:
//! `{"verdict", "extracted", "rule", "reason", "micros"}`. The verdict is `equal`, `different` or `undecided`; `extracted` and `rule`
//! are null if there was nothing to extract or nothing was found. The summary goes to the standard error.
//!
//! A line that cannot be read has the verdict `error`, its reason begins with the file and the line, and it is repeated on the
//! standard error. The others are judged all the same; the exit status is then 1. A gold that is empty or cannot be what `extract`
//! says is `undecided`: nothing could be right.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rlvr::Error;
use rlvr::reward::{ExtractConfig, MathReward, MathRewardConfig, Rule};
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

/// A line, as far as it is looked at.
#[derive(Deserialize)]
struct Line {
    gold: Text,
    answer: Option<Text>,
    response: Option<Text>,
    #[serde(flatten)]
    options: Options,
}

/// A text, or a number that stands for its text: data sets have both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(serde_json::Number),
}

impl Text {
    fn into_string(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
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
        let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let gold = line.gold.into_string();
        if !self.rewards.contains_key(&line.options) {
            let reward = reward(&line.options)?;
            self.rewards.insert(line.options.clone(), reward);
        }
        let reward = &self.rewards[&line.options];
        let start = Instant::now();
        let (extracted, comparison) = match (line.answer, line.response) {
            (Some(answer), None) => {
                let answer = answer.into_string();
                (None, reward.verifier().compare(&gold, &answer))
            }
            (None, Some(response)) => match reward.judge(&gold, &response.into_string()) {
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
        if text.trim_ascii().is_empty() {
            continue;
        }
        let read = str::from_utf8(&text).map_err(|error| error.to_string());
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
