//! The training loop of a distillation.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Tensor, s};

use super::config::DistillConfig;
use super::data::{DistillData, Prepared};
use super::teacher::{Teacher, TeacherStates};
use crate::loss::{Aggregation, StepCounts};
use crate::policy::{
    DistilledTokens, Divergence, GradientSum, PolicyModel, TopAgreement, require_gradients,
};
use crate::prompt::Tokenizer;
use crate::rollout::{
    LocalEngine, RolloutBatch, RolloutBuffer, RolloutEngine, RolloutView, micro_batches,
    sample_rollouts,
};
use crate::train::optimizer::{Optimizer, UpdateReport};
use crate::types::Rollout;
use crate::{Error, Result, host};

/// The report of one distillation update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillReport {
    /// The number of the update, counted from 1.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// Mean divergence of a token, in nats.
    pub divergence: f64,
    /// Completions that the student generated.
    pub generated: usize,
    /// Demonstrated completions.
    pub demonstrated: usize,
    /// Tokens of all completions.
    pub tokens: usize,
    /// For a top-k divergence, three means over the tokens: the probability that the teacher gives
    /// to its top k, the probability that the student gives to them, and the share of them that are
    /// also in the student's top k.
    pub agreement: Option<[f64; 3]>,
    /// Norm and learning rate of the update.
    pub update: UpdateReport,
}

/// Distils a teacher into a student by minimising a divergence between their distributions at every
/// token (GKD, arXiv 2306.13649).
///
/// An update generates completions with the current student, adds the share of demonstrations,
/// computes the teacher's distribution at every token, and updates the student with the gradient of
/// [`DistilledTokens`]. No gradient flows through the sampling of tokens. With `on_policy` 1 and
/// the reverse KL this is on-policy distillation over the whole vocabulary. No reward is needed; to
/// combine distillation with rewards, see [`Distillation`](crate::advantage::Distillation).
///
/// All randomness is a function of the seed and the number of the update: a distillation that was
/// [saved](Self::save) and [restored](Self::restore) continues as if it had never stopped.
///
/// ```
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::prompt::{CharTokenizer, Problem, Tokenizer};
/// use rlvr::train::{DistillConfig, DistillData, Distiller, ModelTeacher};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let tokenizer = CharTokenizer::new("ab", &[])?;
/// let shape = CausalConfig {
///     hidden_size: 8,
///     intermediate_size: 8,
///     ..CausalConfig::new(tokenizer.vocab_size())
/// };
/// let device = burn::tensor::Device::flex();
/// let teacher = CausalConfig {
///     hidden_size: 16,
///     ..shape.clone()
/// }
/// .init(1, &device)?;
/// let mut student = shape.init(0, &device.autodiff())?;
///
/// let config = DistillConfig {
///     steps: 2,
///     batch_size: 4,
///     ..DistillConfig::default()
/// };
/// let data = DistillData::problems([Problem::new("a", "")]);
/// let mut distiller = Distiller::new(
///     &student,
///     ModelTeacher::new(&teacher),
///     tokenizer,
///     data,
///     config,
/// )?;
/// distiller.run(&mut student, |report| report.divergence > 0.01)?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[doc(alias = "GKDTrainer")]
pub struct Distiller<M: PolicyModel> {
    config: DistillConfig,
    teacher: Box<dyn Teacher>,
    tokenizer: Arc<dyn Tokenizer>,
    data: Prepared,
    engine: Box<dyn RolloutEngine<M>>,
    optimizer: Optimizer,
    steps: u64,
}

