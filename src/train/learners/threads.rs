//! Learners as threads of one process.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Learners, check_length, slice};
use crate::{Error, Result};

/// Learners as threads of one process, for tests: several learners without an MPI installation.
/// They share the processor.
///
/// If a learner fails, panics, ends early or does not answer within the limit, the calls of all
/// others return an error.
///
/// ```
/// use rlvr::train::{Learners, Threads};
/// use std::time::Duration;
///
/// let sums = Threads::run(2, Duration::from_secs(10), |learner| {
///     let mut numbers = vec![1.0, learner.rank() as f32];
///     learner.sum(&mut numbers)?;
///     Ok(numbers)
/// })?;
/// assert_eq!(sums, [[2.0, 1.0], [2.0, 1.0]]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    limit: Duration,
    meeting: Arc<Meeting>,
    /// [`run`](Self::run) reports the end of this learner to the others.
    managed: bool,
}

#[derive(Debug)]
struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The number of calls that all learners have made.
    calls: u64,
    /// The message of each learner for the next call.
    brought: Vec<Option<Message>>,
    /// The messages of the last call.
    last: Arc<Vec<Message>>,
    /// Learners that have ended.
    gone: Vec<bool>,
    /// The first failure.
    failed: Option<(usize, String)>,
}

#[derive(Debug)]
enum Message {
    Gather(Vec<u8>),
    Exchange(Vec<f32>),
    Concat(Vec<f32>),
}

impl Message {
    fn name(&self) -> &'static str {
        match self {
            Self::Gather(_) => "gather",
            Self::Exchange(_) => "exchange",
            Self::Concat(_) => "concat",
        }
    }
}

impl Threads {
    /// Creates `size` learners, one for each thread. A call that a learner does not join within
    /// `limit` fails on all of them, so `limit` must be longer than the longest phase of a step.
    #[must_use]
    pub(crate) fn new(size: usize, limit: Duration) -> Vec<Self> {
        let meeting = Arc::new(Meeting {
            state: Mutex::new(State {
                calls: 0,
                brought: (0..size).map(|_| None).collect(),
                last: Arc::default(),
                gone: vec![false; size],
                failed: None,
            }),
            changed: Condvar::new(),
        });
        let learner = |rank| Self {
            rank,
            limit,
            meeting: meeting.clone(),
            managed: false,
        };
        (0..size).map(learner).collect()
    }

