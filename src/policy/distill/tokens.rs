//! A student's divergence from its teacher at every token, chunk by chunk.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, s};

use super::divergence::{Divergence, Top, jsd, jsd_gradient, log_distribution};
use super::top::{TopTokens, threshold};
use crate::policy::forward_pass::ForwardPass;
use crate::policy::log_probs::{LogProbConfig, as_dtype, chunks, in_f32};
use crate::policy::scored::{loss_scale, unscaled, zeroed_where_idle};
use crate::{Error, Result, host};

/// The divergence of the policy that is being trained from a teacher, at every token, ready for a loss.
///
/// The counterpart of [`ScoredTokens`](crate::policy::ScoredTokens) over whole distributions. [`divergences`](Self::divergences) is a
/// leaf: [`backward`](Self::backward) first takes the loss to it, then computes the logits of student and teacher again, chunk
/// by chunk, and takes the gradient, which is written out, to the student's hidden states and unembedding, and at last
/// runs once through the trunk. `4` to `8` matrices of `chunk * V` floats exist at the same time, and no `[B, T, V]`. The
/// teacher has no gradient, and may be of another width.
///
/// ```text
/// let teacher_hidden = batch.hidden_states(&teacher)?;
/// let pass = batch.forward_pass(policy)?;
/// let distilled = DistilledTokens::new(
///     pass, policy.unembedding(), teacher_hidden, teacher.unembedding(), &divergence, &config)?;
/// let loss = Aggregation::TokenMean.sum(distilled.divergences.clone(), &batch.mask, counts)?;
/// let gradients = distilled.backward(loss, policy)?;
/// ```
///
/// [`LogProbConfig::temperature`] is that of both distributions; the gradient is that of the divergence, without the factor of
/// its square that distillation of classifiers has (arXiv 1503.02531).
#[derive(Debug)]
pub struct DistilledTokens {
    /// `[B, T]`, in nats, a leaf that requires a gradient. What stands at padding is unspecified.
    pub divergences: Tensor<2>,
    /// How well the two agree on the teacher's most likely tokens, for a divergence that has only these.
    pub agreement: Option<TopAgreement>,
    pass: ForwardPass,
    unembedding: Tensor<2>,
    teacher: Teacher,
    config: LogProbConfig,
}

/// How student and teacher agree on the teacher's `k` most likely tokens, each `[B, T]` and without a gradient.
#[derive(Clone, Debug)]
pub struct TopAgreement {
    /// What the teacher gives them.
    pub teacher_mass: Tensor<2>,
    /// What the student gives them.
    pub student_mass: Tensor<2>,
    /// The share of them that are among the student's `k` most likely.
    pub overlap: Tensor<2>,
}

/// What is known about the teacher.
#[derive(Clone, Debug)]
enum Teacher {
    /// Hidden states `[N, D]`, unembedding `[D, V]` and the share in the mixture.
    Full(Tensor<2>, Tensor<2>, f64),
    Top(Top),
}

impl Teacher {
    /// The gradient `[n, V]` of the divergences of tokens `from..to` in the student's logits.
    fn gradient(&self, student: Tensor<2>, from: usize, to: usize, temperature: f64) -> Tensor<2> {
        match self {
            Self::Full(hidden, unembedding, beta) => {
                let logits = hidden
                    .clone()
                    .slice(s![from..to, ..])
                    .matmul(unembedding.clone());
                let teacher = log_distribution(logits, temperature);
                jsd_gradient(teacher, student, *beta, temperature)
            }
            Self::Top(top) => part(top, from, to).gradient(student, temperature),
        }
    }
}

/// The tokens `from..to`.
fn part(top: &Top, from: usize, to: usize) -> Top {
    Top {
        ids: top.ids.clone().slice(s![from..to, ..]),
        log_probs: top.log_probs.clone().slice(s![from..to, ..]),
        tail: top.tail,
    }
}

