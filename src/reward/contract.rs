//! The trait of a reward, its error, and rewards made of closures.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::RewardInput;

/// A rule that says how good one completion is.
///
/// # The contract
///
/// - **Pure.** The same input gives the same outcome, whatever was scored before and on whichever thread. A resumed run
///   scores again, and a reward that draws random numbers or counts its calls makes it another run.
/// - **Shared.** One value is called from several threads at once.
/// - **Bounded.** The set gives each call a time limit, but a thread cannot be killed: a call that never returns keeps its
///   thread, and a core if it spins, until the process ends. A reward whose work depends on the text bounds it itself - bytes
///   read, depth, steps - and bounds what it waits for with a timeout of its own. The set's limit is the second guard.
/// - **Linear.** The text was written by a policy that is rewarded for finding weaknesses. Recursion over it overflows the stack,
///   which ends the process: neither a limit nor a caught panic helps.
///
/// # What to return
///
/// `Ok(Some(score))` is the score, a finite number before its weight. `Ok(None)` abstains: the reward does not apply to this
/// completion, and the total is that of the others. `Err` says that the reward itself could not do its work. A wrong or unreadable
/// *completion* is none of these: it is a score, usually 0.
///
/// ```
/// use rlvr::reward::{Reward, RewardError, RewardInput};
///
/// /// 1 at the reference, falling to 0 with the distance from it.
/// struct Closeness;
///
/// impl Reward for Closeness {
///     fn name(&self) -> &str {
///         "closeness"
///     }
///
///     fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
///         // The reference comes from the data. If it is not a number, the data are wrong: an error.
///         let reference: f64 = input.answer().parse()?;
///         // The completion comes from the policy. If it is not a number, it is a bad completion: 0.
///         let Ok(guess) = input.completion().trim().parse::<f64>() else {
///             return Ok(Some(0.0));
///         };
///         // "inf" and "NaN" parse as well; the distance from them is not a score.
///         let distance = (guess - reference).abs();
///         Ok(Some(if distance.is_finite() { 1.0 / (1.0 + distance) } else { 0.0 }))
///     }
/// }
///
/// let score = |completion| Closeness.score(&RewardInput::new("2+2=", "4", completion));
/// assert_eq!(score("3").unwrap(), Some(0.5));
/// assert_eq!(score("four").unwrap(), Some(0.0));
/// assert!(Closeness.score(&RewardInput::new("2+2=", "four", "4")).is_err());
/// ```
///
/// The same idea done wrong, so that the policy decides which of its completions count:
///
/// ```
/// # use rlvr::reward::{Reward, RewardError, RewardInput};
/// # struct Closeness;
/// # impl Reward for Closeness {
/// #     fn name(&self) -> &str { "closeness" }
/// fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
///     // WRONG: an unreadable completion is an error, and failed rollouts are excluded from training.
///     // Writing garbage is now never punished.
///     let guess: f64 = input.completion().trim().parse()?;
///     // WRONG: an invalid reference is silently the number 0, and every right answer to it is wrong.
///     let reference: f64 = input.answer().parse().unwrap_or_default();
///     // WRONG: "NaN" is a guess too.
///     Ok(Some(1.0 / (1.0 + (guess - reference).abs())))
/// }
/// # }
/// # assert!(Closeness.score(&RewardInput::new("2+2=", "4", "four")).is_err());
/// ```
///
/// # Slow rewards
///
/// A reward is an ordinary function on a thread. One that waits for a service, a subprocess or a device needs three things:
///
/// - **Workers** of its own. Threads that wait cost little. In a set, [`RewardOptions::with_concurrency`](super::RewardOptions::with_concurrency)
///   provides them, so that no other reward waits for this one.
/// - **A limit** of its own, [`RewardOptions::with_time_limit`](super::RewardOptions::with_time_limit), and a shorter one inside: the
///   client's. A client that gives up returns an error with a reason and frees its thread; the set can only abandon it.
/// - **Batches**, where one call for many costs less than many calls: [`score_batch`](Self::score_batch), and
///   [`batch_size`](Self::batch_size) to be given more than one.
///
/// An async client lives inside the reward with its runtime, and `score` blocks on the call: with tokio, keep a
/// `tokio::runtime::Handle` and return `self.handle.block_on(self.client.judge(input))`. The worker threads are not the
/// runtime's, so blocking them is allowed, and all calls share the runtime's connections. Without a runtime, any `block_on`
/// does:
///
/// ```
/// use std::pin::pin;
/// use std::sync::Arc;
/// use std::task::{Context, Poll, Wake, Waker};
/// use std::thread::{self, Thread};
/// use std::time::Duration;
///
/// use rlvr::reward::{Reward, RewardError, RewardInput, RewardOptions, RewardSet};
///
/// struct Unpark(Thread);
/// impl Wake for Unpark {
///     fn wake(self: Arc<Self>) {
///         self.0.unpark();
///     }
/// }
///
/// fn block_on<F: Future>(future: F) -> F::Output {
///     let mut future = pin!(future);
///     let waker = Waker::from(Arc::new(Unpark(thread::current())));
///     loop {
///         match future.as_mut().poll(&mut Context::from_waker(&waker)) {
///             Poll::Ready(output) => return output,
///             Poll::Pending => thread::park(),
///         }
///     }
/// }
///
/// struct Judge;
/// impl Judge {
///     /// Stands for a request to a service.
///     async fn ask(&self, texts: &[&str]) -> Result<Vec<f64>, std::io::Error> {
///         Ok(texts.iter().map(|text| text.len() as f64).collect())
///     }
/// }
///
/// impl Reward for Judge {
///     fn name(&self) -> &str {
///         "judge"
///     }
///
///     fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
///         Ok(Some(block_on(self.ask(&[input.completion()]))?[0]))
///     }
///
///     fn score_batch(&self, inputs: &[&RewardInput]) -> Vec<Result<Option<f64>, RewardError>> {
///         let texts: Vec<&str> = inputs.iter().map(|input| input.completion()).collect();
///         match block_on(self.ask(&texts)) {
///             Ok(scores) => scores.into_iter().map(|score| Ok(Some(score))).collect(),
///             Err(error) => inputs.iter().map(|_| Err(error.to_string().into())).collect(),
///         }
///     }
///
///     fn batch_size(&self) -> usize {
///         32
///     }
/// }
///
/// let patient = RewardOptions::new().with_concurrency(16).with_time_limit(Duration::from_secs(60));
/// let rewards = RewardSet::builder().add_with(1.0, Judge, patient).build()?;
/// let inputs = ["a", "bcd"].map(|text| RewardInput::new("", "", text)).to_vec();
/// let totals: Vec<_> = rewards.score(inputs).iter().map(|one| one.reward).collect();
/// assert_eq!(totals, [Some(1.0), Some(3.0)]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[doc(alias = "custom_reward_function")]
pub trait Reward: Send + Sync + 'static {
    /// The name under which scores are recorded; unique in a set, the same on every call.
    fn name(&self) -> &str;

    /// Scores one completion.
    ///
    /// # Errors
    /// If the reward could not do its work: the reference or the metadata are not what it needs, or a resource is missing.
    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError>;

    /// Scores several completions, in order, one result for each. By default one by one.
    ///
    /// It gives what [`score`](Self::score) gives for each of them, whatever they are together with. In a set all of them
    /// share one time limit and one panic, and a list that is shorter or longer than the inputs fails them all.
    fn score_batch(&self, inputs: &[&RewardInput]) -> Vec<Result<Option<f64>, RewardError>> {
        inputs.iter().map(|input| self.score(input)).collect()
    }

    /// The most completions that one call of [`score_batch`](Self::score_batch) is given, at least 1. Default 1: every
    /// completion has a time limit of its own, and does not fail with others.
    fn batch_size(&self) -> usize {
        1
    }

    /// Rejects invalid settings. [`RewardSetBuilder::build`](super::RewardSetBuilder::build) calls it. Default: all are valid.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field.
    fn validate(&self) -> crate::Result<()> {
        Ok(())
    }
}

