//! Runs untrusted jobs on threads: in parallel, each under a time limit, none able to break or stop the others.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::rollout::RewardOutcome;

/// What a batch does for each of its indices.
pub(super) type Job = Arc<dyn Fn(usize) -> RewardOutcome + Send + Sync>;

/// How jobs are run. Threads live for one batch: there is nothing to shut down, and batches do not wait for each other.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// How long a job may run.
    pub(super) limit: Duration,
    /// The most jobs of one batch that run at once.
    pub(super) threads: usize,
    /// The most abandoned threads with which a new job is still started.
    pub(super) most_abandoned: usize,
    /// Threads whose job passed its limit and has not returned, of all batches.
    abandoned: Arc<AtomicUsize>,
}

impl Pool {
    pub(super) fn new(limit: Duration, threads: usize, most_abandoned: usize) -> Self {
        Self {
            limit,
            threads,
            most_abandoned,
            abandoned: Arc::default(),
        }
    }

    pub(super) fn abandoned(&self) -> usize {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// The outcomes of `job(0) .. job(jobs - 1)`, in this order.
    ///
    /// The calling thread supervises: it sleeps until a worker has found no more jobs, or until a job is overdue.
    pub(super) fn run(&self, jobs: usize, job: Job) -> Vec<RewardOutcome> {
        let batch = Arc::new(Batch {
            pool: self.clone(),
            jobs,
            job,
            next: AtomicUsize::new(0),
        });
        let (exit, exits) = mpsc::channel();
        let mut crew = Crew {
            seats: Vec::new(),
            working: 0,
            exit,
            outcomes: vec![None; jobs],
            trouble: None,
        };
        // Cheap jobs may be done before the last worker has started, and then it need not.
        while crew.working < self.threads && crew.hire(&batch) {}
        while crew.working > 0 {
            match exits.recv_timeout(crew.patience(self.limit)) {
                Ok(seat) => crew.collect(seat),
                Err(_) => crew.relieve(&batch),
            }
        }
        // Nobody is left to run what is left over.
        while let Some(job) = batch.claim() {
            let trouble = crew.trouble.clone();
            crew.outcomes[job] = Some(trouble.unwrap_or_else(|| batch.refusal()));
        }
        let lost = || RewardOutcome::Failed("the result was lost".into());
        let outcomes = crew.outcomes.into_iter();
        outcomes.map(|found| found.unwrap_or_else(lost)).collect()
    }
}

/// What the workers of one call share. It outlives the call as long as an abandoned worker holds on to it.
struct Batch {
    pool: Pool,
    jobs: usize,
    job: Job,
    /// The first job that nobody has claimed.
    next: AtomicUsize,
}

impl Batch {
    fn has_jobs(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.jobs
    }

    fn claim(&self) -> Option<usize> {
        // Workers stop at their first failure, so the counter cannot wrap.
        let job = self.next.fetch_add(1, Ordering::Relaxed);
        (job < self.jobs).then_some(job)
    }

    fn is_full(&self) -> bool {
        self.pool.abandoned() >= self.pool.most_abandoned
    }

    fn refusal(&self) -> RewardOutcome {
        RewardOutcome::Failed(format!(
            "not run: {} threads still busy with rewards that passed their time limit",
            self.pool.abandoned()
        ))
    }

    fn overdue(&self) -> RewardOutcome {
        RewardOutcome::TimedOut(self.pool.limit.as_secs_f64())
    }

