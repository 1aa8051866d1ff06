//! The divergence of a student from its teacher at every token, in chunks.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, s};

use super::divergence::{Divergence, Top, jsd, jsd_gradient, log_distribution};
use super::top::{TopTokens, threshold};
use crate::policy::forward_pass::ForwardPass;
use crate::policy::log_probs::{LogProbConfig, as_dtype, check_unembedding, chunks, in_f32};
use crate::policy::scored::{loss_scale, unscaled, zeroed_where_idle};
use crate::{Error, Result, host};

/// The divergence of the policy that is being trained from a teacher at every token, as input of a
/// loss: the counterpart of [`ScoredTokens`](crate::policy::ScoredTokens) for whole distributions.
///
/// [`divergences`](Self::divergences) is a leaf of the gradient tape: [`backward`](Self::backward)
/// first differentiates the loss with respect to it, then recomputes the logits of student and
/// teacher chunk by chunk to get the gradients of the student's hidden states and unembedding from
/// their formula, and finally runs one backward pass through the trunk. `4` to `8` matrices of
/// `chunk * V` floats are in memory at the same time, and never `[B, T, V]`. The teacher has no
/// gradient and may have another width.
///
/// [`LogProbConfig::temperature`] applies to both distributions. The gradient is that of the
/// divergence, without the factor `temperature^2` that is usual in the distillation of classifiers
/// (arXiv 1503.02531).
///
/// ```
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::policy::{
///     DistilledTokens, Divergence, LogProbConfig, PolicyModel, TokenBatch,
/// };
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let device = burn::tensor::Device::flex();
/// let config = CausalConfig {
///     hidden_size: 16,
///     ..CausalConfig::new(11)
/// };
/// let student = config.init(0, &device.clone().autodiff())?;
/// let teacher = config.init(1, &device)?;
/// let batch = TokenBatch::from_rows(&[[1, 2, 3]], &device)?.into();
/// let distilled = DistilledTokens::new(
///     student.forward_pass(&batch)?,
///     student.unembedding(),
///     teacher.hidden_states(&batch)?,
///     teacher.unembedding(),
///     &Divergence::default(), // the reverse KL
///     &LogProbConfig::default(),
/// )?;
/// let loss = distilled.divergences.clone().mean();
/// let gradients = distilled.backward(loss, &student)?;
/// # let _ = gradients;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct DistilledTokens {
    /// The divergences `[B, T]`, in nats; a leaf that requires a gradient. Values at padding are
    /// unspecified.
    pub divergences: Tensor<2>,
    /// The agreement of the two on the teacher's most likely tokens, for a top-k divergence.
    pub agreement: Option<TopAgreement>,
    pass: ForwardPass,
    unembedding: Tensor<2>,
    teacher: Teacher,
    config: LogProbConfig,
}

/// The agreement of student and teacher on the teacher's `k` most likely tokens. The fields are
/// `[B, T]` and detached.
#[derive(Clone, Debug)]
pub struct TopAgreement {
    /// The probability of these tokens under the teacher.
    pub teacher_mass: Tensor<2>,
    /// The probability of these tokens under the student.
    pub student_mass: Tensor<2>,
    /// The share of these tokens that are among the student's `k` most likely.
    pub overlap: Tensor<2>,
}

/// The teacher's distributions.
#[derive(Clone, Debug)]
enum Teacher {
    /// Hidden states `[N, D]`, unembedding `[D, V]` and `beta`.
    Full(Tensor<2>, Tensor<2>, f64),
    Top(Top),
}

impl Teacher {
    /// Returns the gradient `[to - from, V]` of the divergences of tokens `from..to` with respect
    /// to the student's logits.
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

/// Returns the part of `top` for the tokens `from..to`.
fn part(top: &Top, from: usize, to: usize) -> Top {
    Top {
        ids: top.ids.clone().slice(s![from..to, ..]),
        log_probs: top.log_probs.clone().slice(s![from..to, ..]),
        tail: top.tail,
    }
}

impl DistilledTokens {
    /// Compares the student's hidden states `[B, T, D]` of `pass` under `unembedding` `[D, V]` with
    /// the teacher's `[B, T, D']` under `[D', V]`.
    ///
    /// `pass` may also be a tensor of hidden states on the gradient tape. The gradient of the
    /// unembedding is computed only if it is trained. The teacher is detached.
    ///
    /// # Errors
    /// Returns an error if the configuration or the divergence is invalid, or the shapes do not
    /// match.
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
                        "[{size}, {student}], as wide as its hidden states and with the student's \
                         vocabulary; if the two differ only in unused tokens, slice both unembeddings"
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

    /// Compares the student with a teacher of which only the most likely tokens are known, by the
    /// top-k sum of [`Divergence`]. The arguments are those of [`new`](Self::new).
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid, the shapes do not match, or the teacher
    /// has a token id that is not in the student's vocabulary.
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
        check_unembedding(&unembedding, size)?;
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

    /// Returns the gradients of `loss` with respect to the parameters of `model`; empty if the loss
    /// depends on no token. They are f32, also for weights in half precision, and the loss is
    /// scaled in f16 as by [`ScoredTokens::backward`](crate::policy::ScoredTokens::backward).
    ///
    /// # Errors
    /// Returns an error if the backward pass fails, or a tensor cannot be read from the device.
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
            // The teacher's log-probs at padding may be NaN.
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

/// Returns an error about the shape of `what` unless `valid`; `shapes` returns the actual and the
/// expected shape.
fn check(valid: bool, what: &str, shapes: impl FnOnce() -> (String, String)) -> Result<()> {
    if valid {
        return Ok(());
    }
    let (got, expected) = shapes();
    Err(Error::shape(what, got, expected))
}
