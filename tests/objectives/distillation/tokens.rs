//! Divergences match their formulas in f64, and gradients match finite differences of them.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rlvr::policy::{DistilledTokens, Divergence, LogProbConfig, TopLogProbs, TopTokens};

use crate::common::{assert_close, devices, floats};

const ROWS: usize = 2;
const WIDTH: usize = 3;
const TOKENS: usize = ROWS * WIDTH;
const VOCABULARY: usize = 7;
/// The student's hidden states are narrower than the teacher's.
const STUDENT: usize = 4;
const TEACHER: usize = 5;

/// A student that consists of hidden states and an unembedding.
#[derive(Module, Debug)]
struct Student {
    hidden: Param<Tensor<3>>,
    unembedding: Param<Tensor<2>>,
}

/// Irregular numbers in (-scale, scale).
fn numbers(count: usize, seed: usize, scale: f64) -> Vec<f64> {
    let number = |i: usize| ((i * 37 + seed * 101 + i * i * 13) % 199) as f64 / 99.5 - 1.0;
    (0..count).map(|i| scale * number(i)).collect()
}

fn tensor<const D: usize>(values: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Hidden states and unembeddings of both in f64.
#[derive(Clone)]
struct Case {
    hidden: Vec<f64>,
    unembedding: Vec<f64>,
    teacher_hidden: Vec<f64>,
    teacher_unembedding: Vec<f64>,
    temperature: f64,
}

fn case() -> Case {
    Case {
        hidden: numbers(TOKENS * STUDENT, 1, 1.5),
        unembedding: numbers(STUDENT * VOCABULARY, 2, 1.0),
        teacher_hidden: numbers(TOKENS * TEACHER, 3, 1.5),
        teacher_unembedding: numbers(TEACHER * VOCABULARY, 4, 1.0),
        temperature: 0.8,
    }
}

/// `ln softmax` of token `t`.
fn log_distribution(hidden: &[f64], matrix: &[f64], t: usize, temperature: f64) -> Vec<f64> {
    let size = matrix.len() / VOCABULARY;
    let logit = |v: usize| {
        let products = (0..size).map(|d| hidden[t * size + d] * matrix[d * VOCABULARY + v]);
        products.sum::<f64>() / temperature
    };
    let logits: Vec<f64> = (0..VOCABULARY).map(logit).collect();
    let most = logits.iter().copied().fold(f64::MIN, f64::max);
    let total: f64 = logits.iter().map(|x| (x - most).exp()).sum();
    logits.iter().map(|x| x - most - total.ln()).collect()
}

/// The teacher's `k` most likely tokens.
fn top(teacher: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..teacher.len()).collect();
    order.sort_by(|&a, &b| teacher[b].total_cmp(&teacher[a]).then(a.cmp(&b)));
    order.truncate(k);
    order
}

/// The definition.
fn definition(p: &[f64], q: &[f64], divergence: Divergence) -> f64 {
    let kl =
        |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a.exp() * (a - b)).sum() };
    match divergence {
        Divergence::Jsd { beta: 0.0 } => kl(p, q),
        Divergence::Jsd { beta: 1.0 } => kl(q, p),
        Divergence::Jsd { beta } => {
            let mix = |(p, q): (&f64, &f64)| (beta * p.exp() + (1.0 - beta) * q.exp()).ln();
            let m: Vec<f64> = p.iter().zip(q).map(mix).collect();
            beta * kl(p, &m) + (1.0 - beta) * kl(q, &m)
        }
        Divergence::TopK { k, tail } => {
            let top = top(p, k);
            let inside: f64 = top.iter().map(|&v| p[v].exp() * (p[v] - q[v])).sum();
            let left = |x: &[f64]| {
                let others = (0..x.len()).filter(|v| !top.contains(v));
                others.map(|v| x[v].exp()).sum::<f64>()
            };
            let (t, u) = (left(p), left(q));
            match tail && t > 0.0 {
                true => inside + t * (t / u).ln(),
                false => inside,
            }
        }
    }
}

