//! Divergences of two distributions over the vocabulary, and their gradients with respect to the
//! student's logits.

use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::policy::log_probs::in_f32;
use crate::{Error, Result};

/// A divergence of the student's distribution `q` from the teacher's `p` at one token, in nats.
///
/// ```text
/// jsd, 0 < beta < 1:  beta KL(p || m) + (1 - beta) KL(q || m),   m = beta p + (1 - beta) q
///      beta = 0:      KL(p || q)      forward, mode-covering
///      beta = 1:      KL(q || p)      reverse, mode-seeking
/// top_k:              sum over the teacher's k most likely tokens of p ln(p / q)
///      with a tail:   + t ln(t / u)
///                     t and u: the probabilities of all other tokens in p and q
/// ```
///
/// The first is the generalised Jensen-Shannon divergence of GKD (arXiv 2306.13649, eq. 1). Its
/// formula is 0 at `beta` 0 and 1, so these two are defined, as in GKD and TRL, as the limits of
/// `JSD / beta` and `JSD / (1 - beta)`. Close to an end the divergence is therefore about `beta` or
/// `1 - beta` times that at the end itself, and needs another learning rate.
///
/// The top-k sum without a tail is not a divergence: it may be negative, and its minimum is where
/// `q` is the teacher's distribution *within* the k tokens and 0 elsewhere. With the tail it is the
/// KL of the two distributions after all other tokens are merged into one: never negative, and 0
/// where the two agree. If `k` is the size of the vocabulary, both are the forward KL.
///
/// TRL calls these `beta`, `loss_top_k` and `loss_add_tail`; verl's `forward_kl_topk` is the sum
/// without a tail.
///
/// The log-prob of a token of probability 0 (a logit of `-inf`) is taken as -10,000, so that an
/// infinite reverse KL becomes a large number.
///
/// ```
/// use rlvr::policy::Divergence;
///
/// let read: Divergence = serde_json::from_str(r#"{"jsd": {"beta": 0.5}}"#)?;
/// assert_eq!(read, Divergence::Jsd { beta: 0.5 });
/// assert!(Divergence::Jsd { beta: 1.5 }.validate().is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Divergence {
    /// The Jensen-Shannon divergence over the whole vocabulary.
    Jsd {
        /// The teacher's weight in the mixture, in [0, 1].
        beta: f64,
    },
    /// The sum over the teacher's most likely tokens.
    TopK {
        /// The number of tokens; at least 1.
        k: usize,
        /// Whether all other tokens are included as one. Default true.
        #[serde(default = "yes")]
        tail: bool,
    },
}

fn yes() -> bool {
    true
}

impl Default for Divergence {
    /// Returns the reverse KL, `beta` 1.
    fn default() -> Self {
        Self::Jsd { beta: 1.0 }
    }
}

impl Divergence {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `beta` is outside [0, 1] or `k` is 0.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Jsd { beta } if !(0.0..=1.0).contains(&beta) => Err(Error::config(
                "divergence.beta",
                beta,
                "a share in [0, 1]: 0 is the forward KL, 1 the reverse KL",
            )),
            Self::TopK { k: 0, .. } => Err(Error::config("divergence.k", 0, "at least 1 token")),
            _ => Ok(()),
        }
    }
}

/// The log-prob of a token of probability 0.
pub(super) const FLOOR: f64 = -1e4;

/// The lower bound of the probability of all tokens outside the top in its logarithm.
const LEAST_TAIL: f64 = 1e-30;

/// Returns `ln softmax(logits / temperature)` in f32, `[N, V]`, at least [`FLOOR`].
pub(super) fn log_distribution(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    log_softmax(in_f32(logits).div_scalar(temperature), 1).clamp_min(FLOOR)
}

/// Returns `ln(m / p)` and `ln(m / q)` of the mixture `m = beta p + (1 - beta) q`, given the
/// logarithms of `p` and `q`. The exponentials are at most 1, whichever of the two is larger.
fn from_mixture(teacher: Tensor<2>, student: Tensor<2>, beta: f64) -> (Tensor<2>, Tensor<2>) {
    let ratio = teacher - student;
    // m / q = 1 + beta (e^r - 1) where p is the smaller, m / p = 1 + (1 - beta) (e^-r - 1) where q
    // is.
    let share = ratio.clone().greater_elem(0.0).float();
    let share = share.mul_scalar(1.0 - 2.0 * beta).add_scalar(beta);
    let of_larger = (share * (ratio.clone().abs().neg().exp() - 1.0)).log1p();
    let to_teacher = of_larger.clone() + relu(ratio.clone().neg());
    (to_teacher, of_larger + relu(ratio))
}

