//! Properties of the estimators for arbitrary rewards.

use proptest::prelude::*;

use super::lite_ppo::batch_normalized;
use super::returns::discounted_returns;
use super::whiten::whiten_scored;
use super::*;

type Scores = (Vec<Option<f64>>, Vec<usize>);
type Estimate = fn(&[Option<f64>], &[usize]) -> crate::Result<Vec<f64>>;

/// With epsilon 0: invariance under scaling is exact only then.
const NORMALIZED: Estimate = |rewards, groups| group_normalized(rewards, groups, 0.0, 1e-6);
const BATCH: Estimate = |rewards, groups| batch_normalized(rewards, groups, 0.0, 1e-6);
const ALL: [Estimate; 4] = [NORMALIZED, BATCH, group_centered, leave_one_out];

/// Rewards on a grid of quarters (so that ties and flat groups occur), a fifth of them `None`, in
/// up to four groups.
fn scores() -> impl Strategy<Value = Scores> {
    let reward =
        prop_oneof![4 => (-8i32..=8).prop_map(|r| Some(f64::from(r) / 4.0)), 1 => Just(None)];
    prop::collection::vec((reward, 0usize..4), 0..24).prop_map(|rows| rows.into_iter().unzip())
}

/// One row: the reward and value of each token.
fn row() -> impl Strategy<Value = Vec<(f64, f64)>> {
    prop::collection::vec((-2.0..2.0, -2.0..2.0), 0..16)
}

fn unzip(row: &[(f64, f64)]) -> (Vec<f64>, Vec<f64>) {
    row.iter().copied().unzip()
}

