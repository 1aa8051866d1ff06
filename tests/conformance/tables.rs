//! The tables of `src/loss/presets.md`, which are part of the documentation: written by this test with `RLVR_BLESS=1`, and held to what
//! the code says otherwise.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use rlvr::loss::{
    Aggregation, CispoBand, KlPenalty, PolicyObjective, RatioLevel, Surrogate, presets,
};

/// Cases passed, by file and kind.
type Passed = BTreeMap<(&'static str, String), usize>;

/// What a row of the first table says beside its counts: kind of the cases, name, formula, source, presets.
const OBJECTIVES: [[&str; 5]; 13] = [
    [
        "ppo_clip",
        "PPO-clip",
        "`-min(r A, clip(r, 1-low, 1+high) A)`; with delta `-min(min(r, delta) A, ..)`; dual clip: at most `-c A` where A < 0",
        "1707.06347, 2402.03300, 2503.14476 (asymmetric), 2505.07291 (delta), 1912.09729 (dual)",
        "`grpo`, `deepseek_r1`, `deepseek_v32`, `dr_grpo`, `dapo`, `trl`, `verl`, `ppo`, `gspo`, `luspo`, `reinforce_plus_plus`, `rloo`",
    ],
    [
        "gspo_token",
        "GSPO-token",
        "PPO-clip of `s_t = sg(exp(mean d)) pi_t / sg(pi_t)`",
        "2507.18071, eq. 13",
        "`gspo_token`",
    ],
    [
        "cispo",
        "CISPO",
        "`-sg(clip(r)) A ln pi`",
        "2506.13585",
        "`cispo` (TRL), `cispo_verl`",
    ],
    [
        "sapo",
        "SAPO",
        "`-(4/tau) sigmoid(tau (r-1)) A`",
        "2511.20347",
        "`sapo`",
    ],
    [
        "gmpo",
        "GMPO",
        "`-mean(A) exp(mean_t clip±(d_t, -low, high))`",
        "2507.20673",
        "`gmpo`",
    ],
    [
        "vespo",
        "VESPO",
        "`-sg(exp(lambda + k S - lambda e^S)) A ln pi`, `S = sum_t d_t`",
        "2602.10693",
        "`vespo`",
    ],
    [
        "dppo_tv",
        "DPPO, total variation",
        "`-sg(min(r, cap)) A ln pi` unless `pi - pi_old` has gone too far with A",
        "2602.04879",
        "`dppo_tv`",
    ],
    [
        "dppo_kl",
        "DPPO, binary KL",
        "the same with `KL(Bern(pi_old), Bern(pi))`",
        "2602.04879",
        "`dppo_kl`",
    ],
    [
        "dro",
        "DRO",
        "`-(A ln pi - beta/2 d^2)`",
        "2405.19107",
        "`PolicyObjective::dro(beta)`",
    ],
    [
        "clip_cov",
        "Clip-Cov",
        "PPO-clip, 0 on some tokens of large covariance of `A` and `ln pi`",
        "2505.22617, eq. 11",
        "`clip_cov`",
    ],
    [
        "kl_cov",
        "KL-Cov",
        "`-r A`, plus `coef abs(d)` on the tokens of largest covariance",
        "2505.22617, eq. 13",
        "`kl_cov`",
    ],
    [
        "reinforce",
        "REINFORCE",
        "`-A ln pi`, weighed by a correction in the bypass",
        "Williams 1992",
        "`reinforce`",
    ],
    ["gpg", "GPG", "`-A ln pi`", "2504.02546", "`gpg`"],
];

pub fn hold(passed: &Passed) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/loss/presets.md");
    let text = document(passed);
    if std::env::var_os("RLVR_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(
        found == text,
        "src/loss/presets.md is stale; write it with RLVR_BLESS=1 cargo test --features ndarray --test conformance"
    );
}

fn document(passed: &Passed) -> String {
    let mut text = String::from(
        "<!-- Written by tests/conformance/tables.rs: RLVR_BLESS=1 cargo test --features ndarray --test conformance -->\n\n\
         # Objectives\n\n\
         `d = ln pi - ln pi_old`, `r = exp(d)` at the objective's ratio level, `A` the advantage, `sg` stop-gradient; per token, to be minimised.\n\
         The last column counts the cases, made by running TRL 1.16.0 and verl 0.9.1, whose loss, gradient and metrics agree on both CPU backends.\n\n\
         | objective | per token | source (arXiv) | presets | cases |\n|---|---|---|---|---|\n",
    );
    for [kind, name, formula, source, used] in OBJECTIVES {
        let cases = passed.get(&("policy_loss", kind.to_string()));
        let cases = cases.unwrap_or_else(|| panic!("no case of {kind} passed"));
        writeln!(text, "| {name} | {formula} | {source} | {used} | {cases} |").unwrap();
    }
    let known: Vec<&str> = OBJECTIVES.iter().map(|row| row[0]).collect();
    for (file, kind) in passed.keys() {
        assert!(
            *file != "policy_loss" || known.contains(&kind.as_str()),
            "{kind} has no row"
        );
    }
    text.push_str("\nBeside them: ");
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for ((file, _), count) in passed {
        if *file != "policy_loss" {
            *others.entry(file).or_default() += count;
        }
    }
    let others: Vec<String> = others
        .into_iter()
        .map(|(file, count)| format!("{count} cases of `{file}`"))
        .collect();
    writeln!(
        text,
        "{}; {} in all.",
        others.join(", "),
        passed.values().sum::<usize>()
    )
    .unwrap();

    text.push_str(
        "\n# Presets\n\nEvery parameter; what is not in a row is off. `dr_grpo` takes the completion limit, here 1024.\n\n\
         | preset | surrogate | ratio | log-ratio within | aggregation | KL in the loss | other | advantages |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for name in presets::NAMES {
        let objective = PolicyObjective::named(name, 1024).unwrap();
        writeln!(text, "{}", preset(name, &objective)).unwrap();
    }
    text
}

