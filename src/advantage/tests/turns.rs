//! Turn-level credit, computed by hand and by definition; and GAE over the trained tokens of
//! rollouts with other tokens between them.

use rand::Rng;

use super::*;
use crate::random;

fn turn(tokens: usize, reward: f64, state: u64) -> TurnCredit {
    TurnCredit {
        tokens,
        reward,
        state,
    }
}

#[track_caller]
fn assert_rows(got: &Advantages, want: &[Vec<f64>]) {
    for (got, want) in got.per_token.rows().zip(want) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-9, "got {got:?}, expected {want:?}");
        }
    }
}

/// Three rollouts of one group: two turns, two turns, one turn.
fn turns() -> Vec<Vec<TurnCredit>> {
    vec![
        vec![turn(2, 1.0, 0), turn(1, 0.5, 7)],
        vec![turn(1, 0.0, 0), turn(2, 0.0, 7)],
        vec![turn(2, 0.25, 0)],
    ]
}

const OUTCOMES: [Option<f64>; 3] = [Some(1.0), Some(0.0), Some(2.0)];

fn input(turns: &[Vec<TurnCredit>]) -> AdvantageInput<'_> {
    AdvantageInput {
        turns: Some(turns),
        ..AdvantageInput::new(&OUTCOMES, &[0; 3], &[3, 3, 2])
    }
}

#[test]
fn turn_returns_subtracts_the_returns_of_the_others() {
    let turns = turns();
    let got = TurnReturns { gamma: 0.5 }.estimate(&input(&turns)).unwrap();
    // G: [1 + 0.5 * 1.5, 1.5], [0, 0], [2.25]; the third rollout ends before the second turn.
    let first = |own: f64, others: f64| own - others / 2.0;
    assert_rows(
        &got,
        &[
            vec![first(1.75, 2.25), first(1.75, 2.25), first(1.5, 0.0)],
            vec![first(0.0, 4.0), first(0.0, 1.5), first(0.0, 1.5)],
            vec![first(2.25, 1.75); 2],
        ],
    );
}

#[test]
fn the_baseline_of_a_turn_does_not_depend_on_its_own_rollout() {
    let mut turns = turns();
    let before = TurnReturns::default().estimate(&input(&turns)).unwrap();
    turns[0][1].reward += 3.0;
    let after = TurnReturns::default().estimate(&input(&turns)).unwrap();
    for (a, b) in before.per_token[0].iter().zip(&after.per_token[0]) {
        assert!((b - a - 3.0).abs() < 1e-12);
    }
}

#[test]
fn mt_grpo_standardises_outcome_and_turn_separately() {
    let z = |rewards: &[f64], own: f64| {
        let n = rewards.len() as f64;
        let mean = rewards.iter().sum::<f64>() / n;
        let squares: f64 = rewards.iter().map(|x| (x - mean).powi(2)).sum();
        (own - mean) / ((squares / (n - 1.0)).sqrt() + 1e-4)
    };
    let turns = turns();
    let outcomes = [1.5, 0.0, 2.25];
    let sums = [2.5, 0.0, 2.25];
    let got = MtGrpo {
        assignment: TurnAssignment::Additive { coef: 2.0 },
        ..MtGrpo::default()
    };
    let got = got.estimate(&input(&turns)).unwrap();
    // Only two rollouts have a second turn.
    let first = [1.0, 0.0];
    let a = z(&outcomes, 1.5) + 2.0 * z(&first, 1.0);
    let b = z(&outcomes, 0.0) + 2.0 * z(&first, 0.0);
    assert_rows(
        &got,
        &[
            vec![a, a, z(&outcomes, 1.5)],
            vec![b, z(&outcomes, 0.0), z(&outcomes, 0.0)],
            vec![z(&sums, 2.25); 2],
        ],
    );
    let got = MtGrpo {
        assignment: TurnAssignment::Cumulative { gamma: 0.9 },
        ..MtGrpo::default()
    };
    let got = got.estimate(&input(&turns)).unwrap();
    let first = [1.0 + 0.9 * 1.5, 0.0];
    assert!((got.per_token[0][0] - z(&first, first[0])).abs() < 1e-9);
    assert!((got.per_token[0][2] - z(&outcomes, 1.5)).abs() < 1e-9);
}

