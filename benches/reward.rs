//! What it costs to run a reward untrusted: a trivial reward called directly, against the same
//! reward in a set with threads, a time limit and records.
//!
//! `cargo bench --bench reward`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rlvr::reward::{FormatReward, Reward, RewardInput, RewardSet};

fn overhead(c: &mut Criterion) {
    let text = "<think>7+8+0=15,3+4+1=08</think><answer>85</answer>";
    let inputs = vec![RewardInput::new("37+48=", "85", text); 10_000];
    let mut group = c.benchmark_group("ten_thousand_rollouts");
    group.sample_size(20);
    let reward = FormatReward::new();
    group.bench_function("called_directly", |b| {
        b.iter(|| {
            let scores = inputs.iter().map(|input| reward.score(input));
            black_box(scores.filter_map(|score| score.ok().flatten()).sum::<f64>())
        })
    });
    let set = RewardSet::builder().add(1.0, FormatReward::new()).build();
    let set = set.expect("one reward");
    group.bench_function("cloned_and_in_a_set", |b| {
        b.iter(|| black_box(set.score(inputs.clone())))
    });
    group.finish();
}

criterion_group!(benches, overhead);
criterion_main!(benches);
