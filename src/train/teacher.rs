//! Teachers for advantages: another scorer than the reference, or the same one with another prompt.

use std::fmt;
use std::sync::Arc;

use super::experience::scored;
use super::learner::Learner;
use super::scorer::{Scorer, ScoringConfig};
use crate::Result;
use crate::policy::{PolicyModel, ValueModel};
use crate::prompt::{Problem, Tokenizer};
use crate::types::{PerToken, Rollout, RolloutBuffer, RolloutGroup};

/// Supplies the prompt that a teacher reads in place of a completion's own prompt, for example with
/// the answer, a hint, feedback, or another completion.
///
/// With additional information in the prompt, a policy can be its own teacher (self-distillation).
/// Passed to [`TrainerBuilder::teacher_context`](super::TrainerBuilder::teacher_context).
///
/// ```
/// use rlvr::prompt::{CharTokenizer, Tokenizer};
/// use rlvr::train::TeacherContext;
/// use rlvr::types::RolloutGroup;
///
/// /// Shows the teacher the reference answer.
/// struct ShowAnswer(CharTokenizer);
///
/// impl TeacherContext for ShowAnswer {
///     fn prompt(
///         &self,
///         group: &RolloutGroup,
///         _rollout: usize,
///     ) -> rlvr::Result<Option<Vec<u32>>> {
///         let problem = &group.problem;
///         let prompt =
///             format!("{}{};{}", problem.prompt, problem.answer, problem.prompt);
///         self.0.encode_prompt(&prompt).map(Some)
///     }
///
///     fn name(&self) -> String {
///         "show_answer".into()
///     }
/// }
/// ```
pub trait TeacherContext: Send {
    /// Returns the teacher's prompt tokens for completion `rollout` of the scored `group`. With
    /// `None` the completion is not distilled.
    ///
    /// # Errors
    /// Returns an error if the prompt cannot be built.
    fn prompt(&self, group: &RolloutGroup, rollout: usize) -> Result<Option<Vec<u32>>>;

    /// Returns the name in checkpoints. A checkpoint can only be loaded with a context of the same
    /// name.
    fn name(&self) -> String;
}

/// Builds the teacher's prompt text from a problem and a solution.
type Template = dyn Fn(&Problem, &str) -> String + Send + Sync;

/// A [`TeacherContext`] with a successful completion of the same group (SDPO, arXiv 2601.20802,
/// without its textual feedback).
///
/// It is the first *other* completion whose total reward is at least `success`. A completion
/// without such a sibling is not distilled, so an unsolved problem gives no gradient.
///
/// ```text
/// A_t = ln pi_teacher(y_t | problem, successful sibling, y_<t)
///       - ln pi(y_t | problem, y_<t)
/// ```
///
/// In SDPO the teacher is a moving average of the policy: use the trainer's reference with
/// [`ReferenceSync::MovingAverage`](crate::policy::ReferenceSync::MovingAverage).
///
/// ```
/// use rlvr::prompt::{CharTokenizer, Problem, Tokenizer};
/// use rlvr::train::{SuccessfulSibling, TeacherContext};
/// use rlvr::types::{Rollout, RolloutGroup};
///
/// let tokenizer = CharTokenizer::new("0123456789+=;", &[])?;
/// let rollout = |text: &str, reward| Rollout {
///     reward: Some(reward),
///     ..Rollout::new(
///         tokenizer.encode(text).unwrap(),
///         vec![-0.5; text.len()],
///         text,
///     )
/// };
/// let group = RolloutGroup::new(
///     Problem::new("1+1=", "2"),
///     tokenizer.encode("1+1=")?,
///     vec![rollout("3", 0.0), rollout("2", 1.0)],
/// );
/// let context = SuccessfulSibling::new(tokenizer.clone(), 1.0).with_template(
///     |problem, solution| format!("{}{solution};{}", problem.prompt, problem.prompt),
/// );
/// assert_eq!(
///     context.prompt(&group, 0)?,
///     Some(tokenizer.encode("1+1=2;1+1=")?)
/// );
/// assert_eq!(context.prompt(&group, 1)?, None);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub struct SuccessfulSibling {
    tokenizer: Arc<dyn Tokenizer>,
    success: f64,
    template: Box<Template>,
}

impl SuccessfulSibling {
    /// Creates a context in which a completion is successful if its total reward is at least
    /// `success`. `tokenizer` is the policy's.
    pub fn new(tokenizer: impl Tokenizer + 'static, success: f64) -> Self {
        Self {
            tokenizer: Arc::new(tokenizer),
            success,
            template: Box::new(|problem, solution| {
                format!(
                    "{}\n\nA correct solution:\n\n{solution}\n\nSolve the problem in your own words.",
                    problem.prompt
                )
            }),
        }
    }

