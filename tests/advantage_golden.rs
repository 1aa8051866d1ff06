//! Advantages against numbers that TRL and verl gave for the same rewards.
//!
//! `golden/README.md` says where the numbers come from. Where this crate differs on purpose, the difference is asserted here:
//! only the rows concerned are taken out of the comparison.

use rlvr::advantage::{
    AdvantageEstimator, AdvantageInput, Advantages, Batch, Estimator, Gae, Group, GroupMean,
    LeaveOneOut,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    precision: String,
    estimator: String,
    params: Params,
    inputs: Inputs,
    expected: Expected,
}

#[derive(Deserialize)]
struct Params {
    epsilon: Option<f64>,
    norm_by_std: Option<bool>,
    gamma: Option<f64>,
    lam: Option<f64>,
    whiten: Option<bool>,
    whiten_epsilon: Option<f64>,
    scale_rewards: Option<String>,
}

#[derive(Deserialize)]
struct Inputs {
    rewards: Option<Vec<Option<f64>>>,
    token_rewards: Option<Vec<Vec<f64>>>,
    group_ids: Option<Vec<usize>>,
    mask: Option<Vec<Vec<u8>>>,
    values: Option<Vec<Vec<f64>>>,
    component_rewards: Option<Vec<Vec<Option<f64>>>>,
    reward_weights: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct Expected {
    advantages: serde_json::Value,
    returns: Option<Vec<Vec<f64>>>,
    metrics: Metrics,
}

#[derive(Deserialize)]
struct Metrics {
    is_std_zero: Option<Vec<f64>>,
}

fn cases() -> Vec<Case> {
    include_str!("golden/advantages.jsonl")
        .lines()
        .enumerate()
        .map(|(line, text)| {
            serde_json::from_str(text).unwrap_or_else(|error| panic!("line {}: {error}", line + 1))
        })
        .collect()
}

impl Case {
    /// The estimator of this crate that the peer's settings describe.
    fn ours(&self) -> Estimator {
        let params = &self.params;
        let floor = Group::default().floor;
        match self.estimator.as_str() {
            "grpo" | "grpo_vectorized" if params.norm_by_std == Some(true) => Group {
                epsilon: params.epsilon.unwrap(),
                floor,
            }
            .into(),
            "grpo" | "grpo_vectorized" => GroupMean::default().into(),
            "rloo" | "rloo_vectorized" => LeaveOneOut::default().into(),
            "gae" => Gae {
                gamma: params.gamma.unwrap(),
                lambda: params.lam.unwrap(),
                whiten: params.whiten.unwrap(),
                whiten_epsilon: params.whiten_epsilon.unwrap(),
            }
            .into(),
            "trl_group" => match (params.scale_rewards.as_deref(), params.epsilon.unwrap()) {
                (Some("group"), epsilon) => Group { epsilon, floor }.into(),
                (Some("batch"), epsilon) => Batch { epsilon, floor }.into(),
                (Some("none"), _) => GroupMean::default().into(),
                (scale, _) => panic!("{}: scale_rewards {scale:?}", self.name),
            },
            other => panic!("{}: no estimator `{other}`", self.name),
        }
    }

    /// `|got - want| <= atol + rtol * |want|`, wider where the peer computes in float32.
    #[track_caller]
    fn compare(&self, what: &str, got: f64, want: f64) {
        let (rtol, atol) = match self.precision.as_str() {
            "float64" => (1e-6, 1e-6),
            "float32" => (1e-4, 1e-5),
            other => panic!("{}: precision {other}", self.name),
        };
        assert!(
            (got - want).abs() <= atol + rtol * want.abs(),
            "{}: {what} is {got}, the peer has {want}",
            self.name
        );
    }

    /// The columns of a row that the policy was trained on.
    fn valid(&self, row: usize) -> Vec<usize> {
        let mask = &self.inputs.mask.as_ref().unwrap()[row];
        (0..mask.len()).filter(|t| mask[*t] == 1).collect()
    }

    /// Padded or interrupted rows without the columns that are not trained.
    fn compact(&self, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let pick = |(i, row): (usize, &Vec<f64>)| self.valid(i).iter().map(|t| row[*t]).collect();
        rows.iter().enumerate().map(pick).collect()
    }