fn preset(name: &str, objective: &PolicyObjective) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or("-".into());
    let clamp = objective
        .log_ratio_clamp
        .map(|clamp| match (clamp.min, clamp.max) {
            (Some(min), Some(max)) => format!("[{min}, {max}]"),
            (None, Some(max)) => format!("up to {max}"),
            (min, _) => format!("from {min:?}"),
        });
    let ratio = match (&objective.surrogate, objective.ratio_level) {
        (Surrogate::Reinforce(_), _) => "none",
        (Surrogate::Vespo(_), _) => "its own sum",
        (Surrogate::Gmpo(_), _) => "its own mean",
        (_, RatioLevel::Token) => "token",
        (_, RatioLevel::Sequence) => "completion, mean",
        (_, RatioLevel::SequenceSum) => "completion, sum",
        (_, RatioLevel::SequenceToken) => "completion, mean, token gradient",
    };
    assert_eq!(
        (objective.entropy_coef, &objective.sampler_correction),
        (0.0, &None)
    );
    assert_eq!(
        (objective.entropy_aggregation, objective.top_entropy),
        (None, None)
    );
    let off_policy = objective
        .off_policy_mask
        .map(|mask| format!("off-policy mask {}", mask.threshold));
    format!(
        "| `{name}` | {} | {ratio} | {} | {} | {} | {} | {} |",
        surrogate(&objective.surrogate),
        or_dash(clamp),
        aggregation(objective.aggregation),
        or_dash(objective.kl.map(kl)),
        or_dash(off_policy),
        advantages(name),
    )
}

fn surrogate(surrogate: &Surrogate) -> String {
    match surrogate {
        Surrogate::PpoClip(clip) => {
            let mut text = format!("PPO-clip ({}, {})", clip.low, clip.high);
            if let Some(delta) = clip.delta {
                write!(text, ", delta {delta}").unwrap();
            }
            if let Some(c) = clip.dual_clip {
                write!(text, ", dual clip {c}").unwrap();
            }
            text
        }
        Surrogate::Reinforce(_) => "REINFORCE".into(),
        Surrogate::Cispo(cispo) => match cispo.band {
            CispoBand::Cap(cap) => format!("CISPO, r at most {cap}"),
            CispoBand::AroundOne { low, high } => format!("CISPO ({low}, {high})"),
        },
        Surrogate::Sapo(sapo) => format!("SAPO, tau {} up, {} down", sapo.tau_pos, sapo.tau_neg),
        Surrogate::Gmpo(gmpo) => format!("GMPO, log-ratios in [-{}, {}]", gmpo.low, gmpo.high),
        Surrogate::Vespo(v) => format!(
            "VESPO, (k, lambda) = ({}, {}) up, ({}, {}) down",
            v.k_pos, v.lambda_pos, v.k_neg, v.lambda_neg
        ),
        Surrogate::Dppo(dppo) => format!(
            "DPPO {:?} ({}, {}), cap {}",
            dppo.divergence, dppo.low, dppo.high, dppo.ratio_cap
        ),
        Surrogate::Dro(dro) => format!("DRO, beta {}", dro.beta),
        Surrogate::ClipCov(c) => format!(
            "Clip-Cov ({}, {}), share {}, cov in ({}, {})",
            c.low, c.high, c.ratio, c.lower, c.upper
        ),
        Surrogate::KlCov(k) => format!("KL-Cov, share {}, coef {}", k.ratio, k.coef),
        other => format!("{other:?}"),
    }
}

fn aggregation(aggregation: Aggregation) -> String {
    match aggregation {
        Aggregation::TokenMean => "token mean".into(),
        Aggregation::TokenSum => "token sum".into(),
        Aggregation::SequenceMeanTokenMean => "completions, token mean".into(),
        Aggregation::SequenceMeanTokenSum => "completions, token sum".into(),
        Aggregation::Constant { length } => format!("completions, token sum / {length}"),
        Aggregation::PromptMean => "prompts, token mean".into(),
    }
}

fn kl(kl: KlPenalty) -> String {
    assert_eq!(
        (
            kl.straight_through,
            kl.log_ratio_clamp,
            kl.value_clamp,
            kl.aggregation
        ),
        (false, None, None, None)
    );
    let estimator = format!("{:?}", kl.estimator).to_lowercase();
    let corrected = if kl.importance_corrected {
        ", times the ratio"
    } else {
        ""
    };
    format!("{} {estimator}{corrected}", kl.coef)
}

/// What the method's paper compares a completion with.
fn advantages(preset: &str) -> &'static str {
    match preset {
        "ppo" | "verl" => "GAE",
        "dr_grpo" | "deepseek_v32" => "group mean",
        "rloo" => "leave-one-out",
        "reinforce" => "any",
        "reinforce_plus_plus" => "REINFORCE++",
        "gpg" => "GPG",
        _ => "group mean and deviation",
    }
}
