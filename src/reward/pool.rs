//! Runs untrusted jobs on threads: in parallel, each under a time limit, isolated from each other's failures.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::types::RewardOutcome;

/// What a batch does for each of its indices: it scores the completions of one job and gives one outcome for each.
pub(crate) type Job = Arc<dyn Fn(usize) -> Vec<RewardOutcome> + Send + Sync>;

/// The jobs of a batch and the workers that run them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// How long each job may run; one for each job.
    pub(crate) limits: Vec<Duration>,
    /// Every job, in one lane each.
    pub(crate) lanes: Vec<Lane>,
}

/// Jobs that share workers, so that slow ones do not delay the jobs of other lanes.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// The jobs, in the order in which they are started.
    pub(crate) jobs: Vec<usize>,
    /// The most of them that run at once.
    pub(crate) threads: usize,
}

/// The result of one job.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    /// One outcome for each completion of the job, or a single failure of all of them.
    pub(crate) outcomes: Vec<RewardOutcome>,
    /// How long it ran; the limit if it passed it.
    pub(crate) seconds: f64,
}

impl Done {
    fn not_run(outcome: RewardOutcome) -> Self {
        Self {
            outcomes: vec![outcome],
            seconds: 0.0,
        }
    }

    fn overdue(limit: Duration) -> Self {
        let seconds = limit.as_secs_f64();
        Self {
            outcomes: vec![RewardOutcome::TimedOut(seconds)],
            seconds,
        }
    }
}

/// Runs the jobs of batches. Threads live for one batch: there is nothing to shut down, and batches do not wait for each other.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// The number of abandoned threads from which on no new job is started.
    most_abandoned: usize,
    /// Threads whose job passed its limit and has not returned, of all batches.
    abandoned: Arc<AtomicUsize>,
}

impl Pool {
    pub(crate) fn new(most_abandoned: usize) -> Self {
        Self {
            most_abandoned,
            abandoned: Arc::default(),
        }
    }

    pub(super) fn abandoned(&self) -> usize {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// The results of `job(0)`, `job(1)` and so on, in this order; the plan has as many limits as there are jobs.
    ///
    /// The calling thread supervises: it sleeps until a worker has found no more jobs, or until a job is overdue.
    pub(crate) fn run(&self, plan: Plan, job: Job) -> Vec<Done> {
        let jobs = plan.limits.len();
        let batch = Arc::new(Batch {
            pool: self.clone(),
            shortest: plan.limits.iter().copied().min().unwrap_or(Duration::MAX),
            limits: plan.limits,
            lanes: plan.lanes.into_iter().map(Queue::new).collect(),
            job,
        });
        let (exit, exits) = mpsc::channel();
        let mut crew = Crew {
            seats: Vec::new(),
            working: 0,
            exit,
            done: (0..jobs).map(|_| None).collect(),
            trouble: None,
        };
        // Cheap jobs may be done before the last worker has started, and then it need not.
        for (index, queue) in batch.lanes.iter().enumerate() {
            let mut hired = 0;
            while hired < queue.lane.threads && crew.hire(&batch, index) {
                hired += 1;
            }
        }
        while crew.working > 0 {
            match exits.recv_timeout(crew.patience(&batch)) {
                Ok(seat) => crew.collect(seat),
                Err(_) => crew.relieve(&batch),
            }
        }
        // No worker is left for the remaining jobs.
        for queue in &batch.lanes {
            while let Some(job) = queue.claim() {
                let trouble = crew.trouble.clone();
                crew.done[job] = Some(Done::not_run(trouble.unwrap_or_else(|| batch.refusal())));
            }
        }
        let lost = || Done::not_run(RewardOutcome::Failed("the result was lost".into()));
        let done = crew.done.into_iter();
        done.map(|found| found.unwrap_or_else(lost)).collect()
    }
}

/// A lane and how far it has got.
struct Queue {
    lane: Lane,
    /// The place of the first job that is not claimed.
    next: AtomicUsize,
}

impl Queue {
    fn new(lane: Lane) -> Self {
        Self {
            lane,
            next: AtomicUsize::new(0),
        }
    }

    fn has_jobs(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.lane.jobs.len()
    }

    fn claim(&self) -> Option<usize> {
        // Workers stop at their first failure, so the counter cannot wrap.
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        self.lane.jobs.get(place).copied()
    }
}

/// What the workers of one call share. It outlives the call as long as an abandoned worker holds on to it.
struct Batch {
    pool: Pool,
    limits: Vec<Duration>,
    /// The shortest of the limits.
    shortest: Duration,
    lanes: Vec<Queue>,
    job: Job,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.pool.abandoned() >= self.pool.most_abandoned
    }

