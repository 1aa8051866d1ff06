//! The cases of `advantages.jsonl`: the estimator of the other library, mapped to this crate.
//!
//! An unknown field, parameter or input is an error. `golden/README.md` describes the source of the
//! numbers.

use rlvr::advantage::{
    AdvantageEstimator, AdvantageInput, Advantages, Align, Estimator, Gae, Gdpo, Gpg, GpgScale,
    Group, GroupMean, LeaveOneOut, LitePpo, Opo, OptimalTokenBaseline, PassAtK, Probabilities,
    ReinforcePlusPlus, ReinforcePlusPlusBaseline, Remax, Rescale, SingletonGroup,
};
use rlvr::train::zero_std;
use rlvr::types::PerToken;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

type Rows<T = f64> = Vec<Vec<T>>;
/// `[B][K]` components and their `[K]` weights.
type Parts = (Rows<Option<f64>>, Vec<f64>);

/// Checks the advantages, returns and metrics of one case.
pub fn check(case: &Value) -> Result<(), String> {
    let mut case = Fields::of("case", case)?;
    for known in ["name", "peer_version", "tags", "peer_config"] {
        case.skip(known);
    }
    let tolerance = match case.take::<String>("precision")?.as_str() {
        "float64" => Tolerance(1e-6, 1e-6),
        "float32" => Tolerance(1e-4, 1e-5),
        other => return Err(format!("precision `{other}`")),
    };
    let estimator: String = case.take("estimator")?;
    let params = Fields::of("params", &case.take::<Value>("params")?)?;
    let inputs = Fields::of("inputs", &case.take::<Value>("inputs")?)?;
    let expected = Fields::of("expected", &case.take::<Value>("expected")?)?;
    let (peer, compare): (String, String) = (case.take("peer")?, case.take("compare")?);
    case.finish()?;
    match (peer.as_str(), estimator.as_str(), compare.as_str()) {
        ("trl", "trl_group", "all") => check_trl(params, inputs, expected, &tolerance),
        ("verl", estimator, "mask") => check_verl(estimator, params, inputs, expected, &tolerance),
        _ => Err(format!("`{estimator}` of {peer}, compared at `{compare}`")),
    }
}

/// Relative and absolute: `|got - want| <= 1 + 0 * |want|`.
struct Tolerance(f64, f64);

impl Tolerance {
    fn compare(&self, what: &str, got: &[f64], want: &[f64]) -> Result<(), String> {
        if got.len() != want.len() {
            return Err(format!("{} {what}, expected {}", got.len(), want.len()));
        }
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let close = (got - want).abs() <= self.1 + self.0 * want.abs();
            if !close {
                return Err(format!("{what} {i} is {got}, expected {want}"));
            }
        }
        Ok(())
    }
}

/// A JSON object of which every field must be read.
struct Fields {
    what: &'static str,
    rest: Map<String, Value>,
}

impl Fields {
    fn of(what: &'static str, value: &Value) -> Result<Self, String> {
        let rest = value.as_object().ok_or(format!("{what} is no object"))?;
        let rest = rest.clone();
        Ok(Self { what, rest })
    }

    fn skip(&mut self, field: &str) {
        self.rest.remove(field);
    }

    /// A field; one that is absent reads as null.
    fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<T, String> {
        let value = self.rest.remove(field).unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|e| format!("`{field}` of {}: {e}", self.what))
    }

    /// Returns an error for fields that were not read, unless they are null.
    fn finish(self) -> Result<(), String> {
        match self.rest.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((field, value)) => Err(format!("`{field}` of {}: {value} is unknown", self.what)),
        }
    }
}

