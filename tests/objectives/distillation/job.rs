//! The distiller: it learns, does not depend on the micro-batch size, and resumes.

use burn::tensor::Device;
use rlvr::loss::Aggregation;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{Divergence, PolicyModel, TokenBatch};
use rlvr::prompt::Tokenizer;
use rlvr::rollout::GenerationConfig;
use rlvr::train::{
    Demonstration, DistillConfig, DistillData, DistillReport, Distiller, EvaluationConfig,
    ModelTeacher, TopTeacher, evaluate,
};
use rlvr::types::{Problem, Rollout, RolloutBuffer, RolloutGroup};

use super::{demonstrations, teacher};
use crate::common::toy;
use crate::common::{assert_close, devices, floats};

fn config(steps: u64) -> DistillConfig {
    DistillConfig {
        steps,
        batch_size: 16,
        generation: GenerationConfig {
            max_new_tokens: 4,
            ..GenerationConfig::default()
        },
        optimizer: toy::optimizer(0.02),
        ..DistillConfig::default()
    }
}

fn both() -> DistillData {
    DistillData {
        problems: toy::problems(),
        demonstrations: demonstrations(),
    }
}

fn data(on_policy: f64) -> DistillData {
    match on_policy {
        0.0 => DistillData::demonstrations(demonstrations()),
        1.0 => DistillData::problems(toy::problems()),
        _ => both(),
    }
}

/// A distiller of the toy's teacher, and its student.
fn parts(config: &DistillConfig, device: &Device) -> (Distiller<CausalModel>, CausalModel) {
    let student = toy::policy(0, device);
    let teacher = ModelTeacher::new(&teacher(device));
    let data = data(config.on_policy);
    let distiller = Distiller::new(&student, teacher, toy::tokenizer(), data, config.clone());
    (distiller.unwrap(), student)
}

fn run(config: &DistillConfig, device: &Device) -> (Vec<DistillReport>, CausalModel) {
    let (mut distiller, mut student) = parts(config, device);
    let mut reports = Vec::new();
    distiller
        .run(&mut student, |report| {
            reports.push(*report);
            true
        })
        .unwrap();
    (reports, student)
}

/// Log-probs of all tokens at each token of each demonstrated response, over the first `size`
/// tokens, one sequence at a time.
fn distributions(model: &CausalModel, size: usize) -> Vec<Vec<Vec<f64>>> {
    let tokenizer = toy::tokenizer();
    let of = |Demonstration { prompt, response }: Demonstration| {
        let prompt = tokenizer.encode(&prompt).unwrap();
        let mut response = tokenizer.encode(&response).unwrap();
        response.extend(tokenizer.stop_tokens().first());
        let all = [&prompt[..], &response].concat();
        let batch = TokenBatch::from_rows(&[&all[..]], &model.device()).unwrap();
        let hidden = model.forward(&batch, &mut model.empty_cache(1)).unwrap();
        let logits = floats(hidden.squeeze_dim::<2>(0).matmul(model.unembedding()));
        let row = |at: usize| {
            let columns = model.vocab_size();
            let row = &logits[(prompt.len() + at - 1) * columns..][..size];
            let total: f64 = row.iter().map(|logit| logit.exp()).sum();
            row.iter().map(|logit| logit - total.ln()).collect()
        };
        (0..response.len()).map(row).collect()
    };
    demonstrations().into_iter().map(of).collect()
}

fn kl(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.exp() * (a - b)).sum()
}