    /// Sets the function that builds the teacher's text from the problem and the solution. The
    /// tokenizer encodes the text as a prompt.
    #[must_use]
    pub fn with_template(
        mut self,
        template: impl Fn(&Problem, &str) -> String + Send + Sync + 'static,
    ) -> Self {
        self.template = Box::new(template);
        self
    }
}

impl TeacherContext for SuccessfulSibling {
    fn prompt(&self, group: &RolloutGroup, rollout: usize) -> Result<Option<Vec<u32>>> {
        let succeeded =
            |(other, sibling): &(usize, &Rollout)| *other != rollout && self.is_success(sibling);
        let Some((_, sibling)) = group.rollouts.iter().enumerate().find(succeeded) else {
            return Ok(None);
        };
        let text = (self.template)(&group.problem, &sibling.text);
        self.tokenizer.encode_prompt(&text).map(Some)
    }

    fn name(&self) -> String {
        format!("successful_sibling({})", self.success)
    }
}

impl SuccessfulSibling {
    fn is_success(&self, rollout: &Rollout) -> bool {
        rollout
            .total_reward()
            .is_some_and(|reward| reward >= self.success)
    }
}

impl fmt::Debug for SuccessfulSibling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SuccessfulSibling")
            .field("success", &self.success)
            .finish_non_exhaustive()
    }
}

/// The teacher of a trainer.
#[derive(Default)]
pub(super) struct AdvantageTeacher {
    /// Replaces the reference.
    pub scorer: Option<Box<dyn Scorer>>,
    /// Replaces the prompts.
    pub context: Option<Box<dyn TeacherContext>>,
}

impl AdvantageTeacher {
    /// Returns whether a teacher other than the plain reference is set.
    pub fn is_given(&self) -> bool {
        self.scorer.is_some() || self.context.is_some()
    }

    /// Returns the name in checkpoints.
    pub fn name(&self) -> Option<String> {
        let scorer = self.scorer.as_ref().map(|scorer| scorer.name());
        let context = self.context.as_ref().map(|context| context.name());
        match (scorer, context) {
            (Some(scorer), Some(context)) => Some(format!("{scorer} with {context}")),
            (Some(name), None) | (None, Some(name)) => Some(name),
            (None, None) => None,
        }
    }

    /// Scores the rollouts of a step with the teacher, if there is one. `policy` holds their
    /// log-probs under the policy.
    pub fn scores<M: PolicyModel, V: ValueModel>(
        &self,
        learner: &Learner<M, V>,
        config: &ScoringConfig,
        policy: &PerToken,
        rollouts: &RolloutBuffer,
    ) -> Result<Option<TeacherScores>> {
        if !self.is_given() {
            return Ok(None);
        }
        let learners = &learner.learners;
        let score = |rollouts: &RolloutBuffer| match (&self.scorer, &learner.reference) {
            _ if rollouts.is_empty() => Ok(PerToken::default()),
            (Some(scorer), _) => scored(learners, scorer.as_ref(), rollouts, config),
            (None, Some(reference)) => reference.log_probs(learners, rollouts, config),
            (None, None) => Ok(PerToken::default()),
        };
        let Some(context) = &self.context else {
            let (log_probs, share) = (score(rollouts)?, 1.0);
            return Ok(Some(TeacherScores { log_probs, share }));
        };
        let (shown, rows) = in_context(context.as_ref(), rollouts, learner.policy.max_positions())?;
        // Completions that the teacher does not read get the policy's own log-probs, so their
        // advantage is zero.
        let mut log_probs = policy.clone();
        for (&row, scores) in rows.iter().zip(score(&shown)?.rows()) {
            log_probs[row].copy_from_slice(scores);
        }
        let share = rows.len() as f64 / rollouts.len().max(1) as f64;
        Ok(Some(TeacherScores { log_probs, share }))
    }
}

/// A teacher's scores of the rollouts of a step.
pub(super) struct TeacherScores {
    pub log_probs: PerToken,
    /// The share of the rollouts that it has scored.
    pub share: f64,
}

/// Returns the completions that the teacher reads, each in its own group with the teacher's prompt,
/// and their rows. These are the completions for which the context has a prompt and which, with it
/// and without the last token, fit in `positions`.
fn in_context(
    context: &dyn TeacherContext,
    rollouts: &RolloutBuffer,
    positions: usize,
) -> Result<(RolloutBuffer, Vec<usize>)> {
    let (mut shown, mut rows, mut row) = (RolloutBuffer::new(), Vec::new(), 0);
    for group in &rollouts.groups {
        for (index, rollout) in group.rollouts.iter().enumerate() {
            let prompt = context.prompt(group, index)?;
            let fits = |prompt: &Vec<u32>| {
                !prompt.is_empty() && prompt.len() + rollout.tokens.len() <= positions + 1
            };
            if let Some(prompt) = prompt.filter(fits) {
                let alone = vec![rollout.clone()];
                shown.push(RolloutGroup::new(group.problem.clone(), prompt, alone));
                rows.push(row);
            }
            row += 1;
        }
    }
    Ok((shown, rows))
}