fn close(got: &[f64], want: &[f64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        prop_assert!(
            (g - w).abs() <= 1e-9 * (1.0 + w.abs()),
            "got {:?}, expected {:?}",
            got,
            want
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn normalised_advantages_ignore_scale_and_shift(
        (rewards, groups) in scores(),
        scale in 0.01..100.0,
        shift in -10.0..10.0,
    ) {
        let moved: Vec<_> = rewards.iter().map(|r| r.map(|r| r * scale + shift)).collect();
        for estimate in [NORMALIZED, BATCH] {
            close(&estimate(&moved, &groups).unwrap(), &estimate(&rewards, &groups).unwrap())?;
        }
    }

    #[test]
    fn centred_advantages_ignore_shift_and_keep_scale(
        (rewards, groups) in scores(),
        scale in 0.01..100.0,
        shift in -10.0..10.0,
    ) {
        let moved: Vec<_> = rewards.iter().map(|r| r.map(|r| r * scale + shift)).collect();
        for estimate in [group_centered as Estimate, leave_one_out] {
            let want: Vec<f64> = estimate(&rewards, &groups).unwrap().iter().map(|a| a * scale).collect();
            close(&estimate(&moved, &groups).unwrap(), &want)?;
        }
    }

    #[test]
    fn order_does_not_matter(
        (rewards, groups, order) in scores().prop_flat_map(|(rewards, groups)| {
            let order: Vec<usize> = (0..rewards.len()).collect();
            (Just(rewards), Just(groups), Just(order).prop_shuffle())
        })
    ) {
        let shuffled: Vec<_> = order.iter().map(|i| rewards[*i]).collect();
        let regrouped: Vec<_> = order.iter().map(|i| groups[*i]).collect();
        for estimate in ALL {
            let before = estimate(&rewards, &groups).unwrap();
            let want: Vec<f64> = order.iter().map(|i| before[*i]).collect();
            close(&estimate(&shuffled, &regrouped).unwrap(), &want)?;
        }
    }

    #[test]
    fn a_repeated_group_has_the_same_advantages((rewards, groups) in scores()) {
        let twice = [rewards.clone(), rewards.clone()].concat();
        let renamed: Vec<_> = groups.iter().copied().chain(groups.iter().map(|g| g + 100)).collect();
        for estimate in [NORMALIZED, group_centered, leave_one_out] {
            let once = estimate(&rewards, &groups).unwrap();
            prop_assert_eq!(estimate(&twice, &renamed).unwrap(), [once.clone(), once].concat());
        }
    }

    #[test]
    fn advantages_of_a_group_sum_to_zero((rewards, groups) in scores()) {
        for estimate in ALL {
            let advantages = estimate(&rewards, &groups).unwrap();
            for group in 0..4 {
                let sum: f64 = advantages.iter().zip(&groups).filter(|(_, g)| **g == group).map(|(a, _)| a).sum();
                prop_assert!(sum.abs() < 1e-9, "group {} of {:?} sums to {}", group, advantages, sum);
            }
        }
    }

    #[test]
    fn leave_one_out_is_the_centred_reward_rescaled((rewards, groups) in scores()) {
        let got = leave_one_out(&rewards, &groups).unwrap();
        for (i, reward) in rewards.iter().enumerate() {
            let others: Vec<f64> = (0..rewards.len())
                .filter(|j| *j != i && groups[*j] == groups[i])
                .filter_map(|j| rewards[j])
                .collect();
            // By the definition; the implementation uses the rescaled form.
            let want = match reward {
                Some(reward) if !others.is_empty() => reward - others.iter().sum::<f64>() / others.len() as f64,
                _ => 0.0,
            };
            close(&got[i..=i], &[want])?;
        }
    }

    #[test]
    fn unscored_rollouts_change_nothing((rewards, groups) in scores()) {
        let keep: Vec<usize> = (0..rewards.len()).filter(|i| rewards[*i].is_some()).collect();
        let kept: Vec<_> = keep.iter().map(|i| rewards[*i]).collect();
        let kept_groups: Vec<_> = keep.iter().map(|i| groups[*i]).collect();
        for estimate in ALL {
            let with = estimate(&rewards, &groups).unwrap();
            let without = estimate(&kept, &kept_groups).unwrap();
            let of_kept: Vec<f64> = keep.iter().map(|i| with[*i]).collect();
            prop_assert_eq!(of_kept, without);
            for (advantage, reward) in with.iter().zip(&rewards) {
                prop_assert!(reward.is_some() || *advantage == 0.0);
            }
        }
    }

    #[test]
    fn group_estimators_add_token_rewards_to_the_score((rewards, groups) in scores(), penalty in -1.0..1.0) {
        let lengths: Vec<usize> = (0..rewards.len()).map(|i| 1 + i % 3).collect();
        let extra: PerToken = lengths.iter().map(|n| vec![penalty; *n]).collect();
        let summed: Vec<_> = rewards.iter().zip(&lengths).map(|(r, n)| r.map(|r| r + penalty * *n as f64)).collect();
        let apart = AdvantageInput::new(&rewards, &groups, &lengths).with_token_rewards(&extra);
        let added = AdvantageInput::new(&summed, &groups, &lengths);
        let (apart, added) = (LeaveOneOut::default().estimate(&apart).unwrap(), LeaveOneOut::default().estimate(&added).unwrap());
        close(&flat(&apart.per_token), &flat(&added.per_token))?;
    }

    #[test]
    fn gae_with_lambda_one_is_the_return_minus_the_value(row in row(), gamma in 0.0..=1.0) {
        let (rewards, values) = unzip(&row);
        let (advantages, returns) = gae(&rewards, &values, gamma, 1.0).unwrap();
        let to_go = discounted_returns(&rewards, gamma).unwrap();
        let want: Vec<f64> = to_go.iter().zip(&values).map(|(to_go, value)| to_go - value).collect();
        close(&advantages, &want)?;
        close(&returns, &to_go)?;
    }

    #[test]
    fn gae_with_lambda_zero_is_the_one_step_td_error(row in row(), gamma in 0.0..=1.0) {
        let (rewards, values) = unzip(&row);
        let (advantages, _) = gae(&rewards, &values, gamma, 0.0).unwrap();
        let want: Vec<f64> = (0..row.len())
            .map(|t| rewards[t] + gamma * values.get(t + 1).unwrap_or(&0.0) - values[t])
            .collect();
        close(&advantages, &want)?;
    }

    #[test]
    fn whitened_tokens_have_mean_zero_and_variance_one(
        rows in prop::collection::vec((row(), any::<bool>()), 1..8),
    ) {
        let scores: Vec<Option<f64>> = rows.iter().map(|(_, scored)| scored.then_some(1.0)).collect();
        let before: PerToken = rows.iter().map(|(row, _)| unzip(row).0).collect();
        let mut after = before.clone();
        whiten_scored(&mut after, &scores, 0.0).unwrap();
        let select = |rows: &PerToken, scored: bool| -> PerToken {
            let rows = rows.rows().zip(&scores).filter(|(_, score)| score.is_some() == scored);
            rows.map(|(row, _)| row.to_vec()).collect()
        };
        prop_assert_eq!(select(&after, false), select(&before, false));
        let tokens = flat(&select(&after, true));
        let n = tokens.len() as f64;
        prop_assume!(n >= 2.0);
        let old = select(&before, true);
        let old_mean = old.values().sum::<f64>() / n;
        close(&[tokens.iter().sum::<f64>() / n, tokens.iter().map(|x| x * x).sum::<f64>() / (n - 1.0)], &[0.0, 1.0])?;
        let (mut alone, mut unshifted) = (old.clone(), old);
        whiten(&mut alone, 0.0, true).unwrap();
        close(&flat(&alone), &tokens)?;
        whiten(&mut unshifted, 0.0, false).unwrap();
        let shifted: Vec<f64> = tokens.iter().map(|x| x + old_mean).collect();
        close(&flat(&unshifted), &shifted)?;
    }
}