impl DistilledTokens {
    /// Compares the hidden states `[B, T, D]` of `pass` under `unembedding` `[D, V]` with those of the teacher, `[B, T, D']` under `[D', V]`.
    /// An unembedding that is not trained gets no gradient, and none is computed.
    ///
    /// # Errors
    /// If the configuration or the divergence is refused or the shapes do not fit.
    pub fn new(
        pass: impl Into<ForwardPass>,
        unembedding: Tensor<2>,
        teacher_hidden: Tensor<3>,
        teacher_unembedding: Tensor<2>,
        divergence: &Divergence,
        config: &LogProbConfig,
    ) -> Result<Self> {
        divergence.validate()?;
        let pass = pass.into();
        let device = pass.hidden.device();
        host::on_pool(&device, pass, |pass| {
            let [rows, width, _] = pass.hidden.dims();
            let [teacher_rows, teacher_width, size] = teacher_hidden.dims();
            check(
                [teacher_rows, teacher_width] == [rows, width],
                "the teacher's hidden states",
                || {
                    let got = format!("[{teacher_rows}, {teacher_width}, {size}]");
                    (got, format!("[{rows}, {width}, D], as the student's"))
                },
            )?;
            let [height, vocabulary] = teacher_unembedding.dims();
            let student = unembedding.dims()[1];
            check(
                (height, vocabulary) == (size, student),
                "the teacher's unembedding",
                || {
                    let expected = format!(
                        "[{size}, {student}]: as wide as its hidden states, with the student's vocabulary (slice both unembeddings to \
                     the tokens that the tokenizer has, if they differ in unused ones)"
                    );
                    (format!("[{height}, {vocabulary}]"), expected)
                },
            )?;
            let teacher = match *divergence {
                Divergence::Jsd { beta } => Teacher::Full(
                    teacher_hidden.inner().reshape([rows * width, size]),
                    teacher_unembedding.inner(),
                    beta,
                ),
                Divergence::TopK { k, tail } => {
                    let top = TopTokens::of(teacher_hidden, teacher_unembedding, k, config)?;
                    Teacher::Top(flat(&top, tail))
                }
            };
            Self::of(pass, unembedding, teacher, config)
        })
    }

    /// Compares with what a teacher said of its most likely tokens, by the top-k sum of [`Divergence`].
    ///
    /// # Errors
    /// If the configuration is refused, the shapes do not fit, or the teacher names a token that the student does not have.
    pub fn from_top(
        pass: impl Into<ForwardPass>,
        unembedding: Tensor<2>,
        teacher: &TopTokens,
        tail: bool,
        config: &LogProbConfig,
    ) -> Result<Self> {
        let pass = pass.into();
        let device = pass.hidden.device();
        host::on_pool(&device, pass, |pass| {
            let [rows, width, _] = pass.hidden.dims();
            let dims = teacher.dims();
            check(
                dims[..2] == [rows, width],
                "the teacher's top tokens",
                || {
                    let expected = format!("[{rows}, {width}, k], as the student's hidden states");
                    (format!("{dims:?}"), expected)
                },
            )?;
            teacher.check_vocabulary(unembedding.dims()[1])?;
            Self::of(pass, unembedding, Teacher::Top(flat(teacher, tail)), config)
        })
    }

    fn of(
        pass: ForwardPass,
        unembedding: Tensor<2>,
        teacher: Teacher,
        config: &LogProbConfig,
    ) -> Result<Self> {
        config.validate()?;
        let [rows, width, size] = pass.hidden.dims();
        let height = unembedding.dims()[0];
        check(height == size, "unembedding", || {
            let expected = format!("[{size}, V], as the hidden states are {size} wide");
            (format!("{:?}", unembedding.dims()), expected)
        })?;
        let total = rows * width;
        let hidden = pass.hidden.clone().inner().reshape([total, size]);
        let matrix = unembedding.clone().inner();
        let mut columns: [Vec<Tensor<1>>; 4] = Default::default();
        for (from, to) in chunks(total, config.chunk) {
            let logits = hidden
                .clone()
                .slice(s![from..to, ..])
                .matmul(matrix.clone());
            let student = log_distribution(logits, config.temperature);
            match &teacher {
                Teacher::Full(hidden, unembedding, beta) => {
                    let logits = hidden
                        .clone()
                        .slice(s![from..to, ..])
                        .matmul(unembedding.clone());
                    let teacher = log_distribution(logits, config.temperature);
                    columns[0].push(jsd(teacher, student, *beta));
                }
                Teacher::Top(top) => {
                    let top = part(top, from, to);
                    let k = top.ids.dims()[1];
                    let least = threshold(student.clone(), k)?;
                    let own = student.clone().gather(1, top.ids.clone());
                    let shared = own.clone().greater_equal(least.expand(own.dims()));
                    let shared = shared.float().sum_dim(1).div_scalar(k as f64);
                    let value = top.value(student);
                    columns[0].push(value.divergence);
                    columns[1].push(value.teacher_mass);
                    columns[2].push(value.student_mass);
                    columns[3].push(shared.squeeze_dim(1));
                }
            }
        }
        let [divergences, teacher_mass, student_mass, overlap] = columns;
        let joined = |parts| Tensor::<1>::cat(parts, 0).reshape([rows, width]);
        let agreement = (!overlap.is_empty()).then(|| TopAgreement {
            teacher_mass: joined(teacher_mass),
            student_mass: joined(student_mass),
            overlap: joined(overlap),
        });
        Ok(Self {
            divergences: joined(divergences).autodiff().require_grad(),
            agreement,
            pass,
            unembedding,
            teacher,
            config: *config,
        })
    }