/// verl: `[B][T]` with a mask, from which this crate sees the trained tokens only.
fn check_verl(
    name: &str,
    params: Fields,
    mut inputs: Fields,
    mut expected: Fields,
    tolerance: &Tolerance,
) -> Result<(), String> {
    let estimator = verl(name, params)?;
    let mask: Rows<u8> = inputs.take("mask")?;
    let positions: Rows<usize> = mask.iter().map(|row| trained(row)).collect();
    let lengths: Vec<usize> = positions.iter().map(Vec::len).collect();
    let compact = |rows: Rows| -> Result<Rows, String> {
        if rows.len() != mask.len()
            || rows
                .iter()
                .zip(&mask)
                .any(|(row, mask)| row.len() != mask.len())
        {
            return Err("rows that the mask does not fit".into());
        }
        let pick = |(row, at): (Vec<f64>, &Vec<usize>)| at.iter().map(|t| row[*t]).collect();
        Ok(rows.into_iter().zip(&positions).map(pick).collect())
    };
    let mut take = |field: &str| -> Result<Option<PerToken>, String> {
        let rows = inputs.take::<Option<Rows>>(field)?.map(compact);
        Ok(rows.transpose()?.map(PerToken::from))
    };

    let token_rewards = take("token_rewards")?;
    let values = if estimator.needs_values() {
        take("values")?
    } else {
        None
    };
    let mut probabilities = (None, None, None);
    if estimator.needs_probabilities() {
        probabilities = (
            take("old_log_probs")?,
            take("sum_pi_squared")?,
            take("is_weights")?,
        );
    }
    let groups: Option<Vec<usize>> = inputs.take("group_ids")?;
    let groups = groups.unwrap_or_else(|| vec![0; mask.len()]);
    // The file has the outcome reward at the last valid token; it is passed as an outcome.
    let outcomes: Option<Vec<f64>> = inputs.take("rewards")?;
    let dense = outcomes.is_none();
    let outcomes = outcomes.unwrap_or_else(|| vec![0.0; mask.len()]);
    let rewards: Vec<Option<f64>> = outcomes.into_iter().map(Some).collect();
    let mut components = None;
    if estimator.needs_components() {
        components = parts(&mut inputs)?;
    }
    let mut baselines: Option<Vec<Option<f64>>> = None;
    if estimator.needs_baselines() {
        baselines = inputs.take("baselines")?;
    }
    inputs.finish()?;

    let mut input = AdvantageInput::new(&rewards, &groups, &lengths);
    input.token_rewards = token_rewards.as_ref().filter(|_| dense);
    input.values = values.as_ref();
    input.positions = Some(&positions);
    input.baselines = baselines.as_deref();
    if let Some((parts, weights)) = &components {
        input = input.with_components(parts, weights);
    }
    if let (Some(log_probs), Some(sum_pi_squared)) = (&probabilities.0, &probabilities.1) {
        input = input.with_probabilities(Probabilities {
            log_probs,
            sum_pi_squared,
            importance_weights: probabilities.2.as_ref(),
        });
    }
    let got = estimator.estimate(&input).map_err(|e| e.to_string())?;

    let want = compact(expected.take("advantages")?)?;
    tolerance.compare("advantage", &flat(&got.per_token), &want.concat())?;
    // If this crate has no separate returns, the other library repeats the advantages.
    let returns = got.returns.unwrap_or(got.per_token);
    let want = compact(expected.take("returns")?)?;
    tolerance.compare("return", &flat(&returns), &want.concat())?;
    no_metrics(&mut expected)?;
    expected.finish()
}

fn flat(numbers: &PerToken) -> Vec<f64> {
    numbers.values().collect()
}

/// The trained columns.
fn trained(mask: &[u8]) -> Vec<usize> {
    (0..mask.len()).filter(|t| mask[*t] == 1).collect()
}

fn no_metrics(expected: &mut Fields) -> Result<(), String> {
    match expected.take::<Option<Value>>("metrics")? {
        Some(metrics) => Fields::of("metrics", &metrics)?.finish(),
        None => Ok(()),
    }
}

/// `component_rewards` and their weights, which are all 1 if there are none.
fn parts(inputs: &mut Fields) -> Result<Option<Parts>, String> {
    let parts: Option<Rows<Option<f64>>> = inputs.take("component_rewards")?;
    let weights: Option<Vec<f64>> = inputs.take("reward_weights")?;
    Ok(parts.map(|parts| {
        let count = parts.first().map_or(0, Vec::len);
        (parts, weights.unwrap_or_else(|| vec![1.0; count]))
    }))
}

/// The estimator of this crate that verl's name and settings describe.
fn verl(name: &str, mut params: Fields) -> Result<Estimator, String> {
    let singleton = SingletonGroup::Score;
    let estimator = match name {
        "gae" => Gae {
            gamma: params.take("gamma")?,
            lambda: params.take("lam")?,
            whiten: params.take("whiten")?,
            whiten_epsilon: params.take("whiten_epsilon")?,
        }
        .into(),
        "grpo" | "grpo_vectorized" => {
            let epsilon = params.take("epsilon")?;
            if params.take("norm_by_std")? {
                Group {
                    epsilon,
                    singleton,
                    ..Group::default()
                }
                .into()
            } else {
                GroupMean { singleton }.into()
            }
        }
        "grpo_passk" => PassAtK {
            normalize: params.take("norm_by_std")?,
            epsilon: params.take("epsilon")?,
            ..PassAtK::default()
        }
        .into(),
        "gdpo" => {
            let epsilon = params.take("whiten_epsilon")?;
            Gdpo {
                normalize: params.take("norm_by_std")?,
                epsilon: params.take("epsilon")?,
                singleton,
                rescale: match params.take("whiten")? {
                    true => Rescale::Tokens { epsilon },
                    false => Rescale::None,
                },
                ..Gdpo::default()
            }
            .into()
        }
        "rloo" => LeaveOneOut { singleton }.into(),
        "rloo_vectorized" => LeaveOneOut::default().into(),
        "opo" => Opo { singleton }.into(),
        "gpg" => Gpg {
            scale: GpgScale::NonzeroRewards,
            norm: params.take("f_norm")?,
            singleton,
        }
        .into(),
        "reinforce_plus_plus" => ReinforcePlusPlus {
            gamma: params.take("gamma")?,
            whiten: params.take("whiten")?,
            whiten_epsilon: params.take("whiten_epsilon")?,
        }
        .into(),
        "reinforce_plus_plus_baseline" => ReinforcePlusPlusBaseline {
            whiten: params.take("whiten")?,
            whiten_epsilon: params.take("whiten_epsilon")?,
            singleton,
        }
        .into(),
        "remax" => Remax {}.into(),
        "optimal_token_baseline" | "tir_optimal_token_baseline" => OptimalTokenBaseline {
            epsilon: params.take("epsilon")?,
            zero_tail: params.take("handle_zero_tail")?,
            align: match name {
                "optimal_token_baseline" => Align::Position,
                _ => Align::TrainedToken,
            },
            singleton,
        }
        .into(),
        other => return Err(format!("no estimator `{other}`")),
    };
    params.finish()?;
    Ok(estimator)
}

