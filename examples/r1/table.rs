//! Stages by benchmarks, what they cost, and what the paper's findings look like here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use rlvr::policy::ValueHead;
use rlvr::policy::causal::CausalModel;
use rlvr::reward::{ModelReward, Reward, RewardInput};
use rlvr::rollout::{Rollout, RolloutGroup};
use rlvr::train::Evaluation;
use rlvr::{Error, Result};
use serde::Serialize;

use crate::files::write_json;
use crate::picture::{Bars, draw};
use crate::stages::Lab;
use crate::world::{ARITHMETIC, COUNTDOWN, GREETING, liking};

/// One stage.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    stage: String,
    /// Right answers by domain, greedy.
    accuracy: BTreeMap<String, f64>,
    /// Words of the thoughts that are in the language of the problem; none if nothing was thought.
    language: Option<f64>,
    /// Completions in the form that is asked for.
    format: f64,
    /// Greetings that people like better than the base model's; half of a tie counts.
    preference: f64,
    /// How much people like the greetings.
    liking: f64,
    /// Tokens of an answer to a problem with a right answer.
    tokens: f64,
    seconds: f64,
    dollars: f64,
}

impl Row {
    fn bars(&self) -> Bars {
        let right = |domain: &str| self.accuracy.get(domain).copied();
        let shares = [
            right(ARITHMETIC),
            right(COUNTDOWN),
            self.language,
            Some(self.preference),
        ];
        (self.stage.clone(), shares)
    }
}