impl<M: PolicyModel> Distiller<M> {
    /// Creates a distiller and checks that its parts fit each other and the student.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid, no parameter of the student requires gradients,
    /// the tokenizer has more tokens than the student or the teacher, problems or demonstrations
    /// are missing or unused with this `on_policy`, or a prompt or demonstration (named by its
    /// index) cannot be encoded or is too long for the student or the teacher.
    pub fn new(
        student: &M,
        teacher: impl Teacher + 'static,
        tokenizer: impl Tokenizer + 'static,
        data: DistillData,
        mut config: DistillConfig,
    ) -> Result<Self> {
        if config.generation.stop_tokens.is_empty() {
            config.generation.stop_tokens = tokenizer.stop_tokens();
        }
        config.validate()?;
        require_gradients(student, "student")?;
        let sizes = [Some(student.vocab_size()), teacher.vocab_size()];
        for (who, size) in ["student", "teacher"].into_iter().zip(sizes) {
            if let Some(size) = size.filter(|size| tokenizer.vocab_size() > *size) {
                return Err(Error::config(
                    "tokenizer.vocab_size",
                    tokenizer.vocab_size(),
                    format!("at most the {who}'s {size}"),
                ));
            }
        }
        config.generation.check_stop_tokens(student.vocab_size())?;
        let positions = student.max_positions();
        let positions = teacher
            .max_positions()
            .map_or(positions, |most| positions.min(most));
        let vocabulary = student.vocab_size();
        let data = Prepared::new(data, &tokenizer, &config, vocabulary, positions)?;
        Ok(Self {
            optimizer: Optimizer::new(config.optimizer)?,
            config,
            teacher: Box::new(teacher),
            tokenizer: Arc::new(tokenizer),
            data,
            engine: Box::new(LocalEngine),
            steps: 0,
        })
    }

    /// Sets the engine that generates completions. Default: the crate's own generator.
    #[must_use]
    pub fn with_engine(mut self, engine: impl RolloutEngine<M> + 'static) -> Self {
        self.engine = Box::new(engine);
        self
    }

    /// Returns the number of updates made so far.
    pub fn steps_done(&self) -> u64 {
        self.steps
    }

    /// Makes the remaining configured updates. `observe` is called after each update; training ends
    /// early if it returns `false`.
    ///
    /// # Errors
    /// Returns the errors of [`step`](Self::step).
    pub fn run(
        &mut self,
        student: &mut M,
        mut observe: impl FnMut(&DistillReport) -> bool,
    ) -> Result<()> {
        while self.steps < self.config.steps {
            if !observe(&self.step(student)?) {
                break;
            }
        }
        Ok(())
    }

    /// Makes one update.
    ///
    /// # Errors
    /// Returns an error if generation fails, the teacher cannot score a completion or does not fit
    /// the divergence, or the gradient is not finite. The student is then unchanged.
    pub fn step(&mut self, student: &mut M) -> Result<DistillReport> {
        let (step, version) = (self.steps, self.optimizer.updates());
        let questions = self.data.questions(step, &self.config);
        let mut rollouts = match questions.is_empty() {
            true => RolloutBuffer::new(),
            false => sample_rollouts(
                self.engine.as_mut(),
                student,
                version,
                self.tokenizer.as_ref(),
                &questions,
                &self.config.generation,
            )?,
        };
        let generated = rollouts.len();
        let demonstrations = self.data.demonstrations(step, &self.config);
        rollouts.groups.extend(demonstrations.groups);

        let counts = StepCounts::of(&rollouts.lengths());
        let view = RolloutView::new(&rollouts);
        let all: Vec<usize> = (0..rollouts.len()).collect();
        let most = self.config.max_tokens_per_micro_batch;
        let mut gradients = GradientSum::default();
        let mut sums = Sums::default();
        for part in micro_batches(&view, &all, self.config.micro_batch, most) {
            let batch = RolloutBatch::new(&view, &part, &student.device())?;
            let prompts: Vec<&[u32]> = part
                .iter()
                .map(|&row| &*rollouts.groups[view.group_ids()[row]].prompt_tokens)
                .collect();
            let own: Vec<&Rollout> = part.iter().map(|&row| view.rollouts()[row]).collect();
            let states = self.teacher.states(&batch, &prompts, &own)?;
            let distilled = self.compare(student, &batch, states)?;
            let loss = self.config.aggregation;
            let loss = loss.sum(distilled.divergences.clone(), &batch.mask, counts)?;
            sums.add(&loss, &distilled, &batch.mask, counts)?;
            gradients.add(student, distilled.backward(loss, student)?);
        }
        let update = self.optimizer.step(student, gradients.finish())?;
        self.steps += 1;
        Ok(DistillReport {
            step: self.steps,
            loss: sums.loss,
            divergence: sums.divergence,
            generated,
            demonstrated: rollouts.len() - generated,
            tokens: counts.tokens,
            agreement: sums.agreement,
            update,
        })
    }