    fn refusal(&self) -> RewardOutcome {
        RewardOutcome::Failed(format!(
            "not run: {} threads still busy with rewards that passed their time limit",
            self.pool.abandoned()
        ))
    }

    /// The loop of one worker: claim, run, hand in, until there are no more jobs or it has been abandoned.
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
                let claimed = self.lanes[seat.lane].claim();
                state.running = claimed.map(|job| (job, Instant::now()));
                match state.running {
                    Some(running) => running,
                    None => return Exit::Done,
                }
            };
            let done = if self.is_full() {
                Done::not_run(self.refusal())
            } else {
                let outcomes = guarded(|| (self.job)(job)).unwrap_or_else(|panic| vec![panic]);
                let (taken, limit) = (start.elapsed(), self.limits[job]);
                // Whether the supervisor looked in time must not decide what is recorded.
                if taken < limit {
                    let seconds = taken.as_secs_f64();
                    Done { outcomes, seconds }
                } else {
                    Done::overdue(limit)
                }
            };
            result = Some((job, done));
        }
    }
}

#[derive(PartialEq)]
enum Exit {
    Done,
    Abandoned,
}

/// What a worker and the supervisor share.
struct Seat {
    /// Which lane's jobs are run here.
    lane: usize,
    state: Mutex<SeatState>,
}

struct SeatState {
    /// The job and when it started.
    running: Option<(usize, Instant)>,
    results: Vec<(usize, Done)>,
    abandoned: bool,
}

impl Seat {
    fn new(lane: usize) -> Self {
        let state = Mutex::new(SeatState {
            running: None,
            results: Vec::new(),
            abandoned: false,
        });
        Self { lane, state }
    }

    fn lock(&self) -> MutexGuard<'_, SeatState> {
        // No job runs under the lock, and whatever a panic left behind is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The supervisor's view of a batch.
struct Crew {
    /// By worker; empty where the worker has left or was abandoned.
    seats: Vec<Option<Arc<Seat>>>,
    working: usize,
    /// Receives the seat of a worker that found no more jobs.
    exit: Sender<usize>,
    done: Vec<Option<Done>>,
    /// Why no thread could be started.
    trouble: Option<RewardOutcome>,
}

impl Crew {
    /// Starts one more worker for a lane if there is something to do for it.
    fn hire(&mut self, batch: &Arc<Batch>, lane: usize) -> bool {
        if !batch.lanes[lane].has_jobs() || batch.is_full() {
            return false;
        }
        let seat = Arc::new(Seat::new(lane));
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

    /// How long no job can become overdue; a job that starts later than now has its whole limit, which is no shorter than
    /// the shortest.
    fn patience(&self, batch: &Batch) -> Duration {
        let left = self.seats.iter().flatten().filter_map(|seat| {
            let (job, start) = seat.lock().running?;
            Some(batch.limits[job].saturating_sub(start.elapsed()))
        });
        left.fold(batch.shortest, Duration::min)
    }

    /// Takes the results of a worker that has left.
    fn collect(&mut self, seat: usize) {
        // It is empty if the worker was abandoned, and abandoned workers leave silently.
        if let Some(seat) = self.seats[seat].take() {
            self.working -= 1;
            self.keep(std::mem::take(&mut seat.lock().results));
        }
    }

    /// Abandons the workers whose job is overdue and starts new ones in their place.
    fn relieve(&mut self, batch: &Arc<Batch>) {
        for i in 0..self.seats.len() {
            let Some(seat) = &self.seats[i] else { continue };
            let lane = seat.lane;
            let mut state = seat.lock();
            let Some((job, start)) = state.running else {
                continue;
            };
            if start.elapsed() < batch.limits[job] {
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
            self.done[job] = Some(Done::overdue(batch.limits[job]));
            self.hire(batch, lane);
        }
    }

    fn keep(&mut self, results: Vec<(usize, Done)>) {
        for (job, done) in results {
            self.done[job] = Some(done);
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
pub(super) fn guarded<T>(job: impl FnOnce() -> T) -> Result<T, RewardOutcome> {
    // What a panic leaves half done is the reward's own state; the trait asks it to have none.
    catch_unwind(AssertUnwindSafe(job)).map_err(|payload| RewardOutcome::Panicked(message(payload)))
}

fn message(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<String>() {
        Ok(text) => return *text,
        Err(payload) => payload,
    };
    match payload.downcast::<&'static str>() {
        Ok(text) => text.to_string(),
        Err(payload) => {
            // A custom type, whose destructor could panic again: it is leaked.
            std::mem::forget(payload);
            "a panic without a text message".into()
        }
    }
}

#[cfg(test)]
mod tests;
