//! Every extraction rule on any text: it does not panic or hang, and the rules that return a part
//! of the text do.
//!
//! `cargo +nightly fuzz run extract -- -dict=fuzz/latex.dict -max_len=4096 -rss_limit_mb=4096`

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rlvr_math::{ExtractConfig, Extractor, Rule, Thinking};

static SINGLE: LazyLock<Vec<(Rule, Extractor)>> = LazyLock::new(|| {
    let rules = [
        Rule::Boxed,
        Rule::AnswerTag,
        Rule::AnswerLine,
        Rule::Gsm8k,
        Rule::LastExpression,
        Rule::LastNumber,
        Rule::Mcq,
        Rule::Bracket,
        Rule::Code,
        Rule::Whole,
    ];
    let single = |rule| {
        let config = ExtractConfig {
            thinking: Thinking::Search,
            ..ExtractConfig::with_rules([rule])
        };
        (rule, Extractor::new(config).unwrap())
    };
    rules.map(single).into()
});

fuzz_target!(|text: &str| {
    for (rule, extractor) in SINGLE.iter() {
        let Some(found) = extractor.extract(text) else {
            continue;
        };
        assert_eq!(found.rule, *rule);
        // These rules return a part of the text; the others may rewrite it.
        if matches!(
            rule,
            Rule::Boxed | Rule::AnswerTag | Rule::Bracket | Rule::Code | Rule::Whole
        ) {
            assert!(text.contains(&found.text));
        }
        assert!(found.list.is_none() || *rule == Rule::Boxed);
    }
    // The thinking is not searched.
    let hidden = format!("<think>{text}</think>");
    if !text.contains("</think>") {
        assert_eq!(Extractor::default().extract(&hidden), None);
    }
});
