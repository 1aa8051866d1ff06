//! Hand-computed cases of the estimators beyond group mean and standard deviation.

use super::max_rl::mean_normalized;
use super::*;

const HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;

#[track_caller]
fn assert_close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "got {got:?}, expected {want:?}");
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= 1e-12, "got {got:?}, expected {want:?}");
    }
}

/// Runs `estimator` with one token per rollout.
fn run(estimator: impl Into<Estimator>, rewards: &[Option<f64>], groups: &[usize]) -> Vec<f64> {
    let lengths = vec![1; rewards.len()];
    let input = AdvantageInput::new(rewards, groups, &lengths);
    flat(&estimator.into().estimate(&input).unwrap().per_token)
}

#[test]
fn a_group_of_one_with_both_singleton_conventions() {
    let (rewards, groups) = ([Some(3.0), None, Some(1.0), Some(1.0)], [0, 0, 1, 1]);
    let singleton = SingletonGroup::Score;
    assert_eq!(run(GroupMean::default(), &rewards, &groups), [0.0; 4]);
    assert_eq!(
        run(GroupMean { singleton }, &rewards, &groups),
        [3.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(
        run(LeaveOneOut { singleton }, &rewards, &groups),
        [3.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(
        run(Opo { singleton }, &rewards, &groups),
        [3.0, 0.0, 0.0, 0.0]
    );
    // Mean 0, standard deviation 1.
    let group = Group {
        epsilon: 0.5,
        singleton,
        ..Group::default()
    };
    assert_eq!(run(group, &rewards, &groups), [2.0, 0.0, 0.0, 0.0]);
    // Three scored rollouts, none with a signal: alpha is 3.
    let gpg = Gpg {
        singleton,
        norm: 2.0,
        ..Gpg::default()
    };
    assert_eq!(run(gpg, &rewards, &groups), [4.5, 0.0, 0.0, 0.0]);
}

#[test]
fn gpg_with_both_scales() {
    // Four rollouts: a group with equal rewards and one with different rewards.
    let (rewards, groups) = ([1.0, 1.0, 1.0, 0.0].map(Some), [0, 0, 1, 1]);
    assert_eq!(
        run(Gpg::default(), &rewards, &groups),
        [0.0, 0.0, 1.0, -1.0]
    );
    let verl = Gpg {
        scale: GpgScale::NonzeroRewards,
        ..Gpg::default()
    };
    assert_close(
        &run(verl, &rewards, &groups),
        &[0.0, 0.0, 2.0 / 3.0, -2.0 / 3.0],
    );
}

#[test]
fn pass_at_k_reinforces_only_the_best() {
    // (A10)
    let raw = PassAtK {
        normalize: false,
        ..PassAtK::default()
    };
    assert_eq!(
        run(raw.clone(), &[3.0, 1.0, 2.0].map(Some), &[0; 3]),
        [1.0, 0.0, 0.0]
    );
    assert_eq!(
        run(raw.clone(), &[3.0, 3.0, 2.0].map(Some), &[0; 3]),
        [0.0; 3]
    );
    assert_eq!(run(raw, &[Some(3.0), None], &[0; 2]), [0.0; 2]);
    // The standard deviation of 3, 1, 2 is 1.
    let scaled = PassAtK {
        epsilon: 1.0,
        ..PassAtK::default()
    };
    assert_eq!(
        run(scaled, &[3.0, 1.0, 2.0].map(Some), &[0; 3]),
        [0.5, 0.0, 0.0]
    );
}

#[test]
fn the_baseline_of_opo_is_weighted_by_length() {
    // (A9)
    let opo = |rewards: &[Option<f64>], lengths: &[usize]| -> Vec<f64> {
        let groups = vec![0; rewards.len()];
        let input = AdvantageInput::new(rewards, &groups, lengths);
        let got = Opo::default().estimate(&input).unwrap().per_token;
        let first = |row: &[f64]| row.first().copied().unwrap_or(f64::NAN);
        got.rows().map(first).collect()
    };
    assert_eq!(opo(&[Some(1.0), Some(0.0)], &[10, 30]), [0.75, -0.25]);
    let got = opo(&[Some(1.0), None, Some(0.0), Some(0.0)], &[10, 99, 10, 0]);
    assert_eq!(got[..3], [0.5, 0.0, -0.5]);
    let got = opo(&[Some(1.0), Some(0.0)], &[0, 0]);
    assert!(got.iter().all(|a| a.is_nan()), "no tokens: {got:?}");
}

#[test]
fn reinforce_plus_plus_whitens_over_tokens() {
    // Tokens 3, 3, -3: mean 1, variance 12.
    let (rewards, lengths) = ([Some(3.0), Some(-3.0), None], [2, 1, 2]);
    let input = AdvantageInput::new(&rewards, &[0, 1, 1], &lengths);
    let estimator = ReinforcePlusPlus {
        whiten_epsilon: 4.0,
        ..ReinforcePlusPlus::default()
    };
    let got = estimator.estimate(&input).unwrap();
    assert_close(&flat(&got.per_token), &[0.5, 0.5, -1.0, 0.0, 0.0]);
    assert_eq!(
        got.returns.unwrap(),
        [vec![3.0, 3.0], vec![-3.0], vec![0.0, 0.0]]
    );

    // The group mean of the two scored rollouts is 0, so the tokens are the same.
    let estimator = ReinforcePlusPlusBaseline {
        whiten_epsilon: 4.0,
        ..ReinforcePlusPlusBaseline::default()
    };
    let input = AdvantageInput::new(&rewards, &[5; 3], &lengths);
    assert_eq!(estimator.estimate(&input).unwrap().per_token, got.per_token);
}

#[test]
fn remax_adds_token_rewards_at_their_tokens() {
    let (rewards, lengths) = ([Some(2.0), Some(1.0), None], [2, 1, 1]);
    let penalty = PerToken::from(vec![vec![-0.5, -0.25], vec![0.0], vec![0.0]]);
    let input = AdvantageInput::new(&rewards, &[0; 3], &lengths)
        .with_token_rewards(&penalty)
        .with_baselines(&[Some(1.0), None, Some(1.0)]);
    let got = Remax {}.estimate(&input).unwrap();
    assert_eq!(got.per_token, [vec![0.25, 0.75], vec![0.0], vec![0.0]]);
    assert_eq!(got.returns.unwrap()[0], [1.25, 1.75]);
}

#[test]
fn gdpo_separates_components_whose_sums_are_equal() {
    // A correct answer in the wrong format, and the reverse: the sums are equal, but the rare
    // component weighs more.
    let parts: Vec<Vec<Option<f64>>> = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
        .map(|row| row.map(Some).to_vec())
        .to_vec();
    let rewards = [Some(1.0); 4];
    assert_eq!(run(Group::default(), &rewards, &[0; 4]), [0.0; 4]);
    let exact = Gdpo {
        epsilon: 0.0,
        rescale: Rescale::None,
        ..Gdpo::default()
    };
    let input =
        AdvantageInput::new(&rewards, &[0; 4], &[1; 4]).with_components(&parts, &[1.0, 0.5]);
    let got = flat(&exact.estimate(&input).unwrap().per_token);
    // Each component has standard deviation 1/2 and one rollout 3/4 from its mean: 1.5 - 0.5 * 1.5.
    assert_close(&got, &[0.75, -0.25, -0.25, -0.25]);
    let rescaled = Gdpo {
        rescale: Rescale::Rollouts { epsilon: 0.0 },
        ..exact.clone()
    };
    let got = flat(&rescaled.estimate(&input).unwrap().per_token);
    assert_close(&got, &[1.5, -0.5, -0.5, -0.5]);

    // (A17) The scale of a component does not matter.
    let mut hundreds = parts.clone();
    hundreds
        .iter_mut()
        .for_each(|row| row[1] = row[1].map(|part| part * 100.0));
    let got = exact.sums(&hundreds, &[1.0, 0.5], &[0; 4]).unwrap();
    assert_close(
        &got.into_iter().flatten().collect::<Vec<_>>(),
        &[0.75, -0.25, -0.25, -0.25],
    );
}

#[test]
fn gdpo_excludes_missing_components() {
    // The first group has the second component twice, the second group once.
    let parts = [
        vec![Some(0.0), Some(1.0)],
        vec![Some(2.0), None],
        vec![None, Some(3.0)],
        vec![None, Some(7.0)],
        vec![None, None],
    ];
    let exact = Gdpo {
        epsilon: 0.0,
        rescale: Rescale::None,
        ..Gdpo::default()
    };
    let sums = exact.sums(&parts, &[1.0, 1.0], &[0, 0, 0, 1, 1]).unwrap();
    assert_eq!(sums[4], None);
    let sums: Vec<f64> = sums.into_iter().flatten().collect();
    assert_close(&sums, &[-2.0 * HALF, HALF, HALF, 0.0]);
    let score = Gdpo {
        singleton: SingletonGroup::Score,
        ..exact.clone()
    };
    assert_eq!(
        score.sums(&parts, &[1.0, 1.0], &[0, 0, 0, 1, 1]).unwrap()[3],
        Some(7.0)
    );

    // A rollout without a total is excluded, whatever its components are.
    let rewards = [Some(1.0), Some(2.0), None, Some(7.0), None];
    let input = AdvantageInput::new(&rewards, &[0, 0, 0, 1, 1], &[1; 5])
        .with_components(&parts, &[1.0, 1.0]);
    assert_close(
        &flat(&exact.estimate(&input).unwrap().per_token),
        &[-HALF, HALF, 0.0, 0.0, 0.0],
    );
}

#[test]
fn the_optimal_token_baseline_of_two_rollouts() {
    // All squares are 0.5 and pi is 1/4: w = 1 in every column, W = 1, 2, 3.
    let log_probs = PerToken::filled(&[2, 3], 0.25f64.ln());
    let squares = PerToken::filled(&[2, 3], 0.5);
    let probabilities = Probabilities {
        log_probs: &log_probs,
        sum_pi_squared: &squares,
        importance_weights: None,
    };
    let rewards = [Some(1.0), Some(0.0)];
    let dense = PerToken::from(vec![vec![0.0, 0.0], vec![2.0, 0.0, 3.0]]);
    let input = AdvantageInput::new(&rewards, &[0, 0], &[2, 3])
        .with_token_rewards(&dense)
        .with_probabilities(probabilities);
    let exact = OptimalTokenBaseline {
        epsilon: 0.0,
        ..OptimalTokenBaseline::default()
    };
    // G is 1, 1 and 5, 3, 3; the baselines are 3 and 2; the third token is alone in its column.
    let got = exact.estimate(&input).unwrap();
    assert_eq!(got.per_token, [vec![-2.0, -1.0], vec![2.0, 1.0, 3.0]]);
    let compared = OptimalTokenBaseline {
        zero_tail: false,
        ..exact.clone()
    };
    assert_eq!(
        compared.estimate(&input).unwrap().per_token[1],
        [2.0, 1.0, 0.0]
    );

    // Importance weights enter squared: 3 * 3 and 1.
    let importance = PerToken::from(vec![vec![1.0; 2], vec![3.0, 1.0, 1.0]]);
    let probabilities = Probabilities {
        importance_weights: Some(&importance),
        ..probabilities
    };
    let got = exact
        .estimate(&input.with_probabilities(probabilities))
        .unwrap();
    assert_close(&got.per_token[0][..1], &[1.0 - 46.0 / 10.0]);

    // The first rollout's second token follows an observation and is in the column of the other's
    // third.
    let positions = [vec![0, 2], vec![0, 1, 2]];
    let input = AdvantageInput {
        positions: Some(&positions),
        ..input
    };
    let got = compared.estimate(&input).unwrap();
    // W is 2 and 3 there: (2 * 1 + 3 * 3) / 5.
    assert_close(&got.per_token[0], &[-2.0, 1.0 - 2.2]);
    assert_close(&got.per_token[1], &[2.0, 0.0, 3.0 - 2.2]);
    let packed = OptimalTokenBaseline {
        align: Align::TrainedToken,
        ..compared
    };
    assert_eq!(
        packed.estimate(&input).unwrap().per_token,
        [vec![-2.0, -1.0], vec![2.0, 1.0, 0.0]]
    );
}

#[test]
fn the_optimal_token_baseline_of_a_certain_policy_is_zero() {
    let (log_probs, squares) = (
        PerToken::filled(&[1, 1], 0.0),
        PerToken::filled(&[1, 1], 1.0),
    );
    let input = AdvantageInput::new(&[Some(1.0), Some(2.0)], &[0, 0], &[1, 1]).with_probabilities(
        Probabilities {
            log_probs: &log_probs,
            sum_pi_squared: &squares,
            importance_weights: None,
        },
    );
    for epsilon in [0.0, 1e-8] {
        let estimator = OptimalTokenBaseline {
            epsilon,
            ..OptimalTokenBaseline::default()
        };
        assert_eq!(
            estimator.estimate(&input).unwrap().per_token,
            [vec![1.0], vec![2.0]]
        );
    }
}

#[test]
fn max_rl_divides_by_the_mean() {
    // (A4)
    let got = mean_normalized(&[6.0, 3.0, 9.0, 12.0].map(Some), &[0, 0, 1, 1], 0.0).unwrap();
    assert_close(&got, &[1.0 / 3.0, -1.0 / 3.0, -1.0 / 7.0, 1.0 / 7.0]);
    let got = mean_normalized(&[0.0, 0.0].map(Some), &[0, 0], 0.0).unwrap();
    assert_eq!(got, [0.0, 0.0]);
    let error = mean_normalized(&[Some(1.0), Some(-0.5)], &[0, 0], 0.0).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("rewards[1]") && text.contains("max_rl"),
        "{text}"
    );
}
