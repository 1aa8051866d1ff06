//! Properties of every built-in estimator.

use proptest::prelude::*;

use super::*;

/// One rollout with the inputs of every estimator.
#[derive(Clone, Debug)]
struct Row {
    reward: Option<f64>,
    group: usize,
    parts: Vec<Option<f64>>,
    baseline: Option<f64>,
    /// Reward, value, log-prob, and the sum of the squared probabilities of the other tokens.
    tokens: Vec<(f64, f64, f64, f64)>,
}

fn quarters() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![4 => (-8i32..=8).prop_map(|r| Some(f64::from(r) / 4.0)), 1 => Just(None)]
}

fn row() -> impl Strategy<Value = Row> {
    let token = (-1.0..1.0, -2.0..2.0, -3.0..-0.01, 0.0..0.2);
    let tokens = prop::collection::vec(token, 0..6);
    let parts = prop::collection::vec(quarters(), 2);
    (quarters(), 0usize..4, parts, quarters(), tokens).prop_map(
        |(reward, group, parts, baseline, tokens)| Row {
            reward,
            group,
            parts,
            baseline,
            tokens,
        },
    )
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec(row(), 0..16)
}

/// Every built-in estimator with its defaults, and the variants that differ in code.
fn estimators() -> Vec<Estimator> {
    let singleton = SingletonGroup::Score;
    let mut all = Estimator::all();
    all.extend([
        Group {
            singleton,
            ..Group::default()
        }
        .into(),
        LeaveOneOut { singleton }.into(),
        Opo { singleton }.into(),
        Gpg {
            singleton,
            scale: GpgScale::NonzeroRewards,
            norm: 0.5,
        }
        .into(),
        ReinforcePlusPlus {
            gamma: 0.9,
            whiten: false,
            ..ReinforcePlusPlus::default()
        }
        .into(),
        Gdpo {
            rescale: Rescale::Tokens { epsilon: 1e-8 },
            singleton,
            ..Gdpo::default()
        }
        .into(),
        Gdpo {
            rescale: Rescale::None,
            normalize: false,
            ..Gdpo::default()
        }
        .into(),
        OptimalTokenBaseline {
            singleton,
            align: Align::TrainedToken,
            ..OptimalTokenBaseline::default()
        }
        .into(),
        OptimalTokenBaseline {
            zero_tail: false,
            ..OptimalTokenBaseline::default()
        }
        .into(),
        PassAtK {
            normalize: false,
            ..PassAtK::default()
        }
        .into(),
    ]);
    all
}

/// Runs `estimator`; without token rewards where it does not accept them.
fn estimate(estimator: &Estimator, rows: &[Row]) -> crate::Result<Advantages> {
    let of = |pick: fn(&(f64, f64, f64, f64)) -> f64| -> PerToken {
        rows.iter()
            .map(|row| row.tokens.iter().map(pick).collect())
            .collect()
    };
    // MaxRL needs non-negative rewards.
    let non_negative = matches!(estimator, Estimator::MaxRl(_));
    let reward = |row: &Row| row.reward.map(|r| if non_negative { r.abs() } else { r });
    let rewards: Vec<_> = rows.iter().map(reward).collect();
    let groups: Vec<_> = rows.iter().map(|row| row.group).collect();
    let lengths: Vec<_> = rows.iter().map(|row| row.tokens.len()).collect();
    let parts: Vec<_> = rows.iter().map(|row| row.parts.clone()).collect();
    let baselines: Vec<_> = rows.iter().map(|row| row.baseline).collect();
    let (token_rewards, values, log_probs) = (of(|t| t.0), of(|t| t.1), of(|t| t.2));
    let squares = of(|t| (2.0 * t.2).exp() + t.3);
    let mut input = AdvantageInput::new(&rewards, &groups, &lengths)
        .with_values(&values)
        .with_components(&parts, &[1.0, 0.5])
        .with_baselines(&baselines)
        .with_log_probs(&log_probs, &values)
        .with_probabilities(Probabilities {
            log_probs: &log_probs,
            sum_pi_squared: &squares,
            importance_weights: None,
        });
    if !(estimator.needs_components() || non_negative) {
        input = input.with_token_rewards(&token_rewards);
    }
    estimator.estimate(&input)
}

