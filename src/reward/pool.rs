//! Runs untrusted jobs on threads: in parallel, each under a time limit, with failures isolated
//! from each other.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::types::RewardOutcome;

/// Runs the job with the given index and returns one outcome for each of its completions.
pub(crate) type Job = Arc<dyn Fn(usize) -> Vec<RewardOutcome> + Send + Sync>;

/// The jobs of a batch and the workers that run them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The time limit of each job.
    pub(crate) limits: Vec<Duration>,
    /// The lanes. Every job is in one of them.
    pub(crate) lanes: Vec<Lane>,
}

/// Jobs that share workers, so that slow ones do not delay the jobs of other lanes.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// The jobs, in the order in which they are started.
    pub(crate) jobs: Vec<usize>,
    /// The maximum number of them that run at once.
    pub(crate) threads: usize,
}

/// The result of one job.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    /// One outcome for each completion of the job, or one failure for all of them.
    pub(crate) outcomes: Vec<RewardOutcome>,
    /// The running time in seconds, at most the time limit.
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

/// Runs batches of jobs. Threads live for one batch, so there is nothing to shut down and batches
/// do not wait for each other.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// The number of abandoned threads at which no new job is started.
    most_abandoned: usize,
    /// The number of threads, over all batches, whose job exceeded its limit and has not returned.
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

    /// Runs `job(0)`, `job(1)` and so on, and returns their results in this order. The plan has one
    /// limit for each job.
    ///
    /// The calling thread supervises: it sleeps until a worker runs out of jobs or a job is
    /// overdue.
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
        let mut supervisor = Supervisor {
            workers: Vec::new(),
            active: 0,
            exit,
            done: (0..jobs).map(|_| None).collect(),
            start_failure: None,
        };
        // If cheap jobs finish early, the remaining workers are not started.
        for (index, queue) in batch.lanes.iter().enumerate() {
            let mut started = 0;
            while started < queue.lane.threads && supervisor.start_worker(&batch, index) {
                started += 1;
            }
        }
        while supervisor.active > 0 {
            match exits.recv_timeout(supervisor.timeout(&batch)) {
                Ok(worker) => supervisor.collect(worker),
                Err(_) => supervisor.replace_overdue(&batch),
            }
        }
        // No worker is left for the remaining jobs.
        for queue in &batch.lanes {
            while let Some(job) = queue.claim() {
                let start_failure = supervisor.start_failure.clone();
                supervisor.done[job] = Some(Done::not_run(
                    start_failure.unwrap_or_else(|| batch.too_many_abandoned()),
                ));
            }
        }
        let missing = || Done::not_run(RewardOutcome::Failed("the result was lost".into()));
        let done = supervisor.done.into_iter();
        done.map(|found| found.unwrap_or_else(missing)).collect()
    }
}

/// A lane and its progress.
struct Queue {
    lane: Lane,
    /// The position of the first job that is not claimed.
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

/// The state that the workers of one call share. It outlives the call as long as an abandoned
/// worker holds it.
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

    fn too_many_abandoned(&self) -> RewardOutcome {
        RewardOutcome::Failed(format!(
            "not run: {} threads still busy with rewards that passed their time limit",
            self.pool.abandoned()
        ))
    }

