//! The comparison of any two texts, the first line and the rest of the input: it does not panic or
//! hang, and is deterministic.
//!
//! `cargo +nightly fuzz run math -- -dict=fuzz/latex.dict -max_len=4096 -rss_limit_mb=4096`

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rlvr_math::{MathConfig, MathVerifier};

static VERIFIER: LazyLock<MathVerifier> = LazyLock::new(|| {
    MathVerifier::new(MathConfig {
        // Allows long texts, and many comparisons a second.
        max_bytes: 200_000,
        fuel: 200_000,
        ..MathConfig::default()
    })
    .unwrap()
});

fuzz_target!(|text: &str| {
    let (gold, answer) = text.split_once('\n').unwrap_or((text, "x"));
    let first = VERIFIER.compare(gold, answer);
    assert_eq!(first, VERIFIER.compare(gold, answer));
    VERIFIER.compare(answer, gold);
    VERIFIER.compare(text, text);
});
