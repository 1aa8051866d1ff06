//! Rewards match recorded scores of open-r1, TRL and verl, and the formulas of DAPO and Kimi k1.5.
//!
//! `tests/golden/rewards/reward_oracles.jsonl` holds inputs and outputs; `RLVR_REWARDS_DIR` names
//! another folder to read that file from. A function that is not mapped to a reward here fails.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rlvr::reward::{
    CodeFormatReward, CosineLengthReward, GroupInput, GroupReward, KimiLengthReward, LengthUnit,
    LineFormatReward, ReasoningStepsReward, RepetitionReward, RepetitionUnit, Reward, RewardInput,
    SoftOverlongReward, TagCountReward, ThinkFormatReward,
};
use serde_json::Value;

const TOLERANCE: f64 = 1e-6;

fn file() -> PathBuf {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rewards");
    let folder = std::env::var_os("RLVR_REWARDS_DIR").map_or_else(|| golden.into(), PathBuf::from);
    folder.join("reward_oracles.jsonl")
}

/// One line of the file.
struct Case<'a> {
    params: &'a Value,
    input: &'a Value,
}

impl Case<'_> {
    fn number(&self, name: &str) -> f64 {
        let found = self.params[name].as_f64();
        found.unwrap_or_else(|| panic!("no number `{name}` in {}", self.params))
    }

    fn size(&self, name: &str) -> usize {
        let found = self.params[name].as_u64();
        found.unwrap_or_else(|| panic!("no size `{name}` in {}", self.params)) as usize
    }

    fn of_text(&self, reward: impl Reward) -> Vec<f64> {
        let text = self.input.as_str().expect("a text");
        score(reward, &RewardInput::new("", "", text))
    }

    fn of_length(&self, reward: impl Reward) -> Vec<f64> {
        let tokens = self.input.as_u64().expect("a length") as usize;
        let input = RewardInput::new("", "", "").with_tokens(vec![7; tokens]);
        score(reward, &input)
    }

    /// One completion or a group of them, each right or wrong and of a length.
    fn of_group(&self, reward: impl GroupReward, unit: LengthUnit) -> Vec<f64> {
        let rows = match self.input {
            Value::Array(rows) => rows.iter().collect(),
            one => vec![one],
        };
        let length = |row: &&Value| row["len"].as_u64().expect("a length") as usize;
        let input = |row: &&Value| match unit {
            LengthUnit::Characters => RewardInput::new("", "", "x".repeat(length(row))),
            _ => RewardInput::new("", "", "").with_tokens(vec![7; length(row)]),
        };
        let right = |row: &&Value| row["correct"].as_bool().expect("right or wrong");
        let accuracy: Vec<_> = rows.iter().map(|row| Some(f64::from(right(row)))).collect();
        let inputs: Vec<RewardInput> = rows.iter().map(input).collect();
        let group = GroupInput::new(&inputs).with_scores("accuracy", accuracy);
        let scores = reward.score_group(&group).expect("a score");
        scores.into_iter().map(|s| s.expect("a score")).collect()
    }

    fn repetition(&self) -> RepetitionReward {
        RepetitionReward::new(self.size("ngram_size"), self.number("max_penalty")).unwrap()
    }

    fn cosine(&self) -> CosineLengthReward {
        let value = |name: &str| self.number(&format!("{name}_value_correct"));
        let reward = CosineLengthReward::new(self.size("max_len")).unwrap();
        let reward = reward.with_correct(value("min"), value("max"));
        let value = |name: &str| self.number(&format!("{name}_value_wrong"));
        reward.with_wrong(value("min"), value("max"))
    }
}

fn score(reward: impl Reward, input: &RewardInput) -> Vec<f64> {
    vec![reward.score(input).unwrap().expect("a score")]
}

/// The scores of this crate for `function` of another library; `None` if it is not mapped.
fn ours(function: &str, case: &Case) -> Option<Vec<f64>> {
    Some(match function {
        "open_r1.format_reward" => case.of_text(LineFormatReward::new()),
        "open_r1.tag_count_reward" => case.of_text(TagCountReward::new()),
        "open_r1.reasoning_steps_reward" => case.of_text(ReasoningStepsReward::new()),
        "open_r1.repetition_penalty" => case.of_text(case.repetition()),
        "open_r1.code_format_reward" => {
            let language = case.params["language"].as_str().expect("a language");
            case.of_text(CodeFormatReward::new(language).unwrap())
        }
        "trl.think_format_reward" => case.of_text(ThinkFormatReward::new()),
        "trl.repetition_penalty" => {
            let ids = case.input.as_array().expect("token ids").iter();
            let ids: Vec<u32> = ids.map(|id| id.as_u64().expect("an id") as u32).collect();
            let reward = case.repetition().with_unit(RepetitionUnit::Tokens);
            score(reward, &RewardInput::new("", "", "").with_tokens(ids))
        }
        "dapo.soft_overlong" => {
            let (max, cache) = ("max_completion_len", "soft_punish_cache");
            case.of_length(SoftOverlongReward::new(case.size(max), case.size(cache)).unwrap())
        }
        "verl.dapo_overlong" => {
            let reward = SoftOverlongReward::new(case.size("max_resp_len"), case.size("len"));
            let factor = case.number("penalty_factor");
            case.of_length(reward.unwrap().with_factor(factor))
        }
        "trl.cosine_scaled" => case.of_group(case.cosine(), LengthUnit::Tokens),
        "open_r1.cosine_scaled_chars_unclamped" => {
            let unit = LengthUnit::Characters;
            case.of_group(case.cosine().with_unit(unit).with_periodic(true), unit)
        }
        "kimi.len_reward" => case.of_group(KimiLengthReward::new(), LengthUnit::Tokens),
        _ => return None,
    })
}

#[test]
fn every_recorded_score_agrees() {
    let path = file();
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut count = 0;
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let line: Value = serde_json::from_str(line).unwrap();
        let function = line["fn"].as_str().expect("the name of a function");
        let case = Case {
            params: &line["params"],
            input: &line["input"],
        };
        let expected: Vec<f64> = match &line["output"] {
            Value::Array(outputs) => outputs.iter().map(|o| o.as_f64().unwrap()).collect(),
            output => vec![output.as_f64().unwrap()],
        };
        let found = ours(function, &case);
        let met = found.as_ref().is_some_and(|found| {
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE;
            found.len() == expected.len() && found.iter().zip(&expected).all(close)
        });
        count += 1;
        if !met {
            let number = number + 1;
            wrong.push(format!(
                "{number}: {function}: {found:?}, expected {expected:?}: {line}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 0, "{} is empty", path.display());
}

#[test]
fn every_documented_function_has_a_recorded_case() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/rewards/reward_oracles.jsonl"
    );
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.lines().count() >= 107);
    let name = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["fn"].as_str().unwrap().to_string()
    };
    let names: BTreeSet<String> = text.lines().map(name).collect();
    assert!(names.len() >= 12, "{names:?}");
}
