//! The [`Reward`] trait, its error type, and rewards from closures.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::RewardInput;

/// Scores one completion at a time.
///
/// # The contract
///
/// - **Pure.** The same input gives the same outcome, regardless of earlier calls and of the
///   thread. A resumed run scores completions again: a reward that draws random numbers or counts
///   its calls makes the resumed run a different one.
/// - **Thread-safe.** One value is called from several threads at once.
/// - **Bounded.** The set gives each call a time limit, but a thread cannot be killed: a call that
///   never returns keeps its thread, and a core if it spins, until the process ends. A reward whose
///   work depends on the text must bound that work (bytes read, depth, steps), and must use a
///   timeout for everything it waits for. The limit of the set is only a second line of defence.
/// - **Linear.** The policy is rewarded for finding weaknesses, so expect hostile text. Run in time
///   linear in its length, and do not recurse over it: a stack overflow ends the process, and
///   neither a time limit nor a caught panic prevents that.
///
/// # Return value
///
/// `Ok(Some(score))` is the score, a finite number before its weight. `Ok(None)` abstains: the
/// reward does not apply to this completion, and the total is that of the other rewards. `Err`
/// means that the reward itself could not do its work. A wrong or unreadable *completion* is
/// neither: it gets a score, usually 0.
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
///         // The reference comes from the data. If it is not a number, the data are
///         // wrong: an error.
///         let reference: f64 = input.answer().parse()?;
///         // The completion comes from the policy. If it is not a number, it is a bad
///         // completion: 0.
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
/// A wrong implementation, in which the policy can decide which of its completions count:
///
/// ```
/// # use rlvr::reward::{Reward, RewardError, RewardInput};
/// # struct Closeness;
/// # impl Reward for Closeness {
/// #     fn name(&self) -> &str { "closeness" }
/// fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
///     // WRONG: an unreadable completion is an error, and failed rollouts are excluded
///     // from training. Writing garbage is now never punished.
///     let guess: f64 = input.completion().trim().parse()?;
///     // WRONG: an invalid reference is silently the number 0, and every right answer to
///     // it is wrong.
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
/// A reward is an ordinary blocking function. One that waits for a service, a subprocess or a
/// device needs three things:
///
/// - **Its own workers.** Waiting threads cost little.
///   [`RewardOptions::with_concurrency`](super::RewardOptions::with_concurrency) gives the reward
///   separate workers, so that no other reward waits for it.
/// - **Its own time limit**,
///   [`RewardOptions::with_time_limit`](super::RewardOptions::with_time_limit), and a shorter
///   timeout in the client. A client that gives up returns an error with a reason and frees its
///   thread; the set can only abandon the thread.
/// - **Batches**, if one call for many completions costs less than many calls: implement
///   [`score_batch`](Self::score_batch), and return more than 1 from
///   [`batch_size`](Self::batch_size).
///
/// To use an async client, keep it and its runtime inside the reward and block on the call in
/// `score`. With tokio, keep a `tokio::runtime::Handle` and return
/// `self.handle.block_on(self.client.judge(input))`. The worker threads do not belong to the
/// runtime, so they may block, and all calls share its connections. Without a runtime, any
/// `block_on` works:
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
///     /// A placeholder for a request to a service.
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
///     fn score_batch(
///         &self,
///         inputs: &[&RewardInput],
///     ) -> Vec<Result<Option<f64>, RewardError>> {
///         let texts: Vec<&str> =
///             inputs.iter().map(|input| input.completion()).collect();
///         match block_on(self.ask(&texts)) {
///             Ok(scores) => scores.into_iter().map(|score| Ok(Some(score))).collect(),
///             Err(error) => inputs
///                 .iter()
///                 .map(|_| Err(error.to_string().into()))
///                 .collect(),
///         }
///     }
///
///     fn batch_size(&self) -> usize {
///         32
///     }
/// }
///
/// let patient = RewardOptions::new()
///     .with_concurrency(16)
///     .with_time_limit(Duration::from_secs(60));
/// let rewards = RewardSet::builder().add_with(1.0, Judge, patient).build()?;
/// let inputs = ["a", "bcd"]
///     .map(|text| RewardInput::new("", "", text))
///     .to_vec();
/// let totals: Vec<_> = rewards.score(inputs).iter().map(|one| one.reward).collect();
/// assert_eq!(totals, [Some(1.0), Some(3.0)]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[doc(alias = "custom_reward_function")]
pub trait Reward: Send + Sync + 'static {
    /// Returns the name under which scores are recorded. It is unique in a set and the same on
    /// every call.
    fn name(&self) -> &str;

    /// Scores one completion.
    ///
    /// # Errors
    /// Returns an error if the reward cannot do its work: the reference or the metadata are
    /// invalid, or a resource is missing.
    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError>;

    /// Scores several completions and returns one result for each, in order. The default scores
    /// them one by one.
    ///
    /// Each result is that of [`score`](Self::score), regardless of the other completions. In a
    /// set, a batch shares one time limit, a panic fails all of its completions, and so does a
    /// result list of the wrong length.
    fn score_batch(&self, inputs: &[&RewardInput]) -> Vec<Result<Option<f64>, RewardError>> {
        inputs.iter().map(|input| self.score(input)).collect()
    }

    /// Returns the maximum number of completions per call of [`score_batch`](Self::score_batch), at
    /// least 1. The default is 1: every completion has its own time limit and fails on its own.
    fn batch_size(&self) -> usize {
        1
    }

    /// Checks the settings. [`RewardSetBuilder::build`](super::RewardSetBuilder::build) calls it.
    /// The default accepts them.
    ///
    /// # Errors
    /// Returns [`Error::Config`](crate::Error::Config), which names the field, if a setting is
    /// invalid.
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