    /// The outcome reward of each rollout: as given, or the weighted sum of the components that could be given.
    fn outcomes(&self) -> Option<Vec<Option<f64>>> {
        let Some(components) = &self.inputs.component_rewards else {
            return self.inputs.rewards.clone();
        };
        let weighted = |row: &Vec<Option<f64>>| {
            let weight = |k: usize| self.inputs.reward_weights.as_ref().map_or(1.0, |w| w[k]);
            let given: Vec<f64> = (0..row.len())
                .filter_map(|k| row[k].map(|reward| weight(k) * reward))
                .collect();
            (!given.is_empty()).then(|| given.iter().sum())
        };
        Some(components.iter().map(weighted).collect())
    }
}

fn count(groups: &[usize], group: usize) -> usize {
    groups.iter().filter(|g| **g == group).count()
}

/// verl: `[B][T]` with a mask, from which this crate sees the trained tokens only.
fn check_verl(case: &Case) {
    let token_rewards = case.compact(case.inputs.token_rewards.as_ref().unwrap());
    let lengths: Vec<usize> = token_rewards.iter().map(Vec::len).collect();
    let groups = (case.inputs.group_ids.clone()).unwrap_or_else(|| vec![0; lengths.len()]);
    let values = case.inputs.values.as_ref().map(|rows| case.compact(rows));
    // Outcome rewards stand on the last valid token in the file, and go in as outcome rewards here.
    let dense = case.inputs.rewards.is_none();
    let rewards = (case.outcomes()).unwrap_or_else(|| vec![Some(0.0); lengths.len()]);
    let mut input = AdvantageInput::new(&rewards, &groups, &lengths);
    input.token_rewards = dense.then_some(token_rewards.as_slice());
    input.values = values.as_deref();
    let Advantages {
        per_token, returns, ..
    } = case.ours().estimate(&input).unwrap();

    let want: Vec<Vec<f64>> = serde_json::from_value(case.expected.advantages.clone()).unwrap();
    let want = case.compact(&want);
    // On purpose: a group of one is compared with nothing and gets 0. verl's `grpo`, `grpo_vectorized` and `rloo` give it
    // its bare score; its `rloo_vectorized` gives 0 and stays in the comparison.
    let differs = |row: usize| {
        ["grpo", "grpo_vectorized", "rloo"].contains(&case.estimator.as_str())
            && count(&groups, groups[row]) == 1
    };
    for (row, want) in want.iter().enumerate() {
        assert_eq!(per_token[row].len(), want.len(), "{}", case.name);
        if differs(row) {
            assert_eq!(per_token[row], vec![0.0; want.len()], "{}", case.name);
            continue;
        }
        for (got, want) in per_token[row].iter().zip(want) {
            case.compare("advantage", *got, *want);
        }
    }
    // The peer reports returns everywhere; this crate where there is a critic to train.
    if let Some(returns) = returns {
        let want = case.compact(case.expected.returns.as_ref().unwrap());
        for (got, want) in returns.concat().iter().zip(&want.concat()) {
            case.compare("return", *got, *want);
        }
        assert_eq!(returns.concat().len(), want.concat().len());
    }
}

/// TRL: `[B]`, one advantage per rollout, rewards that may be absent.
fn check_trl(case: &Case) {
    let rewards = case.outcomes().unwrap();
    let groups = case.inputs.group_ids.as_ref().unwrap();
    let lengths: Vec<usize> = (0..rewards.len()).map(|i| 1 + i % 3).collect();
    let input = AdvantageInput::new(&rewards, groups, &lengths);
    let got = case.ours().estimate(&input).unwrap();
    let want: Vec<f64> = serde_json::from_value(case.expected.advantages.clone()).unwrap();
    assert_eq!(want.len(), rewards.len(), "{}", case.name);
    for (row, want) in want.iter().enumerate() {
        assert_eq!(got.per_token[row].len(), lengths[row]);
        for got in &got.per_token[row] {
            case.compare("advantage", *got, *want);
        }
        if rewards[row].is_none() {
            assert_eq!(got.per_token[row], vec![0.0; lengths[row]]);
        }
    }
    let unscored = rewards.iter().filter(|reward| reward.is_none()).count();
    assert_eq!(got.statistics.unscored, unscored, "{}", case.name);

    // With "batch" the peer's flag is about the std of the batch, not of the groups.
    if case.params.scale_rewards.as_deref() == Some("batch") {
        return;
    }
    let size = count(groups, groups[0]);
    let scored = |group: &usize| {
        let rows = groups.iter().zip(&rewards);
        rows.filter(|(g, r)| *g == group && r.is_some()).count()
    };
    let flags = case.expected.metrics.is_std_zero.as_ref().unwrap();
    // On purpose: a larger group of which one rollout could be scored is counted here as one that teaches nothing; its std
    // is undefined for the peer.
    let lone = (groups.iter().zip(flags)).filter(|(g, _)| size > 1 && scored(g) == 1);
    let lone = lone.inspect(|(_, flag)| assert_eq!(**flag, 0.0)).count();
    let zero = flags.iter().sum::<f64>() as usize + lone;
    assert_eq!(got.statistics.zero_std_groups * size, zero, "{}", case.name);
}

#[test]
fn advantages_match_the_peers() {
    let mut ran = std::collections::BTreeMap::<String, usize>::new();
    for case in cases() {
        let kind = match case.estimator.as_str() {
            "trl_group" => {
                check_trl(&case);
                format!("trl {}", case.params.scale_rewards.as_ref().unwrap())
            }
            verl => {
                check_verl(&case);
                format!("verl {verl}")
            }
        };
        *ran.entry(kind).or_default() += 1;
    }
    let ran: Vec<(&str, usize)> = ran.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    assert_eq!(
        ran,
        [
            ("trl batch", 8),
            ("trl group", 7),
            ("trl none", 7),
            ("verl gae", 12),
            ("verl grpo", 10),
            ("verl grpo_vectorized", 7),
            ("verl rloo", 5),
            ("verl rloo_vectorized", 5),
        ]
    );
}
