//! Throughput of the comparison in pairs a second, on the golden cases that have an answer,
//! separately for the expensive ones.
//!
//! Run it with `cargo bench -p rlvr-math`. `benches/peer_math.py` measures Math-Verify on the same
//! pairs.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rlvr_math::MathVerifier;
use std::hint::black_box;

/// Returns the gold and answer of the cases whose class is `wanted`.
fn pairs(wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/math_cases.jsonl");
    let text = std::fs::read_to_string(file).expect("the golden cases");
    text.lines()
        .filter_map(|line| {
            let case: serde_json::Value = serde_json::from_str(line).expect("a case");
            let field = |name: &str| case[name].as_str().map(str::to_owned);
            wanted(&field("class")?).then_some(())?;
            Some((field("gold")?, field("answer")?))
        })
        .collect()
}

fn throughput(c: &mut Criterion) {
    let verifier = MathVerifier::default();
    let mut group = c.benchmark_group("math");
    group.sample_size(20);
    for (name, pairs) in [
        ("shared_cases", pairs(|class| class != "bomb")),
        ("attacks", pairs(|class| class == "bomb")),
    ] {
        group.throughput(Throughput::Elements(pairs.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                pairs
                    .iter()
                    .filter(|(gold, answer)| black_box(verifier.compare(gold, answer)).is_equal())
                    .count()
            })
        });
    }
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