    /// Runs `work` on `size` threads, each with its learner, and returns their results by rank. A
    /// call that a learner does not join within `limit` fails on all of them, so `limit` must be
    /// longer than the longest phase of a step.
    ///
    /// # Errors
    /// Returns the error of the learner that failed first. A panic is an error, and so is a thread
    /// that does not end within `limit` after the others; such a thread is leaked.
    pub fn run<T: Send + 'static>(
        size: usize,
        limit: Duration,
        work: impl Fn(Self) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        let work = Arc::new(work);
        let (sender, outcomes) = channel();
        for mut learner in Self::new(size, limit) {
            learner.managed = true;
            let (work, sender) = (work.clone(), sender.clone());
            thread::spawn(move || {
                let (rank, meeting) = (learner.rank, learner.meeting.clone());
                let outcome = catch_unwind(AssertUnwindSafe(|| work(learner)));
                let outcome = outcome.unwrap_or_else(|payload| {
                    Err(Error::learner(
                        rank,
                        format!("panicked: {}", panic_message(&*payload)),
                    ))
                });
                if let Err(error) = &outcome {
                    meeting.fail(rank, error);
                }
                meeting.end(rank);
                // The receiver is gone if it waited too long.
                let _ = sender.send((rank, outcome));
            });
        }
        drop(sender);
        let mut results: Vec<Option<T>> = (0..size).map(|_| None).collect();
        let mut errors: Vec<Error> = Vec::new();
        for ended in 0..size {
            // While no learner has failed, wait for the others without a limit: each of their calls
            // has one.
            let outcome = match errors.is_empty() && ended < size.saturating_sub(1) {
                true => outcomes.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => outcomes.recv_timeout(limit),
            };
            match outcome {
                Ok((rank, Ok(result))) => results[rank] = Some(result),
                Ok((_, Err(error))) => errors.push(error),
                Err(_) => break,
            }
        }
        let first = |error: &Error| !matches!(error, Error::Learner { .. });
        if let Some(at) = errors.iter().position(first) {
            return Err(errors.swap_remove(at));
        }
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        let missing = |rank| Error::learner(rank, format!("it did not end within {limit:?}"));
        let results = results.into_iter().enumerate();
        results
            .map(|(rank, result)| result.ok_or_else(|| missing(rank)))
            .collect()
    }

    /// Contributes `message` and returns the messages of all learners once all have arrived.
    fn meet(&self, message: Message) -> Result<Arc<Vec<Message>>> {
        let deadline = Instant::now() + self.limit;
        let mut state = self.meeting.lock();
        let call = state.calls;
        if state.brought[self.rank].is_some() {
            return Err(Error::learner(self.rank, "it makes two calls at once"));
        }
        let kind = message.name();
        state.brought[self.rank] = Some(message);
        if state.failed.is_none() && state.brought.iter().all(Option::is_some) {
            let all = state.brought.iter_mut().filter_map(Option::take).collect();
            state.last = Arc::new(all);
            state.calls += 1;
            self.meeting.changed.notify_all();
        }
        while state.calls == call {
            if let Some((rank, reason)) = &state.failed {
                return Err(Error::learner(*rank, reason));
            }
            let missing = |rank: &usize| state.brought[*rank].is_none();
            let ranks = 0..state.brought.len();
            if let Some(rank) = ranks.clone().filter(missing).find(|&rank| state.gone[rank]) {
                return Err(Error::learner(rank, "it has ended"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let rank = ranks.clone().find(missing).unwrap_or_default();
                let reason = format!("it did not join `{kind}` within {:?}", self.limit);
                state.failed = Some((rank, reason));
                self.meeting.changed.notify_all();
                continue;
            }
            let waited = self.meeting.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // The next call cannot complete before this learner joins it.
        let all = state.last.clone();
        drop(state);
        let other = all.iter().position(|message| message.name() != kind);
        match other {
            None => Ok(all),
            Some(rank) => {
                let reason = format!(
                    "it is at `{}` while learner {} is at `{kind}`",
                    all[rank].name(),
                    self.rank
                );
                Err(Error::learner(rank, reason))
            }
        }
    }
}

impl Meeting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that learner `rank` has failed, unless another failed before.
    fn fail(&self, rank: usize, reason: &Error) {
        let (rank, reason) = match reason {
            Error::Learner { rank, reason } => (*rank, reason.clone()),
            own => (rank, own.to_string()),
        };
        let mut state = self.lock();
        state.failed.get_or_insert((rank, reason));
        self.changed.notify_all();
    }

    /// Records that learner `rank` makes no more calls.
    fn end(&self, rank: usize) {
        self.lock().gone[rank] = true;
        self.changed.notify_all();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if !self.managed {
            self.meeting.end(self.rank);
        }
    }
}

impl Learners for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.meeting.lock().gone.len()
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let all = self.meet(Message::Gather(bytes))?;
        Ok(all.iter().map(bytes_of).collect())
    }

    fn exchange(&self, numbers: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        let count = numbers.len();
        let all = self.meet(Message::Exchange(numbers))?;
        let own = slice(count, self.rank, all.len());
        let part = |(rank, message): (usize, &Message)| {
            let numbers = numbers_of(message);
            check_length(rank, numbers.len(), self.rank, count)?;
            Ok(numbers[own.clone()].to_vec())
        };
        all.iter().enumerate().map(part).collect()
    }

    fn concat(&self, numbers: Vec<f32>) -> Result<Vec<f32>> {
        let all = self.meet(Message::Concat(numbers))?;
        Ok(all.iter().flat_map(numbers_of).copied().collect())
    }
}