/// Returns the generalised Jensen-Shannon divergence `[N]`, given log-probs `[N, V]`.
pub(super) fn jsd(teacher: Tensor<2>, student: Tensor<2>, beta: f64) -> Tensor<1> {
    let terms = if beta == 0.0 {
        teacher.clone().exp() * (teacher - student)
    } else if beta == 1.0 {
        student.clone().exp() * (student - teacher)
    } else {
        let (to_teacher, to_student) = from_mixture(teacher.clone(), student.clone(), beta);
        teacher.exp() * to_teacher.mul_scalar(-beta)
            + student.exp() * to_student.mul_scalar(beta - 1.0)
    };
    terms.sum_dim(1).squeeze_dim(1)
}

/// Returns the gradient `[N, V]` of [`jsd`] with respect to the student's logits before they are
/// divided by the temperature.
///
/// With `g = dD/dq` up to a constant, `dD/dz = q (g - sum q g) / temperature`. `g` is
/// `(1 - beta) ln(q / m)`, since the terms from `dm/dq` sum to a constant, and `ln(q / p)` for the
/// reverse KL. For the forward KL, `dD/dz = (q - p) / temperature`.
pub(super) fn jsd_gradient(
    teacher: Tensor<2>,
    student: Tensor<2>,
    beta: f64,
    temperature: f64,
) -> Tensor<2> {
    let q = student.clone().exp();
    if beta == 0.0 {
        return (q - teacher.exp()).div_scalar(temperature);
    }
    let g = match beta == 1.0 {
        true => student - teacher,
        false => from_mixture(teacher, student, beta)
            .1
            .mul_scalar(beta - 1.0),
    };
    let mean = (q.clone() * g.clone()).sum_dim(1);
    (q * (g - mean)).div_scalar(temperature)
}

/// The teacher's k most likely tokens at N positions.
#[derive(Clone, Debug)]
pub(super) struct Top {
    /// The token ids `[N, k]`, distinct in each row.
    pub ids: Tensor<2, Int>,
    /// Their log-probs `[N, k]`.
    pub log_probs: Tensor<2>,
    /// Whether all other tokens are included as one.
    pub tail: bool,
}

/// A top-k divergence and the probabilities of the top tokens, each `[N]`.
pub(super) struct TopValue {
    pub divergence: Tensor<1>,
    pub teacher_mass: Tensor<1>,
    pub student_mass: Tensor<1>,
}

impl Top {
    /// Returns the teacher's probabilities `[N, k]`, their sum and 1 minus their sum, both
    /// `[N, 1]`.
    fn teacher(&self) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let p = self.log_probs.clone().clamp_min(FLOOR).exp();
        let mass = p.clone().sum_dim(1);
        let rest = mass.clone().neg().add_scalar(1.0).clamp_min(0.0);
        (p, mass, rest)
    }

    /// Returns the student's probabilities with zeros at the teacher's tokens, `[N, V]`.
    fn outside(&self, q: Tensor<2>) -> Tensor<2> {
        let inside = q.clone().gather(1, self.ids.clone());
        q.scatter(1, self.ids.clone(), inside.neg(), IndexingUpdateOp::Add)
    }

    /// Returns the divergence, given the student's log-probs `[N, V]`.
    pub fn value(&self, student: Tensor<2>) -> TopValue {
        let (p, mass, rest) = self.teacher();
        let inside = student.clone().gather(1, self.ids.clone());
        let log_p = self.log_probs.clone().clamp_min(FLOOR);
        let mut divergence = (p * (log_p - inside.clone())).sum_dim(1);
        if self.tail {
            let left = self.outside(student.exp()).sum_dim(1).clamp_min(LEAST_TAIL);
            let log_rest = rest.clone().clamp_min(LEAST_TAIL).log();
            divergence = divergence + rest * (log_rest - left.log());
        }
        TopValue {
            divergence: divergence.squeeze_dim(1),
            teacher_mass: mass.squeeze_dim(1),
            student_mass: inside.exp().sum_dim(1).squeeze_dim(1),
        }
    }

    /// Returns the gradient `[N, V]` of the divergence with respect to the student's logits before
    /// they are divided by the temperature.
    ///
    /// It is `(M q - p) / temperature`, with `p` 0 outside the top and `M` its sum. With a tail,
    /// `M` is 1 and `p` outside the top is `t q / u`: the teacher's remaining probability,
    /// distributed as the student's.
    pub fn gradient(&self, student: Tensor<2>, temperature: f64) -> Tensor<2> {
        let (p, mass, rest) = self.teacher();
        let q = student.exp();
        let shape = q.dims();
        let (scaled, target) = match self.tail {
            false => {
                let none = q.zeros_like();
                (q * mass.expand(shape), none)
            }
            true => {
                let outside = self.outside(q.clone());
                let left = outside.clone().sum_dim(1).clamp_min(LEAST_TAIL);
                (q, outside * (rest / left))
            }
        };
        let target = target.scatter(1, self.ids.clone(), p, IndexingUpdateOp::Add);
        (scaled - target).div_scalar(temperature)
    }
}
