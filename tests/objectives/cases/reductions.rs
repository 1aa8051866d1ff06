//! Aggregation of token losses.

use burn::tensor::Device;
use rlvr::loss::{
    Aggregation, Denominators, LossInput, PolicyObjective, SamplerCorrection, StepCounts,
    StepStatistics,
};

use super::one_row::reinforce;
use crate::common::{assert_close, devices, floats, matrix};

/// `aggregate(x)`: with advantage 1, the term of REINFORCE is `-ln pi`.
fn reduce(
    aggregation: Aggregation,
    x: &[[f64; 2]],
    mask: &[[f64; 2]],
    counts: StepCounts,
    device: &Device,
) -> f64 {
    let tensor = |rows: &[[f64; 2]], factor: f64| {
        let rows: Vec<Vec<f64>> = rows
            .iter()
            .map(|r| r.map(|x| x * factor).to_vec())
            .collect();
        matrix(&rows, device)
    };
    let input = LossInput::new(
        tensor(x, -1.0),
        tensor(&vec![[1.0; 2]; x.len()], 1.0),
        tensor(mask, 1.0),
    );
    floats(reinforce(aggregation).loss(&input, counts).unwrap().loss)[0]
}

#[test]
fn reductions_divide_by_their_documented_denominators() {
    let step = |tokens, sequences| StepCounts { tokens, sequences };
    for (backend, device) in devices() {
        let check = |aggregation, x: &[[f64; 2]], mask: &[[f64; 2]], counts, want: f64| {
            let got = reduce(aggregation, x, mask, counts, &device);
            assert_close(got, want, 1e-6, 0.0, &format!("{backend} {aggregation:?}"));
        };
        let holed = [[1.0, 1.0], [1.0, 0.0]];
        // (1 + 2 + 3) / 3, ((1 + 2) / 2 + 3) / 2, (1 + 2 + 3) / 2.
        let x = [[1.0, 2.0], [3.0, 4.0]];
        check(Aggregation::TokenMean, &x, &holed, step(3, 2), 2.0);
        check(
            Aggregation::SequenceMeanTokenMean,
            &x,
            &holed,
            step(3, 2),
            2.25,
        );
        check(
            Aggregation::SequenceMeanTokenSum,
            &x,
            &holed,
            step(3, 2),
            3.0,
        );
        // (5 + 9) / (2 * 10).
        let x = [[2.0, 3.0], [9.0, 12.0]];
        check(
            Aggregation::Constant { length: 10 },
            &x,
            &holed,
            step(3, 2),
            0.7,
        );
        // A row without a token: the count decides whether it is in the denominator.
        let (x, gone) = ([[1.0, 3.0], [5.0, 7.0]], [[1.0, 1.0], [0.0, 0.0]]);
        check(
            Aggregation::SequenceMeanTokenMean,
            &x,
            &gone,
            step(2, 1),
            2.0,
        );
        check(
            Aggregation::SequenceMeanTokenMean,
            &x,
            &gone,
            step(2, 2),
            1.0,
        );
        // No token at all is 0, not 0/0.
        for aggregation in [
            Aggregation::TokenMean,
            Aggregation::SequenceMeanTokenMean,
            Aggregation::SequenceMeanTokenSum,
            Aggregation::TokenSum,
            Aggregation::Constant { length: 10 },
        ] {
            for counts in [step(0, 0), step(0, 2)] {
                check(aggregation, &x, &[[0.0; 2]; 2], counts, 0.0);
            }
        }
        // Three columns: (1 + 2 + 4 + 5 + 6) / 5.
        let rows = |rows: [[f64; 3]; 2]| matrix(&rows.map(|row| row.to_vec()), &device);
        let input = LossInput::new(
            rows([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]),
            rows([[1.0; 3]; 2]),
            rows([[1.0, 1.0, 0.0], [1.0; 3]]),
        );
        let counts = StepCounts::of(&[2, 3]);
        let loss = reinforce(Aggregation::TokenMean)
            .loss(&input, counts)
            .unwrap();
        assert_close(floats(loss.loss)[0], 3.6, 1e-6, 0.0, backend);
    }
}

/// The shares of micro-batches of `size` rows, prompts of `group` rows each.
fn shares(
    aggregation: Aggregation,
    (x, mask): (&[Vec<f64>], &[Vec<f64>]),
    (size, group): (usize, usize),
    device: &Device,
) -> Vec<f64> {
    let length = |row: &Vec<f64>| row.iter().sum::<f64>();
    let prompt_tokens = mask.chunks(group).enumerate();
    let prompt_tokens = prompt_tokens.map(|(id, rows)| {
        let tokens: f64 = rows.iter().map(length).sum();
        (id, tokens as usize)
    });
    let step = StepStatistics {
        prompt_tokens: Some(prompt_tokens.collect()),
        ..StepStatistics::new(Denominators {
            tokens: mask.iter().map(length).sum(),
            sequences: mask.len() as f64,
            prompts: (mask.len() / group) as f64,
        })
    };
    let starts = (0..x.len()).step_by(size);
    let share = |at: usize| {
        let own = at..at + size;
        let log_probs = matrix(&x[own.clone()], device).neg();
        let input = LossInput {
            prompts: Some(own.clone().map(|b| b / group).collect()),
            ..LossInput::new(
                log_probs.clone(),
                log_probs.ones_like(),
                matrix(&mask[own], device),
            )
        };
        floats(reinforce(aggregation).loss(&input, &step).unwrap().loss)[0]
    };
    starts.map(share).collect()
}