    /// One worker's life: claim, run, hand in, until there are no more jobs or it has been abandoned.
    fn work(&self, seat: &Seat) -> Exit {
        let mut result = None;
        loop {
            let (job, start) = {
                let mut state = seat.lock();
                if state.abandoned {
                    // The job has been recorded as overdue: its late result is dropped here.
                    self.pool.abandoned.fetch_sub(1, Ordering::Relaxed);
                    return Exit::Abandoned;
                }
                state.results.extend(result.take());
                state.running = self.claim().map(|job| (job, Instant::now()));
                match state.running {
                    Some(running) => running,
                    None => return Exit::Done,
                }
            };
            let outcome = if self.is_full() {
                self.refusal()
            } else {
                let outcome = guarded(|| (self.job)(job));
                // Whether the supervisor looked in time must not decide what is recorded.
                if start.elapsed() < self.pool.limit {
                    outcome
                } else {
                    self.overdue()
                }
            };
            result = Some((job, outcome));
        }
    }
}

#[derive(PartialEq)]
enum Exit {
    Done,
    Abandoned,
}

/// Where a worker and the supervisor meet.
#[derive(Default)]
struct Seat(Mutex<SeatState>);

#[derive(Default)]
struct SeatState {
    /// The job and when it started.
    running: Option<(usize, Instant)>,
    results: Vec<(usize, RewardOutcome)>,
    abandoned: bool,
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, SeatState> {
        // No job runs under the lock, and whatever a panic left behind is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The supervisor's view of a batch.
struct Crew {
    /// By worker; empty where the worker has left or was abandoned.
    seats: Vec<Option<Arc<Seat>>>,
    working: usize,
    /// On which a worker that found no more jobs says which seat it leaves.
    exit: Sender<usize>,
    outcomes: Vec<Option<RewardOutcome>>,
    /// Why no thread could be started.
    trouble: Option<RewardOutcome>,
}

impl Crew {
    /// Starts one more worker if there is something to do for it.
    fn hire(&mut self, batch: &Arc<Batch>) -> bool {
        if !batch.has_jobs() || batch.is_full() {
            return false;
        }
        let seat = Arc::new(Seat::default());
        match start(batch, &seat, self.seats.len(), &self.exit) {
            Ok(()) => {
                self.seats.push(Some(seat));
                self.working += 1;
                true
            }
            Err(error) => {
                let message = format!("not run: no thread could be started: {error}");
                self.trouble = Some(RewardOutcome::Failed(message));
                false
            }
        }
    }

    /// How long nobody can become overdue; a job that starts later than now has the whole limit.
    fn patience(&self, limit: Duration) -> Duration {
        let left = self.seats.iter().flatten().filter_map(|seat| {
            let (_, start) = seat.lock().running?;
            Some(limit.saturating_sub(start.elapsed()))
        });
        left.min().unwrap_or(limit)
    }

    /// Takes the results of a worker that has left.
    fn collect(&mut self, seat: usize) {
        // It is empty if the worker was abandoned, and abandoned workers leave silently.
        if let Some(seat) = self.seats[seat].take() {
            self.working -= 1;
            self.keep(std::mem::take(&mut seat.lock().results));
        }
    }

    /// Abandons the workers whose job is overdue and puts fresh ones in their place.
    fn relieve(&mut self, batch: &Arc<Batch>) {
        for i in 0..self.seats.len() {
            let Some(seat) = &self.seats[i] else { continue };
            let mut state = seat.lock();
            let Some((job, start)) = state.running else {
                continue;
            };
            if start.elapsed() < batch.pool.limit {
                continue;
            }
            state.abandoned = true;
            // Under the lock: the worker takes itself off the count only after it has seen the mark.
            batch.pool.abandoned.fetch_add(1, Ordering::Relaxed);
            let results = std::mem::take(&mut state.results);
            drop(state);
            self.seats[i] = None;
            self.working -= 1;
            self.keep(results);
            self.outcomes[job] = Some(batch.overdue());
            self.hire(batch);
        }
    }

    fn keep(&mut self, results: Vec<(usize, RewardOutcome)>) {
        for (job, outcome) in results {
            self.outcomes[job] = Some(outcome);
        }
    }
}

fn start(
    batch: &Arc<Batch>,
    seat: &Arc<Seat>,
    index: usize,
    exit: &Sender<usize>,
) -> io::Result<()> {
    let (batch, seat, exit) = (Arc::clone(batch), Arc::clone(seat), exit.clone());
    let worker = move || {
        if batch.work(&seat) == Exit::Done {
            // Freed before the supervisor hears of it: when the call returns, only abandoned workers hold its inputs.
            drop(batch);
            // The supervisor waits for this; it cannot have gone.
            let _ = exit.send(index);
        }
    };
    let builder = thread::Builder::new().name("rlvr-reward".into());
    builder.spawn(worker).map(drop)
}

/// Runs `job` and turns a panic into its message.
fn guarded(job: impl FnOnce() -> RewardOutcome) -> RewardOutcome {
    // What a panic leaves half done is the reward's own state; the trait asks it to have none.
    catch_unwind(AssertUnwindSafe(job))
        .unwrap_or_else(|payload| RewardOutcome::Panicked(message(payload)))
}

fn message(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<String>() {
        Ok(text) => return *text,
        Err(payload) => payload,
    };
    match payload.downcast::<&'static str>() {
        Ok(text) => text.to_string(),
        Err(payload) => {
            // Somebody's own type, whose destructor could panic again: it is leaked.
            std::mem::forget(payload);
            "a panic without a text message".into()
        }
    }
}

#[cfg(test)]
mod tests;