#[test]
fn gigpo_compares_turns_from_the_same_state() {
    let turns = turns();
    let gigpo = Gigpo {
        gamma: 0.5,
        step_weight: 3.0,
        scale: false,
        ..Gigpo::default()
    };
    let got = gigpo.estimate(&input(&turns)).unwrap();
    let episode = |own: f64| own - (2.5 + 0.0 + 2.25) / 3.0;
    let start = |own: f64| 3.0 * (own - (1.75 + 0.0 + 2.25) / 3.0);
    let seven = |own: f64| 3.0 * (own - (1.5 + 0.0) / 2.0);
    assert_rows(
        &got,
        &[
            vec![
                episode(2.5) + start(1.75),
                episode(2.5) + start(1.75),
                episode(2.5) + seven(1.5),
            ],
            vec![
                episode(0.0) + start(0.0),
                episode(0.0) + seven(0.0),
                episode(0.0) + seven(0.0),
            ],
            vec![episode(2.25) + start(2.25); 2],
        ],
    );
    // A state that occurs once has no step advantage.
    let mut alone = turns.clone();
    alone[0][1].state = 8;
    let got = gigpo.estimate(&input(&alone)).unwrap();
    assert!((got.per_token[0][2] - episode(2.5)).abs() < 1e-12);
}

#[test]
fn invalid_turns_and_settings_are_errors() {
    let mut turns = turns();
    turns[1][0].tokens += 1;
    let message = Gigpo::default()
        .estimate(&input(&turns))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("turns[1]") && message.contains('4'),
        "{message}"
    );
    turns[1][0] = turn(1, f64::NAN, 0);
    let message = Gigpo::default()
        .estimate(&input(&turns))
        .unwrap_err()
        .to_string();
    assert!(message.contains("turns[1][0].reward"), "{message}");
    let broken = [
        Estimator::from(TurnReturns { gamma: 1.5 }),
        Gigpo {
            step_weight: f64::INFINITY,
            ..Gigpo::default()
        }
        .into(),
        MtGrpo {
            assignment: TurnAssignment::Additive { coef: f64::NAN },
            ..MtGrpo::default()
        }
        .into(),
    ];
    assert!(broken.iter().all(|estimator| estimator.validate().is_err()));
}

/// The recursion over all tokens, as in verl: at a token that is not trained, the next value and
/// advantage are kept.
fn gae_that_skips(
    rewards: &[f64],
    values: &[f64],
    mask: &[bool],
    gamma: f64,
    lambda: f64,
) -> Vec<f64> {
    let (mut next_value, mut last) = (0.0, 0.0);
    let mut advantages = vec![0.0; mask.len()];
    for t in (0..mask.len()).rev() {
        if mask[t] {
            let delta = rewards[t] + gamma * next_value - values[t];
            last = delta + gamma * lambda * last;
            next_value = values[t];
        }
        advantages[t] = last;
    }
    advantages
}

#[test]
fn gae_over_trained_tokens_equals_gae_that_skips_the_others() {
    let mut rng = random::generator(&[11]);
    let mut unit = move || (rng.next_u64() >> 11) as f64 * (-53f64).exp2();
    for _ in 0..2000 {
        let length = 1 + (unit() * 12.0) as usize;
        let mask: Vec<bool> = (0..length).map(|_| unit() < 0.6).collect();
        let mut numbers = || {
            (0..length)
                .map(|_| 4.0 * unit() - 2.0)
                .collect::<Vec<f64>>()
        };
        let (rewards, values) = (numbers(), numbers());
        let (gamma, lambda) = (unit(), unit());
        let trained = |all: &[f64]| -> Vec<f64> {
            let both = all.iter().zip(&mask);
            both.filter(|(_, trained)| **trained)
                .map(|(x, _)| *x)
                .collect()
        };
        let (got, _) = gae(&trained(&rewards), &trained(&values), gamma, lambda).unwrap();
        let want = trained(&gae_that_skips(&rewards, &values, &mask, gamma, lambda));
        assert_eq!(got, want);
    }
}