fn close(name: &str, got: &PerToken, want: &PerToken) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), want.len());
    for (got, want) in got.rows().zip(want.rows()) {
        prop_assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            let near = (g - w).abs() <= 1e-8 * (1.0 + w.abs());
            prop_assert!(near, "{}: got {:?}, expected {:?}", name, got, want);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_result_has_the_shape_of_the_tokens_and_is_finite(rows in rows()) {
        for estimator in estimators() {
            let got = estimate(&estimator, &rows).unwrap();
            for table in [Some(&got.per_token), got.returns.as_ref()].into_iter().flatten() {
                prop_assert_eq!(table.len(), rows.len());
                for (numbers, row) in table.rows().zip(&rows) {
                    prop_assert_eq!(numbers.len(), row.tokens.len(), "{}", estimator.name());
                    prop_assert!(numbers.iter().all(|x| x.is_finite()), "{}", estimator.name());
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_rollouts_does_not_matter(
        (rows, order) in rows().prop_flat_map(|rows| {
            let order: Vec<usize> = (0..rows.len()).collect();
            (Just(rows), Just(order).prop_shuffle())
        })
    ) {
        let shuffled: Vec<_> = order.iter().map(|i| rows[*i].clone()).collect();
        for estimator in estimators() {
            let before = estimate(&estimator, &rows).unwrap().per_token;
            let want: PerToken = order.iter().map(|i| before[*i].to_vec()).collect();
            close(estimator.name(), &estimate(&estimator, &shuffled).unwrap().per_token, &want)?;
        }
    }

    #[test]
    fn a_rollout_without_a_reward_gets_zeros_and_does_not_affect_the_others(rows in rows()) {
        let kept: Vec<_> = rows.iter().filter(|row| row.reward.is_some()).cloned().collect();
        for estimator in estimators() {
            let with = estimate(&estimator, &rows).unwrap().per_token;
            let without = estimate(&estimator, &kept).unwrap().per_token;
            let (scored, unscored): (Vec<_>, Vec<_>) = with.rows().zip(&rows).partition(|(_, row)| row.reward.is_some());
            prop_assert!(unscored.iter().all(|(got, _)| got.iter().all(|a| *a == 0.0)), "{}", estimator.name());
            let scored: PerToken = scored.into_iter().map(|(got, _)| got.to_vec()).collect();
            close(estimator.name(), &scored, &without)?;
        }
    }

    #[test]
    fn group_ids_do_not_matter(rows in rows()) {
        let mut renamed = rows.clone();
        renamed.iter_mut().for_each(|row| row.group = 1000 - 7 * row.group);
        for estimator in estimators() {
            let want = estimate(&estimator, &rows).unwrap().per_token;
            close(estimator.name(), &estimate(&estimator, &renamed).unwrap().per_token, &want)?;
        }
    }

    #[test]
    fn adding_a_constant_to_the_rewards_of_a_group_changes_nothing(rows in rows(), shift in -10.0..10.0) {
        let mut moved = rows.clone();
        for row in moved.iter_mut().filter(|row| row.group == 1) {
            row.reward = row.reward.map(|reward| reward + shift);
            row.parts = row.parts.iter().map(|part| part.map(|part| part + shift)).collect();
        }
        let unmoved = |estimator: &Estimator| match estimator {
            // Its baseline is shrunk by epsilon and is 0 in the tail.
            Estimator::OptimalTokenBaseline(_) => false,
            // Its standard deviation is around the mean of the batch.
            Estimator::LitePpo(_) => false,
            Estimator::MaxRl(_) => false,
            Estimator::Gpg(gpg) => gpg.scale == GpgScale::Signal,
            other => other.needs_groups(),
        };
        for estimator in estimators().iter().filter(|estimator| unmoved(estimator)) {
            let want = estimate(estimator, &rows).unwrap().per_token;
            close(estimator.name(), &estimate(estimator, &moved).unwrap().per_token, &want)?;
        }
    }

    #[test]
    fn adding_a_constant_to_rewards_and_greedy_rewards_changes_nothing(rows in rows(), shift in -10.0..10.0) {
        let mut moved = rows.clone();
        for row in &mut moved {
            row.reward = row.reward.map(|reward| reward + shift);
            row.baseline = row.baseline.map(|baseline| baseline + shift);
        }
        let remax = Remax {}.into();
        let want = estimate(&remax, &rows).unwrap().per_token;
        close("remax", &estimate(&remax, &moved).unwrap().per_token, &want)?;
    }

    #[test]
    fn a_common_offset_of_all_positions_changes_nothing(rows in rows(), offset in 0usize..5) {
        let lengths: Vec<_> = rows.iter().map(|row| row.tokens.len()).collect();
        let run = |offset: usize| {
            let rewards: Vec<_> = rows.iter().map(|row| row.reward).collect();
            let groups: Vec<_> = rows.iter().map(|row| row.group).collect();
            let log_probs: PerToken = rows.iter().map(|row| row.tokens.iter().map(|t| t.2).collect()).collect();
            let squares: PerToken = rows.iter().map(|row| row.tokens.iter().map(|t| (2.0 * t.2).exp() + t.3).collect()).collect();
            let positions: Vec<Vec<usize>> = lengths.iter().map(|n| (offset..offset + n).collect()).collect();
            let mut input = AdvantageInput::new(&rewards, &groups, &lengths).with_probabilities(Probabilities {
                log_probs: &log_probs,
                sum_pi_squared: &squares,
                importance_weights: None,
            });
            input.positions = Some(&positions);
            OptimalTokenBaseline { zero_tail: false, ..OptimalTokenBaseline::default() }.estimate(&input).unwrap()
        };
        prop_assert_eq!(run(offset), run(0));
    }
}
