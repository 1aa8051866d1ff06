//! Hand-computed cases. The numbers in brackets are those of the test cases of other frameworks.

use super::lite_ppo::batch_normalized;
use super::*;

fn scored(rewards: &[f64]) -> Vec<Option<f64>> {
    rewards.iter().copied().map(Some).collect()
}

#[track_caller]
fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "got {got:?}, expected {want:?}");
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= tolerance, "got {got:?}, expected {want:?}");
    }
}

#[test]
fn group_normalized_with_one_correct_answer_in_four() {
    // (A1) The unbiased std is 0.5; the biased one would give 1.732.
    let rewards = scored(&[1.0, 0.0, 0.0, 0.0]);
    let trl = group_normalized(&rewards, &[0; 4], 1e-4, 1e-6).unwrap();
    let side = -0.25 / 0.5001;
    assert_close(&trl, &[0.75 / 0.5001, side, side, side], 1e-15);
    assert_close(&trl, &[1.4997, -0.4999, -0.4999, -0.4999], 1e-4);
    let verl = group_normalized(&rewards, &[0; 4], 1e-6, 1e-6).unwrap();
    assert_close(
        &verl,
        &[1.499_997, -0.499_999, -0.499_999, -0.499_999],
        1e-6,
    );
}

#[test]
fn group_centered_and_leave_one_out_with_pairs() {
    // (A2, A3) A group of one gets 0.
    let rewards = scored(&[6.0, 3.0, 9.0, 12.0, 1.0]);
    let groups = [0, 0, 1, 1, 2];
    assert_eq!(
        group_centered(&rewards, &groups).unwrap(),
        [1.5, -1.5, -1.5, 1.5, 0.0]
    );
    assert_eq!(
        leave_one_out(&rewards, &groups).unwrap(),
        [3.0, -3.0, -3.0, 3.0, 0.0]
    );
}

#[test]
fn leave_one_out_baselines() {
    // (A5) The advantage is the reward minus these baselines.
    let cases: [(&[f64], &[usize], &[f64]); 2] = [
        (
            &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            &[0, 0, 0, 1, 1, 1],
            &[2.5, 2.0, 1.5, 5.5, 5.0, 4.5],
        ),
        (
            &[1.0, 2.0, 4.0, 5.0, 6.0],
            &[0, 0, 1, 1, 1],
            &[2.0, 1.0, 5.5, 5.0, 4.5],
        ),
    ];
    for (rewards, groups, baselines) in cases {
        let want: Vec<f64> = rewards.iter().zip(baselines).map(|(r, b)| r - b).collect();
        let got = leave_one_out(&scored(rewards), groups).unwrap();
        assert_close(&got, &want, 1e-12);
    }
    // The second rollout is unscored: the other two are each other's baseline.
    let mut rewards = scored(&[1.0, 999.0, 3.0, 4.0, 5.0, 6.0]);
    rewards[1] = None;
    let got = leave_one_out(&rewards, &[0, 0, 0, 1, 1, 1]).unwrap();
    assert_close(&got, &[-2.0, 0.0, 2.0, -1.5, 0.0, 1.5], 1e-12);
}

#[test]
fn almost_flat_groups_get_no_large_advantages() {
    // (A6) A one-pass leave-one-out std in float32 gave -2075 for the first of these.
    let mut rewards = scored(&[0.95; 8]);
    rewards[0] = Some(0.0);
    let out = leave_one_out(&rewards, &[0; 8]).unwrap();
    assert_close(&out[..1], &[-0.95], 1e-12);
    let group = group_normalized(&rewards, &[0; 8], 0.0, 1e-6).unwrap();
    assert_close(&group[..1], &[-7.0 / 8.0_f64.sqrt()], 1e-12);

    // Equal as decimals, not as f64: rounding must not become a signal, even with epsilon 0.
    let noise = scored(&[0.1 + 0.2, 0.3, 0.3, 0.3]);
    assert_ne!(noise[0], noise[1]);
    for advantages in [
        group_normalized(&noise, &[0; 4], 0.0, 1e-6).unwrap(),
        batch_normalized(&noise, &[0; 4], 0.0, 1e-6).unwrap(),
    ] {
        assert!(advantages.iter().all(|a| a.abs() < 1e-9), "{advantages:?}");
    }
}

#[test]
fn a_small_difference_is_still_standardised() {
    // (A7) The floor is below real differences.
    let rewards = scored(&[1.0, 1.00001, 2.0, 2.00001]);
    let side = 5e-6 / (5e-6 * 2.0_f64.sqrt() + 1e-6);
    let got = group_normalized(&rewards, &[0, 0, 1, 1], 1e-6, 1e-6).unwrap();
    assert_close(&got, &[-side, side, -side, side], 1e-5);
    assert!(side > 0.6);
}

#[test]
fn flat_groups_are_exactly_zero() {
    // The mean of seven 0.1 is not exactly 0.1.
    for count in 1..12 {
        let rewards = scored(&vec![0.1; count]);
        let groups = vec![5; count];
        for advantages in [
            group_normalized(&rewards, &groups, 0.0, 1e-300).unwrap(),
            batch_normalized(&rewards, &groups, 0.0, 1e-300).unwrap(),
            group_centered(&rewards, &groups).unwrap(),
            leave_one_out(&rewards, &groups).unwrap(),
        ] {
            assert_eq!(advantages, vec![0.0; count]);
        }
        let mut rows = PerToken::filled(&[count], 0.1);
        whiten(&mut rows, 0.0, true).unwrap();
        assert_eq!(rows[0], vec![0.0; count]);
        let mut rows = PerToken::filled(&[count], 0.1);
        whiten(&mut rows, 0.0, false).unwrap();
        assert_eq!(rows[0], vec![0.1; count]);
    }
}