    /// Computes the divergences of a batch.
    fn compare(
        &self,
        student: &M,
        batch: &RolloutBatch,
        teacher: TeacherStates,
    ) -> Result<DistilledTokens> {
        let pass = batch.forward_pass(student)?;
        let own = student.unembedding();
        let (divergence, config) = (&self.config.divergence, &self.config.log_probs());
        match teacher {
            TeacherStates::Hidden {
                hidden,
                unembedding,
            } => {
                let [of_student, of_teacher] = [&own, &unembedding].map(|matrix| matrix.dims()[1]);
                // Tokens that only one of the two has are padding of its vocabulary.
                let shared = of_student.min(of_teacher);
                let cut = |matrix: Tensor<2>, size: usize| match size > shared {
                    true => matrix.slice(s![.., 0..shared]),
                    false => matrix,
                };
                let (own, unembedding) = (cut(own, of_student), cut(unembedding, of_teacher));
                DistilledTokens::new(pass, own, hidden, unembedding, divergence, config)
            }
            TeacherStates::Top(top) => match *divergence {
                Divergence::TopK { tail, .. } => {
                    DistilledTokens::from_top(pass, own, &top, tail, config)
                }
                Divergence::Jsd { .. } => Err(Error::config(
                    "distill.divergence",
                    "jsd",
                    "top_k with a teacher that returns its most likely tokens only",
                )),
            },
        }
    }

    /// Writes the student's trained parameters, the optimizer and the number of updates into the
    /// folder `path`, atomically replacing its previous contents.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save(&self, student: &M, path: impl AsRef<Path>) -> Result<()> {
        super::checkpoint::save(
            &self.config,
            &self.optimizer,
            self.steps,
            student,
            path.as_ref(),
        )
    }

    /// Restores what [`save`](Self::save) wrote, including the student's trained parameters.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged, or belongs to a distillation with other
    /// settings or to a student of another shape. Nothing is then changed.
    pub fn restore(&mut self, student: &mut M, path: impl AsRef<Path>) -> Result<()> {
        let read = super::checkpoint::restore(&self.config, student, path.as_ref())?;
        (*student, self.optimizer, self.steps) = read;
        Ok(())
    }
}

/// The sums of the report over micro-batches.
#[derive(Debug, Default)]
struct Sums {
    loss: f64,
    divergence: f64,
    agreement: Option<[f64; 3]>,
}

impl Sums {
    fn add(
        &mut self,
        loss: &Tensor<1>,
        distilled: &DistilledTokens,
        mask: &Tensor<2>,
        counts: StepCounts,
    ) -> Result<()> {
        let mean = |terms: &Tensor<2>| {
            Aggregation::TokenMean.sum(terms.clone().inner(), &mask.clone().inner(), counts)
        };
        let mut numbers = vec![loss.clone().inner(), mean(&distilled.divergences)?];
        if let Some(TopAgreement {
            teacher_mass,
            student_mass,
            overlap,
        }) = &distilled.agreement
        {
            for terms in [teacher_mass, student_mass, overlap] {
                numbers.push(mean(terms)?);
            }
        }
        let numbers = host::floats(Tensor::cat(numbers, 0), "the loss")?;
        let mut numbers = numbers.into_iter().map(f64::from);
        self.loss += numbers.next().unwrap_or(f64::NAN);
        self.divergence += numbers.next().unwrap_or(f64::NAN);
        if distilled.agreement.is_some() {
            let sums = self.agreement.get_or_insert_default();
            for (sum, number) in sums.iter_mut().zip(numbers) {
                *sum += number;
            }
        }
        Ok(())
    }
}