impl Case {
    fn values(&self, divergence: Divergence) -> Vec<f64> {
        let of = |t| {
            let p = log_distribution(
                &self.teacher_hidden,
                &self.teacher_unembedding,
                t,
                self.temperature,
            );
            let q = log_distribution(&self.hidden, &self.unembedding, t, self.temperature);
            definition(&p, &q, divergence)
        };
        (0..TOKENS).map(of).collect()
    }

    fn student(&self, device: &Device) -> Student {
        let device = device.clone().autodiff();
        let hidden = tensor(&self.hidden, [ROWS, WIDTH, STUDENT], &device);
        let unembedding = tensor(&self.unembedding, [STUDENT, VOCABULARY], &device);
        Student {
            hidden: Param::from_tensor(hidden),
            unembedding: Param::from_tensor(unembedding),
        }
    }

    fn teacher(&self, device: &Device) -> (Tensor<3>, Tensor<2>) {
        (
            tensor(&self.teacher_hidden, [ROWS, WIDTH, TEACHER], device),
            tensor(&self.teacher_unembedding, [TEACHER, VOCABULARY], device),
        )
    }

    fn config(&self, chunk: usize) -> LogProbConfig {
        LogProbConfig {
            temperature: self.temperature,
            chunk,
        }
    }

    fn distilled(
        &self,
        student: &Student,
        divergence: Divergence,
        chunk: usize,
        device: &Device,
    ) -> DistilledTokens {
        let (hidden, unembedding) = self.teacher(device);
        DistilledTokens::new(
            student.hidden.val(),
            student.unembedding.val(),
            hidden,
            unembedding,
            &divergence,
            &self.config(chunk),
        )
        .unwrap()
    }

    /// Gradients at hidden states and unembedding of the sum of `weights` times divergences.
    fn gradients(
        &self,
        weights: &[f64],
        divergence: Divergence,
        chunk: usize,
        device: &Device,
    ) -> [Vec<f64>; 2] {
        let student = self.student(device);
        let distilled = self.distilled(&student, divergence, chunk, device);
        gradients(&student, distilled, weights, device)
    }
}

fn gradients(
    student: &Student,
    distilled: DistilledTokens,
    weights: &[f64],
    device: &Device,
) -> [Vec<f64>; 2] {
    let weights = tensor(weights, [ROWS, WIDTH], device);
    let padding = weights.clone().equal_scalar(0.0);
    let terms = distilled.divergences.clone().mask_fill(padding, 0.0);
    let loss = (terms * weights).sum();
    let gradients = distilled.backward(loss, student).unwrap();
    let hidden = gradients.get::<3>(student.hidden.id).unwrap();
    let unembedding = gradients.get::<2>(student.unembedding.id).unwrap();
    [floats(hidden), floats(unembedding)]
}

fn divergences() -> Vec<Divergence> {
    let jsd = [0.0, 0.1, 0.5, 0.9, 1.0].map(|beta| Divergence::Jsd { beta });
    let top = [(1, false), (3, false), (1, true), (3, true), (7, true)];
    let top = top.map(|(k, tail)| Divergence::TopK { k, tail });
    [jsd, top].concat()
}