#[test]
fn the_first_loss_is_the_mean_divergence_on_the_demonstrations() {
    for (backend, device) in devices() {
        let teacher = distributions(&teacher(&device), 6);
        let student = distributions(&toy::policy(0, &device), 6);
        let rows: Vec<Vec<f64>> = teacher
            .iter()
            .zip(&student)
            .map(|(p, q)| p.iter().zip(q).map(|(p, q)| kl(p, q)).collect())
            .collect();
        let tokens: Vec<f64> = rows.concat();
        let mean = tokens.iter().sum::<f64>() / tokens.len() as f64;
        let of_rows = rows.iter().map(|row| row.iter().sum::<f64>());
        let sums = of_rows.sum::<f64>() / rows.len() as f64;
        for (aggregation, loss) in [
            (Aggregation::TokenMean, mean),
            (Aggregation::SequenceMeanTokenSum, sums),
        ] {
            let config = DistillConfig {
                batch_size: 4,
                on_policy: 0.0,
                divergence: Divergence::Jsd { beta: 0.0 },
                aggregation,
                ..config(1)
            };
            let report = run(&config, &device).0[0];
            assert_close(report.loss, loss, 1e-4, 1e-5, backend);
            assert_close(report.divergence, mean, 1e-4, 1e-5, backend);
            assert_eq!((report.generated, report.demonstrated), (0, 4));
            assert_eq!(report.tokens, 2 + 3 + 2 + 4);
        }
    }
}

#[test]
fn a_student_converges_to_its_teacher_on_its_own_completions() {
    let device = toy::device();
    let tops = Divergence::TopK { k: 2, tail: true };
    for divergence in [
        Divergence::default(),
        Divergence::Jsd { beta: 0.5 },
        Divergence::Jsd { beta: 0.0 },
        tops,
    ] {
        let config = DistillConfig {
            divergence,
            ..config(200)
        };
        let (reports, student) = run(&config, &device);
        let mean = |reports: &[DistillReport]| {
            reports.iter().map(|report| report.divergence).sum::<f64>() / reports.len() as f64
        };
        let (first, last) = (mean(&reports[..5]), mean(&reports[195..]));
        assert!(last < 0.1 * first, "{divergence:?}: {first} {last}");
        assert!(reports.iter().all(|report| report.generated == 16));
        assert_eq!(reports[0].agreement.is_some(), divergence == tops);
        if let (Some(first), Some(last)) = (reports[0].agreement, reports[199].agreement) {
            // The student puts its probability where the teacher does.
            assert!(
                last[1] > first[1] + 0.2 && last[1] <= 1.0 + 1e-6,
                "{first:?} {last:?}"
            );
            assert!(last[2] > first[2], "{first:?} {last:?}");
        }
        // Its completions are those of the teacher.
        assert_eq!(
            greedy(&student),
            greedy(&teacher(&device)),
            "{divergence:?}"
        );
    }
}

/// The greedy completions of the problems.
fn greedy(policy: &CausalModel) -> Vec<String> {
    let generation = GenerationConfig {
        stop_tokens: toy::tokenizer().stop_tokens(),
        ..config(1).generation
    };
    let (tokenizer, rewards) = (toy::tokenizer(), toy::rewards());
    let problems = toy::problems();
    let exam = EvaluationConfig::default();
    let exam = evaluate(policy, &tokenizer, &rewards, &problems, &generation, &exam).unwrap();
    exam.greedy
        .rollouts()
        .map(|rollout| rollout.text.clone())
        .collect()
}

#[test]
fn the_result_does_not_depend_on_how_a_step_is_split() {
    for (backend, device) in devices() {
        let cut = |micro_batch, max_tokens_per_micro_batch, logit_chunk| {
            let config = DistillConfig {
                on_policy: 0.5,
                divergence: Divergence::Jsd { beta: 0.5 },
                temperature: 0.7,
                micro_batch,
                max_tokens_per_micro_batch,
                logit_chunk,
                ..config(2)
            };
            let (reports, student) = run(&config, &device);
            (reports, toy::weights(&student))
        };
        let whole = cut(64, None, 1024);
        let start = toy::weights(&toy::policy(0, &device));
        assert!(toy::distance(&whole.1, &start) > 0.01);
        for other in [cut(1, None, 1024), cut(64, Some(20), 7), cut(5, None, 1)] {
            let away = toy::distance(&other.1, &whole.1);
            assert!(away < 1e-3, "{backend}: {away}");
            for (a, b) in other.0.iter().zip(&whole.0) {
                assert_close(a.loss, b.loss, 1e-4, 1e-6, backend);
                assert_eq!((a.generated, a.demonstrated), (8, 8));
                assert_eq!(a.tokens, b.tokens);
            }
        }
    }
}