/// All stages so far.
pub struct Table {
    price: f64,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    pub fn new(price: f64) -> Self {
        Self {
            price,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub fn note(&mut self, note: String) {
        println!("{note}");
        self.notes.push(note);
    }

    /// Adds a stage; gives its line.
    pub fn add(
        &mut self,
        stage: &str,
        found: &Evaluation,
        base: &Evaluation,
        seconds: f64,
    ) -> String {
        let rollouts = |reasoning: bool| {
            let groups = found.greedy.groups.iter();
            groups
                .filter(move |group| (group.problem.domain() != Some(GREETING)) == reasoning)
                .flat_map(|group| &group.rollouts)
        };
        let mean = |values: Vec<f64>| {
            let count = values.len() as f64;
            (count > 0.0).then(|| values.iter().sum::<f64>() / count)
        };
        let score = |name: &'static str| move |rollout: &Rollout| rollout.score(name);
        let accuracy = found.domains.iter().filter(|(name, _)| *name != GREETING);
        let likes = |group: &RolloutGroup| {
            let text = group.rollouts.first().map_or("", |rollout| &rollout.text);
            liking(&group.problem, text)
        };
        let greetings = |evaluation: &Evaluation| -> Vec<f64> {
            let groups = evaluation.greedy.groups.iter();
            let greetings = groups.filter(|group| group.problem.domain() == Some(GREETING));
            greetings.map(likes).collect()
        };
        let (own, theirs) = (greetings(found), greetings(base));
        let wins = own.iter().zip(&theirs).map(|(own, base)| match own - base {
            0.0 => 0.5,
            more => f64::from(more > 0.0),
        });
        let row = Row {
            stage: stage.into(),
            accuracy: accuracy
                .map(|(name, domain)| (name.clone(), domain.accuracy))
                .collect(),
            language: mean(rollouts(true).filter_map(score("language")).collect()),
            format: mean(rollouts(true).filter_map(score("format")).collect()).unwrap_or(0.0),
            preference: mean(wins.collect()).unwrap_or(0.0),
            liking: mean(own).unwrap_or(0.0),
            tokens: mean(rollouts(true).map(|r| r.tokens.len() as f64).collect()).unwrap_or(0.0),
            seconds,
            dollars: seconds / 3600.0 * self.price,
        };
        let line = line(&row);
        self.rows.push(row);
        line
    }

    /// What the reward model thinks of the greetings of two stages, beside what people do.
    pub fn judged(
        &mut self,
        lab: &Lab<'_>,
        judge: &ValueHead<CausalModel>,
        stages: [(&str, &Evaluation); 2],
    ) {
        let judge = ModelReward::new(judge.clone(), lab.tokenizer());
        let mut said = Vec::new();
        for (name, found) in stages {
            let groups = found.greedy.groups.iter();
            let groups = groups.filter(|group| group.problem.domain() == Some(GREETING));
            let (mut scores, mut example) = (Vec::new(), String::new());
            for group in groups {
                for rollout in &group.rollouts {
                    let input = RewardInput::new(&group.problem.prompt, "", &rollout.text);
                    scores.extend(judge.score(&input).ok().flatten());
                    example = format!("{}{}", group.problem.prompt, rollout.text);
                }
            }
            let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
            let liking = self.row(name).map_or(f64::NAN, |row| row.liking);
            said.push(format!("{name} {mean:.2} and {liking:.2} ({example})"));
        }
        self.note(format!(
            "the reward model's score and what people think: {}",
            said.join(", ")
        ));
    }

    fn row(&self, stage: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.stage == stage)
    }

    /// The paper's findings, and whether they are visible.
    pub fn conclude(&mut self) {
        let of = |stage: &str| self.row(stage).cloned().unwrap_or_default();
        let [base, zero, dev1, dev2, r1, hacked] =
            ["base", "zero", "dev1", "dev2", "r1", "hacked"].map(of);
        let [taught, student, alone] = ["student_sft", "student_on_policy", "student_rl"].map(of);
        let seen = |is: bool| if is { "visible" } else { "not visible" };
        let percent =
            |share: Option<f64>| share.map_or("-".into(), |x| format!("{:.0} %", 100.0 * x));
        let right = |row: &Row| {
            let count = row.accuracy.len().max(1) as f64;
            100.0 * row.accuracy.values().sum::<f64>() / count
        };
        let findings = [
            format!(
                "thinking grows by itself: {} ({:.1} tokens before R1-Zero, {:.1} after)",
                seen(zero.tokens > base.tokens),
                base.tokens,
                zero.tokens
            ),
            format!(
                "languages mix without a reward for one ({} in R1-Zero), and stop with it ({} in Dev2): {}",
                percent(zero.language),
                percent(dev2.language),
                seen(zero.language < Some(0.9) && dev2.language > Some(0.97))
            ),
            format!(
                "the cold start costs accuracy, which reasoning brings back: {} ({:.1}, {:.1}, {:.1} % right in R1-Zero, Dev1, Dev2)",
                seen(right(&dev1) < right(&zero) && right(&dev2) > right(&dev1)),
                right(&zero),
                right(&dev1),
                right(&dev2)
            ),
            format!(
                "the reward model is hacked when it is trained on for too long: {} (people like R1's greetings {:.2}, then {:.2})",
                seen(hacked.liking < r1.liking),
                r1.liking,
                hacked.liking
            ),
            format!(
                "the student gains more from its teacher than alone: {} ({:.1} % right by demonstrations, {:.1} % on its own answers as well, \
                 {:.1} % by rewards alone)",
                seen(right(&taught).max(right(&student)) > right(&alone)),
                right(&taught),
                right(&student),
                right(&alone)
            ),
        ];
        self.notes.extend(findings);
    }

    /// Writes `table.json` and the chart.
    pub fn write(&self, out: &Path) -> Result<()> {
        write_json(&out.join("table.json"), &self.rows)?;
        let notes = out.join("notes.txt");
        std::fs::write(&notes, self.notes.join("\n") + "\n").map_err(|e| Error::io(&notes, e))?;
        let bars: Vec<Bars> = self.rows.iter().map(Row::bars).collect();
        let svg = draw("DeepSeek-R1 in miniature, stage by stage", &bars);
        let picture = out.join("stages.svg");
        std::fs::write(&picture, svg).map_err(|e| Error::io(&picture, e))
    }
}

fn line(row: &Row) -> String {
    let percent =
        |share: Option<&f64>| share.map_or("-".into(), |share| format!("{:.1}", 100.0 * share));
    format!(
        "{:18} {:>10} {:>9} {:>8} {:>6} {:>10} {:>7.1} {:>8.0} {:>8.4}",
        row.stage,
        percent(row.accuracy.get(ARITHMETIC)),
        percent(row.accuracy.get(COUNTDOWN)),
        percent(row.language.as_ref()),
        percent(Some(&row.format)),
        percent(Some(&row.preference)),
        row.tokens,
        row.seconds,
        row.dollars,
    )
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:18} {:>10} {:>9} {:>8} {:>6} {:>10} {:>7} {:>8} {:>8}",
            "stage",
            "arithmetic",
            "countdown",
            "language",
            "form",
            "preference",
            "tokens",
            "seconds",
            "dollars"
        )?;
        for row in &self.rows {
            writeln!(f, "{}", line(row))?;
        }
        let seconds: f64 = self.rows.iter().map(|row| row.seconds).sum();
        writeln!(
            f,
            "{:18} {:>65.0} {:>8.4}",
            "all",
            seconds,
            seconds / 3600.0 * self.price
        )?;
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "- {note}"))
    }
}
