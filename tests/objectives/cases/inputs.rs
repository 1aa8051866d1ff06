//! The required inputs of an objective.

use burn::tensor::Tensor;
use rlvr::loss::{
    Aggregation, LossInput, PolicyObjective, SamplerCorrection, StepCounts, TopEntropy,
};

use crate::common::{devices, matrix};

#[test]
fn missing_inputs_and_wrong_shapes_are_named() {
    let (_, device) = devices().remove(0);
    let of = |width: usize| matrix(&[vec![1.0; width]], &device);
    let good = LossInput {
        old_log_probs: Some(of(2)),
        ref_log_probs: Some(of(2)),
        entropies: Some(of(2)),
        ..LossInput::new(of(2), of(2), of(2))
    };
    let objective = PolicyObjective::grpo().with_entropy_coef(0.01);
    let message = |input: &LossInput| {
        let error = objective.loss(input, StepCounts::of(&[2])).unwrap_err();
        error.to_string()
    };
    assert!(objective.loss(&good, StepCounts::of(&[2])).is_ok());

    let mut input = good.clone();
    input.ref_log_probs = None;
    assert!(message(&input).contains("`ref_log_probs`: none"));
    assert!(message(&input).contains("a KL term"));
    let mut input = good.clone();
    input.entropies = None;
    assert!(message(&input).contains("`entropies`: none"));
    assert!(message(&input).contains("an entropy bonus"));

    // Each part by the input that it needs.
    let bare = LossInput::new(of(2), of(2), of(2));
    for (objective, field, part) in [
        (
            PolicyObjective {
                top_entropy: Some(TopEntropy { share: 0.2 }),
                ..PolicyObjective::dapo()
            },
            "`entropies`: none",
            "a selection by entropy",
        ),
        (
            PolicyObjective::dapo()
                .with_sampler_correction(Some(SamplerCorrection::token_truncate(2.0))),
            "`sampler_log_probs`: none",
            "a sampler correction",
        ),
        (
            PolicyObjective {
                aggregation: Aggregation::PromptMean,
                ..PolicyObjective::dapo()
            },
            "`prompts`: none",
            "prompt_mean",
        ),
        (
            PolicyObjective::clip_cov(),
            "`statistics.surrogate`: 0 numbers",
            "PolicyObjective::statistics",
        ),
        (
            PolicyObjective::kl_cov(),
            "`statistics.surrogate`: 0 numbers",
            "PolicyObjective::statistics",
        ),
    ] {
        let message = objective
            .loss(&bare, StepCounts::of(&[2]))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(field) && message.contains(part),
            "{message}"
        );
    }

    type Change = fn(&mut LossInput, Tensor<2>);
    let wrong: [(&str, Change); 6] = [
        ("old_log_probs", |input, wide| {
            input.old_log_probs = Some(wide)
        }),
        ("ref_log_probs", |input, wide| {
            input.ref_log_probs = Some(wide)
        }),
        ("sampler_log_probs", |input, wide| {
            input.sampler_log_probs = Some(wide)
        }),
        ("entropies", |input, wide| input.entropies = Some(wide)),
        ("advantages", |input, wide| input.advantages = wide),
        ("mask", |input, wide| input.mask = wide),
    ];
    for (field, change) in wrong {
        let mut input = good.clone();
        change(&mut input, of(3));
        let want = format!("{field}: got [1, 3], expected [1, 2], as log_probs");
        assert_eq!(message(&input), want);
    }
    let mut input = good.clone();
    input.prompts = Some(vec![0; 2]);
    assert_eq!(
        message(&input),
        "length of `prompts`: got 2, expected 1, one for each row"
    );
    // The tokens of a prompt are those of the whole step.
    let objective = PolicyObjective {
        aggregation: Aggregation::PromptMean,
        ..PolicyObjective::dapo()
    };
    let input = LossInput {
        prompts: Some(vec![0]),
        ..bare
    };
    let error = objective.loss(&input, StepCounts::of(&[2])).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`statistics.prompt_tokens`: none"),
        "{error}"
    );
}