#[test]
fn divergences_match_their_definitions_for_any_chunk_size() {
    for (backend, device) in devices() {
        for divergence in divergences() {
            let want = case().values(divergence);
            assert!(want.iter().any(|x| x.abs() > 0.05), "{want:?}");
            for chunk in [1, 4, 100] {
                let student = case().student(&device);
                let got = case().distilled(&student, divergence, chunk, &device);
                let what = format!("{backend} {divergence:?} {chunk}");
                for (got, want) in floats(got.divergences).into_iter().zip(&want) {
                    assert_close(got, *want, 2e-5, 1e-6, &what);
                }
            }
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    const STEP: f64 = 1e-5;
    let weights = numbers(TOKENS, 5, 1.0);
    for divergence in divergences() {
        let total = |case: &Case| -> f64 {
            let values = case.values(divergence);
            values.iter().zip(&weights).map(|(x, w)| x * w).sum()
        };
        let difference = |change: &dyn Fn(&mut Case, f64)| {
            let [mut up, mut down] = [case(), case()];
            change(&mut up, STEP);
            change(&mut down, -STEP);
            (total(&up) - total(&down)) / (2.0 * STEP)
        };
        let hidden: Vec<f64> = (0..TOKENS * STUDENT)
            .map(|i| difference(&|case, step| case.hidden[i] += step))
            .collect();
        let unembedding: Vec<f64> = (0..STUDENT * VOCABULARY)
            .map(|i| difference(&|case, step| case.unembedding[i] += step))
            .collect();
        for (backend, device) in devices() {
            for chunk in [2, 100] {
                let got = case().gradients(&weights, divergence, chunk, &device);
                let what = format!("{backend} {divergence:?} {chunk}");
                for (got, want) in got.concat().iter().zip(hidden.iter().chain(&unembedding)) {
                    assert_close(*got, *want, 1e-4, 1e-5, &what);
                }
            }
        }
    }
}

#[test]
fn equal_distributions_have_zero_divergence_and_gradient() {
    for (backend, device) in devices() {
        let equal = Case {
            teacher_hidden: case().hidden,
            teacher_unembedding: case().unembedding,
            ..case()
        };
        let teacher = || {
            (
                tensor(&equal.hidden, [ROWS, WIDTH, STUDENT], &device),
                tensor(&equal.unembedding, [STUDENT, VOCABULARY], &device),
            )
        };
        let tails = [(3, true), (7, false)].map(|(k, tail)| Divergence::TopK { k, tail });
        let jsd = [0.0, 0.3, 1.0].map(|beta| Divergence::Jsd { beta });
        for divergence in jsd.into_iter().chain(tails) {
            let student = equal.student(&device);
            let (hidden, unembedding) = teacher();
            let distilled = DistilledTokens::new(
                student.hidden.val(),
                student.unembedding.val(),
                hidden,
                unembedding,
                &divergence,
                &equal.config(100),
            )
            .unwrap();
            let what = format!("{backend} {divergence:?}");
            for value in floats(distilled.divergences.clone()) {
                assert_close(value, 0.0, 0.0, 1e-6, &what);
            }
            for gradient in gradients(&student, distilled, &[1.0; TOKENS], &device).concat() {
                assert_close(gradient, 0.0, 0.0, 1e-6, &what);
            }
        }
    }
}

#[test]
fn disjoint_distributions_have_finite_divergences_and_gradients() {
    for (backend, device) in devices() {
        // Logits of up to 2,000: all but one token have probability 0 in f32, and not the same one.
        let apart = Case {
            hidden: numbers(TOKENS * STUDENT, 1, 40.0),
            unembedding: numbers(STUDENT * VOCABULARY, 2, 20.0),
            teacher_hidden: numbers(TOKENS * TEACHER, 3, 40.0),
            teacher_unembedding: numbers(TEACHER * VOCABULARY, 4, 20.0),
            temperature: 1.0,
        };
        for divergence in divergences() {
            let student = apart.student(&device);
            let distilled = apart.distilled(&student, divergence, 100, &device);
            let values = floats(distilled.divergences.clone());
            let what = format!("{backend} {divergence:?} {values:?}");
            assert!(values.iter().all(|x| x.is_finite()), "{what}");
            if divergence == (Divergence::Jsd { beta: 0.5 }) {
                let most = values.iter().copied().fold(0.0, f64::max);
                assert_close(most, 2f64.ln(), 1e-5, 0.0, &what);
            }
            let all = gradients(&student, distilled, &[1.0; TOKENS], &device).concat();
            assert!(all.iter().all(|x| x.is_finite()), "{what}");
        }
    }
}

#[test]
fn padding_does_not_reach_the_loss_or_the_gradient() {
    let mut weights = numbers(TOKENS, 5, 1.0);
    weights[2] = 0.0;
    for (backend, device) in devices() {
        for divergence in divergences() {
            let want = case().gradients(&weights, divergence, 4, &device);
            let mut broken = case();
            broken.hidden[2 * STUDENT..3 * STUDENT].fill(f64::NAN);
            broken.teacher_hidden[2 * TEACHER..3 * TEACHER].fill(f64::NAN);
            let mut got = broken.gradients(&weights, divergence, 4, &device);
            let at_padding: Vec<f64> = got[0].splice(2 * STUDENT..3 * STUDENT, []).collect();
            assert_eq!(at_padding, [0.0; STUDENT], "{backend} {divergence:?}");
            let mut want = want;
            want[0].drain(2 * STUDENT..3 * STUDENT);
            assert_eq!(got, want, "{backend} {divergence:?}");
        }
    }
}

#[test]
fn a_frozen_unembedding_gets_no_gradient() {
    let device = devices().remove(0).1;
    let mut student = case().student(&device);
    student.unembedding = student.unembedding.set_require_grad(false);
    let distilled = case().distilled(&student, Divergence::default(), 4, &device);
    let loss = distilled.divergences.clone().sum();
    let gradients = distilled.backward(loss, &student).unwrap();
    assert!(gradients.get::<2>(student.unembedding.id).is_none());
    let want = case().gradients(&[1.0; TOKENS], Divergence::default(), 4, &device);
    assert_eq!(
        floats(gradients.get::<3>(student.hidden.id).unwrap()),
        want[0]
    );
}

#[test]
fn the_teachers_top_tokens_suffice() {
    for (backend, device) in devices() {
        let (hidden, unembedding) = case().teacher(&device);
        let tokens = TopTokens::of(hidden, unembedding, 3, &case().config(4)).unwrap();
        assert_eq!(tokens.dims(), [ROWS, WIDTH, 3]);
        let p = |t| {
            let case = case();
            log_distribution(&case.teacher_hidden, &case.teacher_unembedding, t, 0.8)
        };
        let rows: Vec<TopLogProbs> = (0..ROWS)
            .map(|row| tokens.row(row, WIDTH).unwrap())
            .collect();
        for t in 0..TOKENS {
            let (ids, log_probs) = (&rows[t / WIDTH].ids[t % WIDTH], &rows[t / WIDTH].log_probs);
            let want = top(&p(t), 3);
            assert_eq!(
                *ids,
                want.iter().map(|&v| v as u32).collect::<Vec<_>>(),
                "{backend}"
            );
            for (got, v) in log_probs[t % WIDTH].iter().zip(want) {
                assert_close(f64::from(*got), p(t)[v], 1e-5, 1e-6, backend);
            }
        }
        // Through a file and back, cut to the lengths of the completions: the second has two
        // tokens.
        let cut = [rows[0].clone(), tokens.row(1, 2).unwrap()];
        let text = serde_json::to_string(&cut).unwrap();
        let read: Vec<TopLogProbs> = serde_json::from_str(&text).unwrap();
        let read = TopTokens::from_rows(&read, &device).unwrap();
        let mut weights = numbers(TOKENS, 5, 1.0);
        weights[5] = 0.0;
        for tail in [false, true] {
            let student = case().student(&device);
            let from_file = DistilledTokens::from_top(
                student.hidden.val(),
                student.unembedding.val(),
                &read,
                tail,
                &case().config(4),
            )
            .unwrap();
            let got = gradients(&student, from_file, &weights, &device);
            let divergence = Divergence::TopK { k: 3, tail };
            let want = case().gradients(&weights, divergence, 4, &device);
            for (got, want) in got.concat().into_iter().zip(want.concat()) {
                assert_close(got, want, 1e-5, 1e-6, backend);
            }
        }
    }
}

#[test]
fn agreement_is_the_shared_mass_on_the_teachers_tokens() {
    for (backend, device) in devices() {
        let student = case().student(&device);
        let divergence = Divergence::TopK { k: 3, tail: true };
        let agreement = case().distilled(&student, divergence, 4, &device).agreement;
        let agreement = agreement.unwrap();
        let [teacher_mass, student_mass, overlap] = [
            agreement.teacher_mass,
            agreement.student_mass,
            agreement.overlap,
        ]
        .map(floats);
        let case = case();
        for t in 0..TOKENS {
            let p = log_distribution(&case.teacher_hidden, &case.teacher_unembedding, t, 0.8);
            let q = log_distribution(&case.hidden, &case.unembedding, t, 0.8);
            let (own, others) = (top(&p, 3), top(&q, 3));
            let mass = |x: &[f64]| own.iter().map(|&v| x[v].exp()).sum::<f64>();
            assert_close(teacher_mass[t], mass(&p), 1e-5, 0.0, backend);
            assert_close(student_mass[t], mass(&q), 1e-5, 0.0, backend);
            let shared = own.iter().filter(|v| others.contains(v)).count();
            assert_close(overlap[t], shared as f64 / 3.0, 1e-6, 0.0, backend);
        }
        assert!(overlap.iter().any(|&share| share > 0.0 && share < 1.0));
        let full = case.distilled(&student, Divergence::default(), 4, &device);
        assert!(full.agreement.is_none());
    }
}

#[test]
fn mismatched_inputs_are_errors_that_name_them() {
    let device = devices().remove(0).1;
    let student = case().student(&device);
    let new = |hidden: Tensor<3>, unembedding: Tensor<2>, divergence: Divergence| {
        let (own, matrix) = (student.hidden.val(), student.unembedding.val());
        let config = case().config(4);
        DistilledTokens::new(own, matrix, hidden, unembedding, &divergence, &config)
    };
    let (hidden, unembedding) = case().teacher(&device);
    let narrow = unembedding.clone().slice([0..TEACHER, 0..6]);
    let short = hidden.clone().slice([0..ROWS, 0..2, 0..TEACHER]);
    let jsd = |beta| Divergence::Jsd { beta };
    for (result, word) in [
        (new(hidden.clone(), narrow, jsd(0.5)), "vocabulary"),
        (new(short, unembedding.clone(), jsd(0.5)), "[2, 3, D]"),
        (
            new(hidden.clone(), unembedding.clone(), jsd(-0.1)),
            "divergence.beta",
        ),
        (
            new(hidden.clone(), unembedding.clone(), jsd(f64::NAN)),
            "divergence.beta",
        ),
        (
            new(hidden, unembedding, Divergence::TopK { k: 0, tail: true }),
            "divergence.k",
        ),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let row = |ids: Vec<Vec<u32>>, log_probs: Vec<Vec<f32>>| TopLogProbs { ids, log_probs };
    for (rows, word) in [
        (vec![], "at least 1"),
        (vec![row(vec![vec![1, 2]], vec![])], "0 tokens"),
        (
            vec![row(
                vec![vec![1], vec![1, 2]],
                vec![vec![-1.0], vec![-1.0, -2.0]],
            )],
            "at token 1",
        ),
        (
            vec![row(vec![vec![3, 3]], vec![vec![-1.0, -2.0]])],
            "3 twice",
        ),
        (
            vec![row(vec![vec![1, 2]], vec![vec![-1.0, 0.5]])],
            "0 or less",
        ),
        (
            vec![row(vec![vec![1, 2]], vec![vec![-1.0, f32::NAN]])],
            "0 or less",
        ),
        (
            vec![row(vec![vec![1, 2]], vec![vec![-0.1, -0.1]])],
            "at most 1",
        ),
    ] {
        let error = TopTokens::from_rows(&rows, &device)
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
    }
    let unknown = vec![row(vec![vec![7]; WIDTH], vec![vec![-1.0]; WIDTH]); ROWS];
    let unknown = TopTokens::from_rows(&unknown, &device).unwrap();
    let (own, matrix) = (student.hidden.val(), student.unembedding.val());
    let error = DistilledTokens::from_top(own, matrix, &unknown, true, &case().config(4));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("token id 7") && error.contains("vocabulary of 7"),
        "{error}"
    );
}
