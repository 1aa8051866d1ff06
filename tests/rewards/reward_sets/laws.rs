//! Laws of every set of rewards.

use proptest::prelude::*;
use rlvr::reward::{Gate, KimiLengthReward, Missing, RewardInput, RewardOptions, RewardSet};
use rlvr::rollout::RewardOutcome;

use super::{inputs, score_groups, word};

fn missing() -> impl Strategy<Value = Missing> {
    prop_oneof![
        Just(Missing::DropRollout),
        Just(Missing::LeaveOut),
        Just(Missing::Renormalise),
        (-3i32..3).prop_map(|value| Missing::Value(f64::from(value))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_total_is_the_weighted_sum_of_the_records(
        rewards in prop::collection::vec((-4i32..5, missing(), missing(), prop::option::of(0usize..4)), 1..5),
        words in prop::collection::vec(0usize..6, 0..5),
        clamp in prop::option::of((-5i32..0, 0i32..5)),
    ) {
        const WORDS: [&str; 6] = ["0", "1", "-2", "abstain", "error", "3"];
        let mut set = RewardSet::builder().threads(1);
        for (i, (weight, on_abstain, on_failure, gate)) in rewards.iter().enumerate() {
            let mut options = RewardOptions::new().with_on_abstain(*on_abstain).with_on_failure(*on_failure);
            // A gate on an earlier reward, so that there is no cycle.
            if let Some(gate) = gate.filter(|&gate| gate < i) {
                options = options.with_gate(Gate::on(format!("r{gate}")).with_otherwise(0.5));
            }
            set = set.add_with(f64::from(*weight), word(&format!("r{i}"), i), options);
        }
        if let Some((low, high)) = clamp {
            set = set.clamp(f64::from(low), f64::from(high));
        }
        let text: Vec<&str> = words.iter().map(|&word| WORDS[word]).collect();
        let scored = set.build().unwrap().score(inputs(&[&text.join(" ")]));
        let (one, mut sum, mut any) = (&scored[0], 0.0, false);
        let (mut counted, mut all, mut dropped) = (0.0, 0.0, false);
        for (record, (_, on_abstain, on_failure, _)) in one.rewards.iter().zip(&rewards) {
            let missing = match &record.outcome {
                RewardOutcome::Score(value) | RewardOutcome::Gated(value) => Missing::Value(*value),
                RewardOutcome::Abstained => *on_abstain,
                _ => *on_failure,
            };
            all += record.weight.abs();
            match missing {
                Missing::Value(value) => {
                    sum += record.weight * value;
                    counted += record.weight.abs();
                    any = true;
                }
                Missing::LeaveOut => counted += record.weight.abs(),
                Missing::Renormalise => {}
                _ => dropped = true,
            }
        }
        let scale = if counted > 0.0 { all / counted } else { 1.0 };
        let (low, high) = clamp.map_or((-1e9, 1e9), |(low, high)| (f64::from(low), f64::from(high)));
        let expected = (any && !dropped).then(|| (sum * scale).clamp(low, high));
        match (one.reward, expected) {
            (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-9, "{} {} {:?}", a, b, one),
            (a, b) => prop_assert_eq!(a, b, "{:?}", one),
        }
    }

    #[test]
    fn scores_do_not_depend_on_threads_batches_or_concurrency(
        words in prop::collection::vec(0usize..6, 0..30),
        sizes in prop::collection::vec(0usize..5, 1..8),
        threads in 1usize..5, batch in 1usize..5, concurrency in prop::option::of(1usize..5),
    ) {
        const WORDS: [&str; 6] = ["0", "1 1", "-2", "abstain", "error 1", "3 0.5"];
        let mut words = words.into_iter();
        let groups: Vec<Vec<RewardInput>> = sizes
            .iter()
            .map(|&size| inputs(&words.by_ref().take(size).map(|word| WORDS[word]).collect::<Vec<_>>()))
            .collect();
        let score = |threads, options: RewardOptions| {
            let set = RewardSet::builder()
                .add_with(1.0, word("accuracy", 0), options.clone())
                .add_with(0.5, word("b", 1), options.with_gate(Gate::on("accuracy")))
                .add_group(0.1, KimiLengthReward::new())
                .threads(threads);
            score_groups(&set.build().unwrap(), groups.clone())
        };
        let plain = score(1, RewardOptions::new());
        let other = RewardOptions::new().with_batch(batch);
        let other = concurrency.map_or(other.clone(), |calls| other.with_concurrency(calls));
        prop_assert_eq!(score(threads, other), plain.clone());
        prop_assert_eq!(plain.iter().map(Vec::len).collect::<Vec<_>>(), groups.iter().map(Vec::len).collect::<Vec<_>>());
    }
}