#[test]
fn a_stopped_distillation_resumes_bit_for_bit() {
    let device = toy::device();
    let config = DistillConfig {
        on_policy: 0.3,
        ..config(6)
    };
    let (reports, student) = run(&config, &device);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (mut distiller, mut stopped) = parts(&config, &device);
    distiller
        .run(&mut stopped, |report| report.step < 2)
        .unwrap();
    distiller.save(&stopped, &path).unwrap();
    // Steps after the checkpoint are lost, and the run replaces an older checkpoint.
    distiller.step(&mut stopped).unwrap();
    distiller.save(&stopped, &path).unwrap();
    distiller.step(&mut stopped).unwrap();

    let (mut again, mut resumed) = parts(&config, &device);
    again.restore(&mut resumed, &path).unwrap();
    assert_eq!(again.steps_done(), 3);
    let mut rest = Vec::new();
    again
        .run(&mut resumed, |report| {
            rest.push(*report);
            true
        })
        .unwrap();
    assert_eq!(rest, reports[3..]);
    assert_eq!(toy::weights(&resumed), toy::weights(&student));

    let other = DistillConfig { seed: 1, ..config };
    let (mut other, mut policy) = parts(&other, &device);
    let error = other.restore(&mut policy, &path).unwrap_err().to_string();
    assert!(error.contains("other settings"), "{error}");
    assert_eq!(other.steps_done(), 0);
    std::fs::write(path.join("student.bpk"), "x").unwrap();
    let error = again.restore(&mut resumed, &path).unwrap_err().to_string();
    assert!(error.contains("student.bpk"), "{error}");
}

#[test]
fn precomputed_teacher_scores_give_the_same_result() {
    let tokenizer = toy::tokenizer();
    let group = |one: Demonstration| {
        let mut tokens = tokenizer.encode(&one.response).unwrap();
        tokens.extend(tokenizer.stop_tokens().first());
        let rollout = Rollout::new(tokens.clone(), vec![0.0; tokens.len()], one.response);
        let prompt = tokenizer.encode(&one.prompt).unwrap();
        RolloutGroup::new(Problem::new(one.prompt, ""), prompt, vec![rollout])
    };
    let completions = RolloutBuffer {
        groups: demonstrations().into_iter().map(group).collect(),
    };
    for (backend, device) in devices() {
        let config = DistillConfig {
            on_policy: 0.0,
            divergence: Divergence::TopK { k: 3, tail: true },
            temperature: 1.5,
            ..config(4)
        };
        let model = ModelTeacher::new(&teacher(&device));
        let records = model.top(&completions, 3, 3, &config.log_probs()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teacher.jsonl");
        let lines: Vec<String> = records
            .iter()
            .map(|record| serde_json::to_string(record).unwrap())
            .collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let file = TopTeacher::read(&path).unwrap();
        let mut student = toy::policy(0, &device);
        let new = |teacher: TopTeacher, config: &DistillConfig, student: &CausalModel| {
            let data = DistillData::demonstrations(demonstrations());
            Distiller::new(student, teacher, toy::tokenizer(), data, config.clone()).unwrap()
        };
        let mut distiller = new(file.clone(), &config, &student);
        distiller.run(&mut student, |_| true).unwrap();
        let (reports, want) = run(&config, &device);
        let away = toy::distance(&toy::weights(&student), &toy::weights(&want));
        assert!(away < 1e-3, "{backend}: {away}");
        assert!(reports[0].agreement.unwrap()[0] > 0.5);

        // It has no other completion and no other tokens.
        let forgetful = TopTeacher::from_iter(records.into_iter().skip(1));
        let error = new(forgetful, &config, &student).step(&mut student);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("no record of the completion"), "{error}");
        let whole = DistillConfig {
            divergence: Divergence::default(),
            ..config
        };
        let error = new(file, &whole, &student).step(&mut student).unwrap_err();
        assert!(error.to_string().contains("top_k"), "{error}");
    }
}