impl<R: Reward + ?Sized> Reward for Arc<R> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        (**self).score(input)
    }

    fn score_batch(&self, inputs: &[&RewardInput]) -> Vec<Result<Option<f64>, RewardError>> {
        (**self).score_batch(inputs)
    }

    fn batch_size(&self) -> usize {
        (**self).batch_size()
    }

    fn validate(&self) -> crate::Result<()> {
        (**self).validate()
    }
}

impl<R: Reward + ?Sized> Reward for Box<R> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        (**self).score(input)
    }

    fn score_batch(&self, inputs: &[&RewardInput]) -> Vec<Result<Option<f64>, RewardError>> {
        (**self).score_batch(inputs)
    }

    fn batch_size(&self) -> usize {
        (**self).batch_size()
    }

    fn validate(&self) -> crate::Result<()> {
        (**self).validate()
    }
}

/// Why a reward could not do its work: a message, from text or from any error.
///
/// It is what `?` turns errors into inside of a reward. Like other such types it does not implement [`std::error::Error`]
/// itself; [`into_inner`](Self::into_inner) gives the error it holds.
///
/// ```
/// use rlvr::reward::RewardError;
///
/// fn parse(text: &str) -> Result<u64, RewardError> {
///     if text.is_empty() {
///         return Err("the reference is empty".into());
///     }
///     Ok(text.parse()?)
/// }
/// assert_eq!(parse("").unwrap_err().to_string(), "the reference is empty");
/// assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
pub struct RewardError(Box<dyn Error + Send + Sync>);