fn bytes_of(message: &Message) -> Vec<u8> {
    match message {
        Message::Gather(bytes) => bytes.clone(),
        _ => Vec::new(),
    }
}

fn numbers_of(message: &Message) -> &[f32] {
    match message {
        Message::Exchange(numbers) | Message::Concat(numbers) => numbers,
        Message::Gather(_) => &[],
    }
}

/// Returns the message of a panic.
fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn results_are_ordered_by_rank() {
        let results = Threads::run(3, 10 * SECOND, |learner| {
            let rank = learner.rank();
            let mut rounds = Vec::new();
            for round in 0..50u8 {
                rounds.push(learner.gather(vec![rank as u8; rank + usize::from(round)])?);
            }
            let parts = learner.exchange((0..7).map(|i| (10 * rank + i) as f32).collect())?;
            let joined = learner.concat(vec![rank as f32; rank])?;
            Ok((rounds, parts, joined))
        });
        for (rank, (rounds, parts, joined)) in results.unwrap().into_iter().enumerate() {
            for (round, all) in rounds.iter().enumerate() {
                let expected: Vec<_> = (0..3).map(|rank| vec![rank as u8; rank + round]).collect();
                assert_eq!(*all, expected);
            }
            let own = slice(7, rank, 3);
            for (from, part) in parts.iter().enumerate() {
                let expected: Vec<f32> = own.clone().map(|i| (10 * from + i) as f32).collect();
                assert_eq!(*part, expected);
            }
            assert_eq!(joined, [1.0, 2.0, 2.0]);
        }
    }

    #[test]
    fn a_failure_panic_or_early_end_of_a_learner_is_an_error_on_all() {
        let failing = Threads::run(3, 20 * SECOND, |learner| match learner.rank() {
            1 => Err(Error::config("a", "b", "c")),
            _ => learner.gather(Vec::new()),
        });
        assert_eq!(text(failing), "invalid `a`: b; expected c");
        let panicking = Threads::run(3, 20 * SECOND, |learner| match learner.rank() {
            2 => panic!("on purpose"),
            _ => learner.gather(Vec::new()),
        });
        assert_eq!(text(panicking), "learner 2: panicked: on purpose");
        let ending = Threads::run(2, 20 * SECOND, |learner| match learner.rank() {
            0 => Ok(Vec::new()),
            _ => learner.gather(Vec::new()),
        });
        assert_eq!(text(ending), "learner 0: it has ended");
    }

    #[test]
    fn a_learner_that_hangs_is_an_error_within_the_limit() {
        let started = Instant::now();
        let hanging = Threads::run(3, SECOND / 5, |learner| {
            if learner.rank() == 0 {
                thread::sleep(Duration::from_secs(60));
            }
            learner.gather(Vec::new())
        });
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(
            text(hanging),
            "learner 0: it did not join `gather` within 200ms"
        );
    }

    #[test]
    fn mismatched_calls_are_an_error_on_all() {
        // `run` returns one error; the assertion checks that the other learner has one too.
        for rank in 0..2 {
            let only = move |result: Result<()>, learner: &Threads| match learner.rank() == rank {
                true => result,
                false => {
                    assert!(result.is_err());
                    Ok(())
                }
            };
            let mixed = Threads::run(2, 10 * SECOND, move |learner| {
                let result = match learner.rank() {
                    0 => learner.gather(Vec::new()).map(|_| ()),
                    _ => learner.concat(Vec::new()).map(|_| ()),
                };
                only(result, &learner)
            });
            assert!(text(mixed).contains("it is at `"));
            let lengths = Threads::run(2, 10 * SECOND, move |learner| {
                let result = learner.exchange(vec![0.0; 2 + learner.rank()]);
                only(result.map(|_| ()), &learner)
            });
            assert!(text(lengths).contains("numbers of learner"));
        }
    }
}
