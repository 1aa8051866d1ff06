//! The crate's own generator in a background thread.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::async_engine::{Answer, AsyncEngine, InFlight};
use super::decoder::{Decoder, TOKENS_PER_READ};
use super::generate::{GenerationConfig, GenerationRequest, check_request};
use crate::policy::PolicyModel;
use crate::{Error, Result};

/// The crate's own generator as an [`AsyncEngine`]: a background thread that runs a [`Decoder`].
///
/// The thread starts when the first policy is loaded and ends when the worker is dropped. It
/// computes on the policy's device and, on a CPU, in rayon's pool, which it shares with the
/// learner. All requests are generated together, within the limits of each request's
/// [`GenerationConfig`].
///
/// If generation fails or panics, all requests in flight are answered with errors,
/// [`check`](AsyncEngine::check) returns the reason, and the worker has no version until a policy
/// is loaded again.
///
/// Metrics: the current number of running completions (`engine/running`) and waiting requests
/// (`engine/waiting`); since the last call, the number of tokens (`engine/tokens`) and the seconds
/// without a request (`engine/idle_seconds`).
///
/// ```
/// use burn::tensor::Device;
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::rollout::{
///     GenerationConfig, GenerationRequest, LocalWorker, generate_with,
/// };
///
/// # fn main() -> rlvr::Result<()> {
/// # #[cfg(feature = "flex")] {
/// let policy = CausalConfig::new(16).init(0, &Device::flex().autodiff())?;
/// let mut engine = LocalWorker::default();
/// let requests = [GenerationRequest::new(vec![2, 3], 4, [0])];
/// let config = GenerationConfig::new(8, vec![1]);
/// let answers = generate_with(&mut engine, &policy, 0, &requests, &config)?;
/// assert_eq!(answers[0].len(), 4);
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LocalWorker<M: PolicyModel> {
    in_flight: InFlight,
    running: Option<Running<M>>,
    state: Arc<Mutex<State>>,
    tickets: u64,
}

/// The thread, its channel and its policy.
#[derive(Debug)]
struct Running<M> {
    commands: Sender<Command<M>>,
    thread: JoinHandle<()>,
    version: u64,
    /// The model's vocabulary size and positions.
    limits: [usize; 2],
}

#[derive(Debug)]
enum Command<M> {
    Load {
        model: M,
        version: u64,
        taken: Sender<()>,
    },
    Submit {
        ticket: u64,
        request: GenerationRequest,
        config: GenerationConfig,
    },
    Cancel(u64),
}

/// The state that both threads share.
#[derive(Debug, Default)]
struct State {
    /// Requests without an answer.
    pending: BTreeMap<u64, Pending>,
    /// Why the thread failed, if it did.
    failure: Option<String>,
    running: usize,
    waiting: usize,
    tokens: usize,
    idle: Duration,
    idle_since: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    samples: usize,
    answers: Sender<Answer>,
}

impl<M: PolicyModel> LocalWorker<M> {
    /// Creates a worker without a policy. `in_flight` selects the handling of started requests when
    /// another policy is loaded.
    pub fn new(in_flight: InFlight) -> Self {
        Self {
            in_flight,
            running: None,
            state: Arc::default(),
            tickets: 0,
        }
    }

    /// Ends the thread after its current step. Answers requests in flight with `reason`, if there
    /// is one.
    fn end(&mut self, reason: Option<String>) {
        if let Some(Running {
            commands, thread, ..
        }) = self.running.take()
        {
            drop(commands);
            // A panic of the thread was caught and recorded.
            let _ = thread.join();
        }
        let mut state = lock(&self.state);
        match reason {
            Some(reason) => fail(&mut state, reason),
            None => state.pending.clear(),
        }
    }
}

impl<M: PolicyModel> Default for LocalWorker<M> {
    fn default() -> Self {
        Self::new(InFlight::default())
    }
}

impl<M: PolicyModel> Drop for LocalWorker<M> {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl<M: PolicyModel + 'static> AsyncEngine<M> for LocalWorker<M> {
    fn load(&mut self, policy: &M, version: u64) -> Result<()> {
        let limits = [policy.vocab_size(), policy.max_positions()];
        let model = policy.valid();
        let request = || format!("loading version {version}");
        if lock(&self.state).failure.is_some() {
            self.end(None);
        }
        if let Some(running) = &mut self.running {
            if running.limits != limits {
                let reason = format!(
                    "it has a vocabulary of {} and {} positions; the previous policy had {} and {}",
                    limits[0], limits[1], running.limits[0], running.limits[1]
                );
                self.end(Some(reason.clone()));
                return Err(error(request(), reason));
            }
            let (taken, answer) = mpsc::channel();
            let command = Command::Load {
                model,
                version,
                taken,
            };
            let sent = running.commands.send(command).is_ok();
            if !(sent && answer.recv().is_ok()) {
                return Err(error(request(), failure(&self.state)));
            }
            running.version = version;
            return Ok(());
        }
        lock(&self.state).failure = None;
        let (commands, received) = mpsc::channel();
        let (state, in_flight) = (self.state.clone(), self.in_flight);
        let thread = thread::Builder::new()
            .name("rlvr-generation".into())
            .spawn(move || run(model, version, in_flight, &received, &state))
            .map_err(|reason| error(request(), reason.to_string()))?;
        self.running = Some(Running {
            commands,
            thread,
            version,
            limits,
        });
        Ok(())
    }

    fn in_flight(&self) -> InFlight {
        self.in_flight
    }

    fn version(&self) -> Option<u64> {
        let running = self.running.as_ref()?;
        let failed = lock(&self.state).failure.is_some();
        (!failed).then_some(running.version)
    }

    fn submit(
        &mut self,
        request: GenerationRequest,
        config: &GenerationConfig,
        answers: &Sender<Answer>,
    ) -> Result<u64> {
        let ticket = self.tickets;
        let what = || format!("request {ticket}");
        let Some(running) = &self.running else {
            return Err(error(what(), "no policy is loaded".into()));
        };
        config.validate()?;
        config.check_stop_tokens(running.limits[0])?;
        check_request(ticket, &request, config, running.limits)?;
        {
            // When the thread fails, it answers everything that is pending. Do not add a request
            // that it would no longer read.
            let mut state = lock(&self.state);
            if let Some(reason) = &state.failure {
                return Err(error(what(), reason.clone()));
            }
            let pending = Pending {
                samples: request.samples,
                answers: answers.clone(),
            };
            state.pending.insert(ticket, pending);
        }
        self.tickets += 1;
        let command = Command::Submit {
            ticket,
            request,
            config: config.clone(),
        };
        // If the thread has just failed, the request is already answered.
        let _ = running.commands.send(command);
        Ok(ticket)
    }

    fn cancel(&mut self, ticket: u64) {
        lock(&self.state).pending.remove(&ticket);
        if let Some(running) = &self.running {
            let _ = running.commands.send(Command::Cancel(ticket));
        }
    }

    fn check(&mut self) -> Result<()> {
        match &lock(&self.state).failure {
            Some(reason) => Err(error("generation".into(), reason.clone())),
            None => Ok(()),
        }
    }

    fn metrics(&mut self) -> BTreeMap<String, f64> {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let mut idle = std::mem::take(&mut state.idle);
        if let Some(since) = &mut state.idle_since {
            idle += now - std::mem::replace(since, now);
        }
        let tokens = std::mem::take(&mut state.tokens);
        [
            ("engine/running", state.running as f64),
            ("engine/waiting", state.waiting as f64),
            ("engine/tokens", tokens as f64),
            ("engine/idle_seconds", idle.as_secs_f64()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into()
    }
}

fn error(request: String, reason: String) -> Error {
    Error::Engine {
        engine: "generation thread".into(),
        request,
        reason,
        remedy:
            "requests in flight were answered with this error; load a policy to restart generation"
                .into(),
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // The state is consistent at every point at which a holder of the lock could panic.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why the thread ended.
fn failure(state: &Mutex<State>) -> String {
    let reason = lock(state).failure.clone();
    reason.unwrap_or_else(|| "the thread has ended".into())
}

/// Records the reason of a failure and answers every request with it.
fn fail(state: &mut State, reason: String) {
    for (ticket, pending) in std::mem::take(&mut state.pending) {
        let one = |_| Err(error(format!("request {ticket}"), reason.clone()));
        let completions = (0..pending.samples).map(one).collect();
        // The receiver may be gone.
        let _ = pending.answers.send(Answer {
            ticket,
            completions,
        });
    }
    (state.running, state.waiting, state.idle_since) = (0, 0, None);
    state.failure = Some(reason);
}

/// The body of the thread: runs until the worker is dropped or generation fails.
fn run<M: PolicyModel>(
    model: M,
    version: u64,
    in_flight: InFlight,
    commands: &Receiver<Command<M>>,
    state: &Mutex<State>,
) {
    let served = catch_unwind(AssertUnwindSafe(|| {
        serve(Decoder::new(model, version), in_flight, commands, state)
    }));
    let reason = match served {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("the thread panicked: {}", message(&*panic)),
    };
    fail(&mut lock(state), reason);
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message")
}

fn serve<M: PolicyModel>(
    mut decoder: Decoder<M>,
    in_flight: InFlight,
    commands: &Receiver<Command<M>>,
    state: &Mutex<State>,
) -> Result<()> {
    loop {
        if decoder.is_idle() {
            {
                let mut state = lock(state);
                (state.running, state.waiting) = (0, 0);
                state.idle_since = Some(Instant::now());
            }
            let next = commands.recv();
            {
                let mut state = lock(state);
                let since = state.idle_since.take();
                state.idle += since.map_or(Duration::ZERO, |since| since.elapsed());
            }
            let Ok(command) = next else {
                return Ok(());
            };
            execute(command, &mut decoder, in_flight, state)?;
        }
        loop {
            match commands.try_recv() {
                Ok(command) => execute(command, &mut decoder, in_flight, state)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        round(&mut decoder, state)?;
    }
}

/// Runs one step of the decoder and answers the requests that have ended.
fn round<M: PolicyModel>(decoder: &mut Decoder<M>, state: &Mutex<State>) -> Result<()> {
    let mut tokens = 0;
    let finished = decoder.round(TOKENS_PER_READ, &mut |_| {
        tokens += 1;
        true
    })?;
    let mut state = lock(state);
    state.tokens += tokens;
    (state.running, state.waiting) = (decoder.running(), decoder.waiting());
    for (ticket, completions) in finished {
        if let Some(pending) = state.pending.remove(&ticket) {
            let completions = completions.into_iter().map(Ok).collect();
            let _ = pending.answers.send(Answer {
                ticket,
                completions,
            });
        }
    }
    Ok(())
}

fn execute<M: PolicyModel>(
    command: Command<M>,
    decoder: &mut Decoder<M>,
    in_flight: InFlight,
    state: &Mutex<State>,
) -> Result<()> {
    match command {
        Command::Load {
            model,
            version,
            taken,
        } => {
            while in_flight == InFlight::Finish && !decoder.is_idle() {
                round(decoder, state)?;
            }
            let _ = taken.send(());
            decoder.replace_model(model, version, in_flight)
        }
        Command::Submit {
            ticket,
            request,
            config,
        } => decoder.submit(ticket, request, &config),
        Command::Cancel(ticket) => {
            decoder.cancel(ticket);
            Ok(())
        }
    }
}