#[test]
fn a_padded_vocabulary_is_cut_to_the_shared_tokens() {
    let device = toy::device();
    let shape = CausalConfig {
        hidden_size: 8,
        ..toy::shape(9)
    };
    let teacher = shape.init(5, &device).unwrap();
    let student = toy::policy(0, &device);
    let (p, q) = (distributions(&teacher, 6), distributions(&student, 6));
    let tokens = p
        .concat()
        .iter()
        .zip(q.concat())
        .map(|(p, q)| kl(&q, p))
        .collect::<Vec<_>>();
    let want = tokens.iter().sum::<f64>() / tokens.len() as f64;
    let config = DistillConfig {
        batch_size: 4,
        on_policy: 0.0,
        ..config(1)
    };
    let small = |student: &CausalModel, teacher: &CausalModel| {
        let data = DistillData::demonstrations(demonstrations());
        let teacher = ModelTeacher::new(teacher);
        Distiller::new(student, teacher, toy::tokenizer(), data, config.clone())
    };
    let mut moved = student.clone();
    let report = small(&student, &teacher).unwrap().step(&mut moved).unwrap();
    assert_close(report.loss, want, 1e-4, 1e-5, "a teacher with more tokens");
    let wide = toy::shape(9).init(6, &device.clone().autodiff()).unwrap();
    let mut moved = wide.clone();
    let narrow = toy::policy(1, &device);
    let report = small(&wide, &narrow).unwrap().step(&mut moved).unwrap();
    assert!(report.loss > 0.0 && toy::distance(&toy::weights(&moved), &toy::weights(&wide)) > 1e-3);
    let few = toy::shape(5).init(7, &device).unwrap();
    let error = small(&student, &few).err().unwrap().to_string();
    assert!(error.contains("the teacher's 5"), "{error}");
}

#[test]
fn invalid_distillations_are_errors_before_the_first_update() {
    let device = toy::device();
    let refused = |change: &dyn Fn(&mut DistillConfig, &mut DistillData)| {
        let (mut config, mut data) = (config(1), data(1.0));
        change(&mut config, &mut data);
        let student = toy::policy(0, &device);
        let teacher = ModelTeacher::new(&teacher(&device));
        let result = Distiller::new(&student, teacher, toy::tokenizer(), data, config);
        result.err().expect("an error").to_string()
    };
    for (message, words) in [
        (
            refused(&|_, data| data.problems.clear()),
            ["problems", "at least one"],
        ),
        (
            refused(&|_, data| data.demonstrations = demonstrations()),
            ["demonstrations", "none with distill.on_policy = 1"],
        ),
        (
            refused(&|config, _| config.on_policy = 0.5),
            ["demonstrations", "at least one"],
        ),
        (
            refused(&|config, _| config.generation.max_new_tokens = 15),
            ["problems[3].prompt", "at most 2"],
        ),
        (
            refused(&|config, data| {
                config.on_policy = 0.0;
                *data = DistillData::demonstrations([
                    Demonstration::new("a", "b"),
                    Demonstration::new("", "b"),
                ]);
            }),
            ["demonstration 1", "0 + 2 tokens"],
        ),
        (
            refused(&|config, _| config.generation.stop_tokens = vec![9]),
            ["stop_tokens[0]", "below"],
        ),
    ] {
        for word in words {
            assert!(message.contains(word), "{message}");
        }
    }
    let frozen = toy::shape(6).init(0, &device).unwrap();
    let teacher = ModelTeacher::new(&teacher(&device));
    let result = Distiller::new(&frozen, teacher, toy::tokenizer(), data(1.0), config(1));
    let error = result.err().unwrap().to_string();
    assert!(error.contains("student"), "{error}");
}
