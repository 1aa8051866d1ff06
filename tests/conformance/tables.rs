//! Generates the tables of `src/loss/presets.md`, which are part of the documentation: written with
//! `RLVR_BLESS=1`, compared with the file otherwise.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use rlvr::loss::{
    Aggregation, CispoBand, KlPenalty, PolicyObjective, RatioLevel, Surrogate, presets,
};

/// The number of passed cases, by file and kind.
type Passed = BTreeMap<(&'static str, String), usize>;

/// The rows of the first table without their counts: kind of the cases, name, formula, source,
/// presets.
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
        "`-sg(min(r, cap)) A ln pi` unless `pi - pi_old` exceeds the bound in the direction of A",
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
        "PPO-clip, 0 at some tokens with a large covariance of `A` and `ln pi`",
        "2505.22617, eq. 11",
        "`clip_cov`",
    ],
    [
        "kl_cov",
        "KL-Cov",
        "`-r A`, plus `coef abs(d)` at the tokens with the largest covariance",
        "2505.22617, eq. 13",
        "`kl_cov`",
    ],
    [
        "reinforce",
        "REINFORCE",
        "`-A ln pi`, weighted by the sampler correction if its numerator is the current policy",
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
         The last column counts the cases generated with TRL 1.16.0 and verl 0.9.1 whose loss, gradient and metrics agree on both CPU backends.\n\n\
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
    text.push_str("\nAlso: ");
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
        "\n# Choosing a preset\n\n\
         | preset | when to choose it | default of |\n|---|---|---|\n",
    );
    for name in presets::NAMES {
        let (when, default_of) = choice(name);
        writeln!(text, "| `{name}` | {when} | {default_of} |").unwrap();
    }
    text.push_str(
        "\n# Presets\n\nAll parameters; whatever is not listed is off. `dr_grpo` takes the completion limit, here 1024.\n\n\
         | preset | surrogate | ratio | log-ratio clamp | aggregation | KL in the loss | other | advantages |\n\
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
        (Surrogate::Vespo(_), _) => "own sum",
        (Surrogate::Gmpo(_), _) => "own mean",
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
        Surrogate::Sapo(sapo) => format!(
            "SAPO, tau {} for A > 0, {} otherwise",
            sapo.tau_pos, sapo.tau_neg
        ),
        Surrogate::Gmpo(gmpo) => format!("GMPO, log-ratios in [-{}, {}]", gmpo.low, gmpo.high),
        Surrogate::Vespo(v) => format!(
            "VESPO, (k, lambda) = ({}, {}) for A >= 0, ({}, {}) otherwise",
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

/// When to choose a preset, and the paper or framework whose default it is.
fn choice(preset: &str) -> (&'static str, &'static str) {
    match preset {
        "grpo" => (
            "the policy should stay close to a reference; the default of this crate",
            "DeepSeekMath, arXiv 2402.03300",
        ),
        "deepseek_r1" => (
            "long runs that replace the reference periodically; almost no clipping, a weak KL",
            "DeepSeek-R1, arXiv 2501.12948",
        ),
        "deepseek_v32" => (
            "several updates per batch or stale rollouts, with a KL term",
            "DeepSeek-V3.2, arXiv 2512.02556",
        ),
        "dr_grpo" => (
            "answers grow longer without getting better; no bias from length or group deviation",
            "Dr. GRPO, arXiv 2503.20783",
        ),
        "dapo" => (
            "long answers without a reference; the asymmetric range keeps the entropy up",
            "DAPO, arXiv 2503.14476",
        ),
        "trl" => ("comparison with a TRL run", "TRL 1.16.0, `GRPOTrainer`"),
        "verl" => ("comparison with a verl run", "verl 0.9.1, actor"),
        "ppo" => ("training with a critic", "PPO, arXiv 1707.06347"),
        "gspo" => (
            "mixtures of experts or long answers, where token ratios are noisy",
            "GSPO, arXiv 2507.18071",
        ),
        "gspo_token" => (
            "GSPO with advantages that differ within a completion",
            "GSPO-token, arXiv 2507.18071; clamp as in verl 0.9.1",
        ),
        "luspo" => (
            "GSPO, if answers become too short",
            "LUSPO, arXiv 2602.05261",
        ),
        "cispo" => (
            "several updates per batch; rare tokens keep their gradient",
            "MiniMax-M1, arXiv 2506.13585; range as in TRL 1.16.0",
        ),
        "cispo_verl" => ("comparison with CISPO in verl", "verl 0.9.1, `cispo`"),
        "sapo" => (
            "several updates per batch, with a smooth bound instead of a clip",
            "SAPO, arXiv 2511.20347",
        ),
        "gmpo" => (
            "outliers among token ratios make training unstable",
            "GMPO, arXiv 2507.20673",
        ),
        "vespo" => (
            "stale rollouts, as in asynchronous training",
            "VESPO, arXiv 2602.10693; parameters of TRL 1.16.0",
        ),
        "dppo_tv" => (
            "clipping by ratio stops too many rare tokens",
            "DPPO, arXiv 2602.04879",
        ),
        "dppo_kl" => (
            "as `dppo_tv`, with a bound in nats",
            "DPPO, arXiv 2602.04879",
        ),
        "clip_cov" => (
            "the entropy collapses; a few tokens lose their gradient",
            "Clip-Cov, arXiv 2505.22617",
        ),
        "kl_cov" => (
            "the entropy collapses; a few tokens get a penalty",
            "KL-Cov, arXiv 2505.22617",
        ),
        "reinforce" => (
            "strictly on-policy training, one update per batch",
            "REINFORCE, Williams 1992",
        ),
        "reinforce_plus_plus" => (
            "one completion per prompt and no critic",
            "REINFORCE++, arXiv 2501.03262",
        ),
        "gpg" => (
            "strictly on-policy training where many groups have no signal",
            "GPG, arXiv 2504.02546",
        ),
        "rloo" => ("comparison with RLOO in TRL", "TRL 1.16.0, `RLOOTrainer`"),
        other => panic!("`{other}` has no row in the table of choices"),
    }
}

/// The advantages that the method's paper uses.
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