#[test]
fn every_prompt_weighs_the_same_in_the_prompt_mean() {
    let x = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]].map(Vec::from);
    let mask = [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]].map(Vec::from);
    for (backend, device) in devices() {
        // ((1 + 2 + 3) / 3 + (5 + 6 + 7 + 8) / 4) / 2, also where a prompt is cut in two.
        for size in [4, 2, 1] {
            let got = shares(Aggregation::PromptMean, (&x, &mask), (size, 2), &device);
            assert_close(got.iter().sum(), 4.25, 1e-6, 0.0, backend);
        }
    }
}

#[test]
fn aggregations_exclude_rejected_tokens_from_the_denominator() {
    // Three completions of two tokens, of which the second is rejected; every token's loss is 1.
    let aggregations = [
        Aggregation::TokenMean,
        Aggregation::SequenceMeanTokenMean,
        Aggregation::PromptMean,
    ];
    // All in one prompt; the rejected one beside the first; the rejected one alone.
    let prompts = [[7, 7, 7], [7, 7, 3], [7, 3, 5]];
    for (backend, device) in devices() {
        for (aggregation, prompts) in aggregations
            .into_iter()
            .flat_map(|a| prompts.map(|p| (a, p)))
        {
            let rows = |rows: [[f64; 2]; 3]| matrix(&rows.map(Vec::from), &device);
            let objective = PolicyObjective {
                sampler_correction: Some(SamplerCorrection::geometric_rejection(0.5, 2.0)),
                ..reinforce(aggregation)
            };
            let input = LossInput {
                old_log_probs: Some(rows([[-1.0; 2]; 3])),
                sampler_log_probs: Some(rows([[-1.0; 2], [-3.0; 2], [-1.0; 2]])),
                prompts: Some(prompts.to_vec()),
                ..LossInput::new(
                    rows([[-1.0; 2]; 3]),
                    rows([[1.0; 2]; 3]),
                    rows([[1.0; 2]; 3]),
                )
            };
            let step = objective.statistics(std::slice::from_ref(&input)).unwrap();
            let loss = objective.loss(&input, &step).unwrap();
            let what = format!("{backend} {aggregation:?} {prompts:?}");
            assert_close(floats(loss.loss)[0], 1.0, 1e-6, 0.0, &what);
        }
    }
}

#[test]
fn the_token_mean_is_over_the_step_not_over_micro_batches() {
    let x = [[2.0, 4.0], [6.0, 8.0], [10.0, 12.0], [14.0, 16.0]].map(Vec::from);
    let mask = [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]].map(Vec::from);
    for (backend, device) in devices() {
        let got = shares(Aggregation::TokenMean, (&x, &mask), (2, 1), &device);
        // Not the 8.5 of (12 / 3 + 52 / 4) / 2.
        assert_close(got.iter().sum(), 64.0 / 7.0, 1e-6, 0.0, backend);
        let x = [[1.0, 2.0, 0.0], [3.0, 4.0, 5.0], [7.0, 0.0, 0.0], [0.0; 3]].map(Vec::from);
        let mask = [[1.0, 1.0, 0.0], [1.0; 3], [1.0, 0.0, 0.0], [0.0; 3]].map(Vec::from);
        let got = shares(Aggregation::TokenMean, (&x, &mask), (2, 1), &device);
        assert_close(got[0], 15.0 / 6.0, 1e-6, 0.0, backend);
        assert_close(got[0] + got[1], 22.0 / 6.0, 1e-6, 0.0, backend);
    }
}

#[test]
fn token_sum_adds_up_the_tokens() {
    let x = [[1.0, 2.0, 30.0], [4.0, 50.0, 6.0]].map(Vec::from);
    let mask = [[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]].map(Vec::from);
    for (backend, device) in devices() {
        let got = shares(Aggregation::TokenSum, (&x, &mask), (2, 1), &device);
        assert_eq!(got, [13.0], "{backend}");
    }
}

#[test]
fn the_size_of_micro_batches_changes_no_total() {
    let x: Vec<Vec<f64>> = (0..8)
        .map(|b| (1..4).map(|t| f64::from(3 * b + t)).collect())
        .collect();
    let mask = vec![vec![1.0, 1.0, 0.0]; 8];
    // All but every third of 1 to 24: 300 - 108.
    for (aggregation, want) in [
        (Aggregation::TokenMean, 192.0 / 16.0),
        (Aggregation::TokenSum, 192.0),
        (Aggregation::SequenceMeanTokenMean, 192.0 / 2.0 / 8.0),
        (Aggregation::SequenceMeanTokenSum, 192.0 / 8.0),
        (Aggregation::Constant { length: 3 }, 192.0 / 24.0),
        (Aggregation::PromptMean, 192.0 / 16.0),
    ] {
        for (backend, device) in devices() {
            for size in [8, 4, 2, 1] {
                let got = shares(aggregation, (&x, &mask), (size, 4), &device);
                let what = format!("{backend} {aggregation:?} {size}");
                assert_close(got.iter().sum(), want, 1e-6, 0.0, &what);
            }
        }
    }
}