/// The error of a reward: a message, or any other error.
///
/// The `?` operator converts every error type into it. For that reason it does not implement
/// [`std::error::Error`] itself; [`into_inner`](Self::into_inner) returns the underlying error.
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
/// assert_eq!(
///     parse("x").unwrap_err().to_string(),
///     "invalid digit found in string"
/// );
/// ```
pub struct RewardError(Box<dyn Error + Send + Sync>);

impl RewardError {
    /// Returns the underlying error, for `source` chains and downcasts.
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

/// Converts strings, boxed errors and every error type.
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

/// A reward computed by a closure, to which the contract of [`Reward`] applies.
///
/// ```
/// use rlvr::reward::{FnReward, Reward, RewardInput};
///
/// // A number, or `true` for 1 and `false` for 0.
/// let short = FnReward::plain("short", |input| input.length() <= 3);
/// assert_eq!(short.name(), "short");
/// assert_eq!(
///     short.score(&RewardInput::new("2+2=", "4", "4")).unwrap(),
///     Some(1.0)
/// );
/// assert_eq!(
///     short.score(&RewardInput::new("2+2=", "4", "four")).unwrap(),
///     Some(0.0)
/// );
///
/// // A closure that may also abstain or fail.
/// let closeness = FnReward::new("closeness", |input| {
///     let target: f64 = input.answer().parse()?;
///     let Ok(guess) = input.completion().parse::<f64>() else {
///         return Ok(None);
///     };
///     Ok(Some(-(guess - target).abs()))
/// });
/// assert_eq!(
///     closeness
///         .score(&RewardInput::new("2+2=", "4", "5"))
///         .unwrap(),
///     Some(-1.0)
/// );
/// assert_eq!(
///     closeness
///         .score(&RewardInput::new("2+2=", "4", "?"))
///         .unwrap(),
///     None
/// );
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
    /// Creates a reward from a closure that may abstain or fail.
    pub fn new(name: impl Into<String>, score: F) -> Self {
        Self {
            name: name.into(),
            score,
        }
    }
}

impl FnReward<()> {
    /// Creates a reward from a closure that always returns a score: an `f64`, or a `bool` for 1 or
    /// 0.
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
    fn errors_keep_their_message() {
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
    fn plain_closures_return_numbers_or_booleans() {
        let input = RewardInput::new("", "4", "4");
        let score = |reward: &dyn Reward| reward.score(&input).unwrap();
        let right = FnReward::plain("right", |input| input.completion() == input.answer());
        let length = FnReward::plain("length", |input| -0.5 * input.length() as f64);
        assert_eq!((right.name(), score(&right)), ("right", Some(1.0)));
        assert_eq!(score(&length), Some(-1.0));
    }

    #[test]
    fn arc_and_box_forward_to_the_reward() {
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
    fn arc_and_box_forward_custom_batches() {
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