    /// The gradients of `loss` with respect to the parameters of `model`, in f32 also for weights in half precision; empty if the
    /// loss depends on no token. As [`ScoredTokens::backward`](crate::policy::ScoredTokens::backward), f16 included.
    ///
    /// # Errors
    /// If the device cannot give back what the loss is scaled by in f16.
    pub fn backward<M: Module>(self, loss: Tensor<1>, model: &M) -> Result<GradientsParams> {
        let device = self.pass.hidden.device();
        host::on_pool(&device, model.clone(), |model| self.pull(loss, &model))
    }

    fn pull<M: Module>(self, loss: Tensor<1>, model: &M) -> Result<GradientsParams> {
        if !loss.is_tracked() {
            return Ok(GradientsParams::new());
        }
        let upstream = loss.backward();
        let Some(pull) = self.divergences.grad(&upstream) else {
            return Ok(GradientsParams::new());
        };
        let [rows, width, size] = self.pass.hidden.dims();
        let total = rows * width;
        let pull = pull.reshape([total]);
        let dtype = self.pass.hidden.dtype();
        let scale = loss_scale(dtype, &pull.clone().abs())?;
        let idle = pull.clone().equal_scalar(0.0).unsqueeze_dim::<2>(1);
        let pull = pull.mul_scalar(scale);
        let hidden = self.pass.hidden.clone().inner().reshape([total, size]);
        let hidden = zeroed_where_idle(hidden, pull.clone().abs());
        let matrix = self.unembedding.clone().inner();
        let trained = self.unembedding.is_tracked();
        let temperature = self.config.temperature;
        let mut to_hidden = Vec::new();
        let mut to_unembedding: Option<Tensor<2>> = None;
        for (from, to) in chunks(total, self.config.chunk) {
            let hidden = hidden.clone().slice(s![from..to, ..]);
            let student = log_distribution(hidden.clone().matmul(matrix.clone()), temperature);
            let to_logits = self.teacher.gradient(student, from, to, temperature);
            let shape = to_logits.dims();
            let pull = pull.clone().slice(s![from..to]).unsqueeze_dim::<2>(1);
            // What the teacher says at padding may be NaN.
            let idle = idle.clone().slice(s![from..to, ..]).expand(shape);
            let to_logits = as_dtype((to_logits * pull).mask_fill(idle, 0.0), dtype);
            to_hidden.push(to_logits.clone().matmul(matrix.clone().transpose()));
            if trained {
                let new = in_f32(hidden.transpose().matmul(to_logits));
                to_unembedding = Some(match to_unembedding {
                    Some(sum) => sum + new,
                    None => new,
                });
            }
        }
        let to_hidden = Tensor::cat(to_hidden, 0).reshape([rows, width, size]);
        let unembedding = to_unembedding.map(|gradient| (self.unembedding, gradient));
        let gradients = self.pass.backward(to_hidden, unembedding, model)?;
        Ok(unscaled(gradients, scale, model))
    }
}

fn flat(top: &TopTokens, tail: bool) -> Top {
    let (ids, log_probs) = top.flat();
    Top {
        ids,
        log_probs,
        tail,
    }
}

/// An error about the shape of `what` unless it is right; `says` gives what it is and what would be right.
fn check(right: bool, what: &str, says: impl FnOnce() -> (String, String)) -> Result<()> {
    if right {
        return Ok(());
    }
    let (got, expected) = says();
    Err(Error::shape(what, got, expected))
}