#[test]
fn an_unscored_rollout_is_excluded_from_the_statistics() {
    // (A8) 1, 2, 3 and one that could not be scored: std 1.
    let rewards = [Some(1.0), Some(2.0), Some(3.0), None];
    let got = group_normalized(&rewards, &[0; 4], 0.0, 1e-6).unwrap();
    assert_close(&got, &[-1.0, 0.0, 1.0, 0.0], 1e-15);
    assert_eq!(group_centered(&[None; 3], &[0; 3]).unwrap(), [0.0; 3]);

    let statistics = GroupStatistics::of(
        &[
            Some(1.0),
            Some(2.0),
            Some(3.0),
            None,
            Some(4.0),
            Some(4.0),
            None,
            Some(1.0),
        ],
        &[0, 0, 0, 0, 1, 1, 2, 3],
    )
    .unwrap();
    // Group 1 is flat, 2 has no score, 3 has one score; the stds are 1 and 0.
    let want = GroupStatistics {
        groups: 4,
        scored_groups: 3,
        zero_std_groups: 2,
        unscored: 2,
        mean_std: 0.5,
    };
    assert_eq!(statistics, want);
    assert_eq!(statistics.frac_zero_std(), Some(2.0 / 3.0));
    let unscored = GroupStatistics::of(&[None, None], &[0, 1]).unwrap();
    assert_eq!((unscored.groups, unscored.frac_zero_std()), (2, None));
}

#[test]
fn gae_of_three_tokens() {
    // (A13)
    let (rewards, values) = ([1.0, 2.0, 3.0], [0.5, 1.0, 1.5]);
    let returns = |gamma, lambda| gae(&rewards, &values, gamma, lambda).unwrap().1;
    assert_close(&returns(1.0, 1.0), &[6.0, 5.0, 3.0], 1e-15);
    assert_close(&returns(0.5, 1.0), &[2.75, 3.5, 3.0], 1e-15);
    assert_close(&returns(1.0, 0.5), &[3.625, 4.25, 3.0], 1e-15);
}

#[test]
fn gae_adds_the_outcome_at_the_last_token_and_skips_unscored_rollouts() {
    let rewards = [Some(1.0), None, Some(-1.0), Some(5.0)];
    let lengths = [2, 2, 1, 0];
    let values = PerToken::from(vec![vec![0.5, 0.25], vec![9.0, -9.0], vec![0.0], vec![]]);
    let extra = PerToken::from(vec![vec![-0.5, -0.25], vec![7.0, 7.0], vec![0.0], vec![]]);
    let input = AdvantageInput::new(&rewards, &[0, 0, 1, 1], &lengths)
        .with_values(&values)
        .with_token_rewards(&extra);
    let raw = Gae {
        lambda: 1.0,
        whiten: false,
        ..Gae::default()
    };
    let out = raw.estimate(&input).unwrap();
    // Rewards of the first rollout: -0.5, then 1 - 0.25.
    assert_eq!(
        out.per_token,
        [vec![-0.25, 0.5], vec![0.0, 0.0], vec![-1.0], vec![]]
    );
    let returns = PerToken::from(vec![vec![0.25, 0.75], vec![9.0, -9.0], vec![-1.0], vec![]]);
    assert_eq!(out.returns.as_ref(), Some(&returns));
    assert_eq!(out.statistics.unscored, 1);

    let white = Gae {
        whiten: true,
        whiten_epsilon: 0.0,
        ..raw
    };
    let out = white.estimate(&input).unwrap();
    // -0.25, 0.5 and -1 have mean -0.25 and std 0.75; the zeros of the second rollout are excluded.
    assert_close(&out.per_token[0], &[0.0, 1.0], 1e-15);
    assert_close(&out.per_token[2], &[-1.0], 1e-15);
    assert_eq!(out.per_token[1], [0.0, 0.0]);
    assert_eq!(out.returns.as_ref(), Some(&returns));
}

#[test]
fn whitening_adds_epsilon_to_the_variance() {
    // Mean 0, variance 2 plus epsilon 2: divided by 2.
    let mut rows = PerToken::from(vec![vec![1.0], vec![], vec![-1.0]]);
    whiten(&mut rows, 2.0, true).unwrap();
    assert_eq!(rows, [vec![0.5], vec![], vec![-0.5]]);
}

#[test]
fn per_rollout_gives_zero_to_a_rollout_without_a_score() {
    let input = AdvantageInput::new(&[None, Some(3.0)], &[0, 0], &[2, 1]);
    let out = Advantages::per_rollout(&input, |_, _| Ok(vec![7.0, 7.0])).unwrap();
    assert_eq!(out.per_token, [vec![0.0, 0.0], vec![7.0]]);
    assert!(Advantages::per_rollout(&input, |_, _| Ok(vec![7.0])).is_err());
}