    /// The loop of one worker: it claims and runs jobs until there are none left or it is
    /// abandoned.
    fn work(&self, worker: &Worker) -> Exit {
        let mut result = None;
        loop {
            let (job, start) = {
                let mut state = worker.lock();
                if state.abandoned {
                    // The job has been recorded as overdue: its late result is dropped here.
                    self.pool.abandoned.fetch_sub(1, Ordering::Relaxed);
                    return Exit::Abandoned;
                }
                state.results.extend(result.take());
                let claimed = self.lanes[worker.lane].claim();
                state.running = claimed.map(|job| (job, Instant::now()));
                match state.running {
                    Some(running) => running,
                    None => return Exit::Done,
                }
            };
            let done = if self.is_full() {
                Done::not_run(self.too_many_abandoned())
            } else {
                let outcomes = guarded(|| (self.job)(job)).unwrap_or_else(|panic| vec![panic]);
                let (taken, limit) = (start.elapsed(), self.limits[job]);
                // The record must not depend on whether the supervisor noticed in time.
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

/// The state that a worker and the supervisor share.
struct Worker {
    /// The lane whose jobs the worker runs.
    lane: usize,
    state: Mutex<WorkerState>,
}

struct WorkerState {
    /// The job and its start.
    running: Option<(usize, Instant)>,
    results: Vec<(usize, Done)>,
    abandoned: bool,
}

impl Worker {
    fn new(lane: usize) -> Self {
        let state = Mutex::new(WorkerState {
            running: None,
            results: Vec::new(),
            abandoned: false,
        });
        Self { lane, state }
    }

    fn lock(&self) -> MutexGuard<'_, WorkerState> {
        // No job runs under the lock, so a panic cannot leave the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The supervisor of a batch.
struct Supervisor {
    /// One entry for each worker; `None` if it has left or was abandoned.
    workers: Vec<Option<Arc<Worker>>>,
    active: usize,
    /// Sends the index of a worker that found no more jobs.
    exit: Sender<usize>,
    done: Vec<Option<Done>>,
    /// The failure to start a thread, if there was one.
    start_failure: Option<RewardOutcome>,
}

impl Supervisor {
    /// Starts another worker for a lane that has jobs left. Returns whether one was started.
    fn start_worker(&mut self, batch: &Arc<Batch>, lane: usize) -> bool {
        if !batch.lanes[lane].has_jobs() || batch.is_full() {
            return false;
        }
        let worker = Arc::new(Worker::new(lane));
        match start(batch, &worker, self.workers.len(), &self.exit) {
            Ok(()) => {
                self.workers.push(Some(worker));
                self.active += 1;
                true
            }
            Err(error) => {
                let message = format!("not run: no thread could be started: {error}");
                self.start_failure = Some(RewardOutcome::Failed(message));
                false
            }
        }
    }

    /// The time in which no job can become overdue. A job that starts later has its whole limit,
    /// which is at least the shortest one.
    fn timeout(&self, batch: &Batch) -> Duration {
        let left = self.workers.iter().flatten().filter_map(|worker| {
            let (job, start) = worker.lock().running?;
            Some(batch.limits[job].saturating_sub(start.elapsed()))
        });
        left.fold(batch.shortest, Duration::min)
    }

    /// Collects the results of a worker that has left.
    fn collect(&mut self, worker: usize) {
        // The entry is `None` if the worker was abandoned; abandoned workers send no message.
        if let Some(worker) = self.workers[worker].take() {
            self.active -= 1;
            self.keep(std::mem::take(&mut worker.lock().results));
        }
    }

    /// Abandons the workers whose job is overdue, and starts new ones in their place.
    fn replace_overdue(&mut self, batch: &Arc<Batch>) {
        for i in 0..self.workers.len() {
            let Some(worker) = &self.workers[i] else {
                continue;
            };
            let lane = worker.lane;
            let mut state = worker.lock();
            let Some((job, start)) = state.running else {
                continue;
            };
            if start.elapsed() < batch.limits[job] {
                continue;
            }
            state.abandoned = true;
            // Under the lock: the worker decrements the count only after it has seen the flag.
            batch.pool.abandoned.fetch_add(1, Ordering::Relaxed);
            let results = std::mem::take(&mut state.results);
            drop(state);
            self.workers[i] = None;
            self.active -= 1;
            self.keep(results);
            self.done[job] = Some(Done::overdue(batch.limits[job]));
            self.start_worker(batch, lane);
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
    worker: &Arc<Worker>,
    index: usize,
    exit: &Sender<usize>,
) -> io::Result<()> {
    let (batch, worker, exit) = (Arc::clone(batch), Arc::clone(worker), exit.clone());
    let body = move || {
        if batch.work(&worker) == Exit::Done {
            // Dropped before the supervisor is notified: when the call returns, only abandoned
            // workers hold its inputs.
            drop(batch);
            // The supervisor waits for this message, so the receiver exists.
            let _ = exit.send(index);
        }
    };
    let builder = thread::Builder::new().name("rlvr-reward".into());
    builder.spawn(body).map(drop)
}

/// Runs `job` and turns a panic into its message.
pub(super) fn guarded<T>(job: impl FnOnce() -> T) -> Result<T, RewardOutcome> {
    // A panic can leave only the reward's own state inconsistent, and the trait requires rewards
    // without state.
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
            // The destructor of a custom payload could panic again, so it is leaked.
            std::mem::forget(payload);
            "a panic without a text message".into()
        }
    }
}

#[cfg(test)]
mod tests;