/// TRL: `[B]`, one advantage per rollout, rewards that may be absent.
fn check_trl(
    mut params: Fields,
    mut inputs: Fields,
    mut expected: Fields,
    tolerance: &Tolerance,
) -> Result<(), String> {
    let epsilon: f64 = params.take("epsilon")?;
    let size: usize = params.take("num_generations")?;
    let aggregation: String = params.take("multi_objective_aggregation")?;
    let scale: Option<String> = params.take("scale_rewards")?;
    params.finish()?;
    let estimator: Estimator = match (aggregation.as_str(), scale.as_deref()) {
        ("sum_then_normalize", Some("group")) => Group {
            epsilon,
            ..Group::default()
        }
        .into(),
        ("sum_then_normalize", Some("batch")) => LitePpo {
            epsilon,
            ..LitePpo::default()
        }
        .into(),
        ("sum_then_normalize", Some("none")) => GroupMean::default().into(),
        ("normalize_then_sum", None) => Gdpo {
            epsilon,
            rescale: Rescale::Rollouts { epsilon },
            ..Gdpo::default()
        }
        .into(),
        _ => return Err(format!("`{aggregation}` with scale_rewards {scale:?}")),
    };

    let groups: Vec<usize> = inputs.take("group_ids")?;
    if groups
        .chunks(size)
        .any(|group| group.len() != size || group.iter().any(|g| *g != group[0]))
    {
        return Err(format!("groups that are no blocks of {size}: {groups:?}"));
    }
    let single: Option<Vec<Option<f64>>> = inputs.take("rewards")?;
    let (parts, weights) = match (parts(&mut inputs)?, single) {
        (Some(parts), None) => parts,
        (None, Some(single)) => (single.into_iter().map(|r| vec![r]).collect(), vec![1.0]),
        _ => return Err("neither `rewards` nor `component_rewards` alone".into()),
    };
    inputs.finish()?;
    let rewards: Vec<Option<f64>> = parts.iter().map(|row| sum(row, &weights)).collect();
    // Any lengths: the advantage is that of the rollout.
    let lengths: Vec<usize> = (0..rewards.len()).map(|i| 1 + i % 3).collect();
    let input = AdvantageInput::new(&rewards, &groups, &lengths).with_components(&parts, &weights);
    let got: Advantages = estimator.estimate(&input).map_err(|e| e.to_string())?;

    let want: Vec<f64> = expected.take("advantages")?;
    if want.len() != rewards.len() {
        return Err(format!(
            "{} advantages for {} rollouts",
            want.len(),
            rewards.len()
        ));
    }
    for (row, want) in want.iter().enumerate() {
        let want = vec![*want; lengths[row]];
        tolerance.compare(
            &format!("advantage of rollout {row}, token"),
            &got.per_token[row],
            &want,
        )?;
        if rewards[row].is_none() && got.per_token[row].iter().any(|a| *a != 0.0) {
            return Err(format!("rollout {row} has no reward and an advantage"));
        }
    }
    let unscored = rewards.iter().filter(|reward| reward.is_none()).count();
    if got.statistics.unscored != unscored {
        return Err(format!(
            "{} unscored, not {unscored}",
            got.statistics.unscored
        ));
    }

    // The standard deviation that the other library checks for 0: of the groups, or of the batch.
    let batch = vec![0; groups.len()];
    let flags = match (&estimator, scale.as_deref()) {
        (Estimator::Gdpo(gdpo), _) => {
            let sums = gdpo
                .sums(&parts, &weights, &groups)
                .map_err(|e| e.to_string())?;
            zero_std(&sums, &batch)
        }
        (_, Some("batch")) => zero_std(&rewards, &batch),
        _ => zero_std(&rewards, &groups),
    };
    let flags = flags.map_err(|e| e.to_string())?;
    let flags: Vec<f64> = flags
        .iter()
        .map(|flag| f64::from(u8::from(*flag)))
        .collect();
    let mut metrics = Fields::of("metrics", &expected.take::<Value>("metrics")?)?;
    let want: Vec<f64> = metrics.take("is_std_zero")?;
    if flags != want {
        return Err(format!("is_std_zero is {flags:?}, expected {want:?}"));
    }
    metrics.finish()?;
    expected.finish()
}

/// The weighted sum of the components that are there, as TRL's `nansum`; `None` if none is.
fn sum(row: &[Option<f64>], weights: &[f64]) -> Option<f64> {
    let terms = row
        .iter()
        .zip(weights)
        .filter_map(|(part, weight)| Some((*part)? * weight));
    terms.reduce(|sum, term| sum + term)
}