impl RewardError {
    /// The error inside, for `source` chains and downcasts.
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

/// `String`, `&str`, boxed errors and every error type.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for RewardError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for RewardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RewardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A reward made of a name and a closure. The contract is that of [`Reward`].
///
/// ```
/// use rlvr::reward::{FnReward, Reward, RewardInput};
///
/// // A number, or true for 1 and false for 0.
/// let short = FnReward::plain("short", |input| input.length() <= 3);
/// assert_eq!(short.name(), "short");
/// assert_eq!(short.score(&RewardInput::new("2+2=", "4", "4")).unwrap(), Some(1.0));
/// assert_eq!(short.score(&RewardInput::new("2+2=", "4", "four")).unwrap(), Some(0.0));
///
/// // The whole contract: the reward may abstain or fail.
/// let closeness = FnReward::new("closeness", |input| {
///     let target: f64 = input.answer().parse()?;
///     let Ok(guess) = input.completion().parse::<f64>() else { return Ok(None) };
///     Ok(Some(-(guess - target).abs()))
/// });
/// assert_eq!(closeness.score(&RewardInput::new("2+2=", "4", "5")).unwrap(), Some(-1.0));
/// assert_eq!(closeness.score(&RewardInput::new("2+2=", "4", "?")).unwrap(), None);
/// ```
#[derive(Clone)]
pub struct FnReward<F> {
    name: String,
    score: F,
}

impl<F> FnReward<F>
where
    F: Fn(&RewardInput) -> Result<Option<f64>, RewardError> + Send + Sync + 'static,
{
    /// The reward called `name` that is computed by `score`, which may abstain or fail.
    pub fn new(name: impl Into<String>, score: F) -> Self {
        Self {
            name: name.into(),
            score,
        }
    }
}

impl FnReward<()> {
    /// The reward called `name` that is computed by a closure which always gives a score: an `f64`, or a `bool` for 1 and 0.
    pub fn plain<S: Into<f64>>(
        name: impl Into<String>,
        score: impl Fn(&RewardInput) -> S + Send + Sync + 'static,
    ) -> FnReward<impl Fn(&RewardInput) -> Result<Option<f64>, RewardError> + Send + Sync + 'static>
    {
        FnReward::new(name, move |input: &RewardInput| {
            Ok(Some(score(input).into()))
        })
    }
}

impl<F> fmt::Debug for FnReward<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnReward")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<F> Reward for FnReward<F>
where
    F: Fn(&RewardInput) -> Result<Option<f64>, RewardError> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        (self.score)(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_becomes_its_message() {
        let boxed: Box<dyn Error + Send + Sync> = "boxed".into();
        assert_eq!(RewardError::from(boxed).to_string(), "boxed");
        assert_eq!(
            RewardError::from(String::from("owned")).to_string(),
            "owned"
        );
        let parse = "".parse::<f64>().unwrap_err();
        let error = RewardError::from(parse.clone());
        assert_eq!(error.to_string(), parse.to_string());
        assert!(error.into_inner().is::<std::num::ParseFloatError>());
    }

    #[test]
    fn plain_closures_give_numbers_or_yes_and_no() {
        let input = RewardInput::new("", "4", "4");
        let score = |reward: &dyn Reward| reward.score(&input).unwrap();
        let right = FnReward::plain("right", |input| input.completion() == input.answer());
        let length = FnReward::plain("length", |input| -0.5 * input.length() as f64);
        assert_eq!((right.name(), score(&right)), ("right", Some(1.0)));
        assert_eq!(score(&length), Some(-1.0));
    }

    #[test]
    fn shared_and_boxed_rewards_are_rewards() {
        let one: Arc<dyn Reward> = Arc::new(FnReward::new("one", |_| Ok(Some(1.0))));
        let boxed: Box<dyn Reward> = Box::new(Arc::clone(&one));
        let input = RewardInput::new("", "", "");
        assert_eq!(Reward::name(&one), "one");
        assert_eq!(Reward::name(&boxed), "one");
        assert_eq!(Reward::score(&boxed, &input).unwrap(), Some(1.0));
        assert_eq!(Reward::batch_size(&boxed), 1);
        assert_eq!(Reward::score_batch(&boxed, &[&input, &input]).len(), 2);
    }

    #[test]
    fn a_custom_batch_is_called_through_every_pointer() {
        struct Pairs;
        impl Reward for Pairs {
            fn name(&self) -> &str {
                "pairs"
            }
            fn score(&self, _: &RewardInput) -> Result<Option<f64>, RewardError> {
                Ok(Some(1.0))
            }
            fn score_batch(
                &self,
                inputs: &[&RewardInput],
            ) -> Vec<Result<Option<f64>, RewardError>> {
                inputs.iter().map(|_| Ok(Some(2.0))).collect()
            }
            fn batch_size(&self) -> usize {
                2
            }
        }
        let shared: Arc<dyn Reward> = Arc::new(Pairs);
        let boxed: Box<dyn Reward> = Box::new(shared);
        let input = RewardInput::new("", "", "");
        assert_eq!(Reward::batch_size(&boxed), 2);
        let scores = Reward::score_batch(&boxed, &[&input]);
        assert_eq!(scores[0].as_ref().unwrap(), &Some(2.0));
    }
}
