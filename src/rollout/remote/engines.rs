//! Several engines as one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::Rng;

use super::config::RemoteConfig;
use super::control::{Control, Served};
use super::flight::Shared;
use super::http::{Kind, Trouble};
use super::job::Asked;
use super::probe::Findings;
use super::state::{Engine, Slot, State, Status};
use super::weights::{Labels, Target, Weights};
use crate::policy::{PolicyModel, WeightFormat};
use crate::rollout::{
    Answer, AsyncEngine, CHECK_INTERVAL, Completion, GenerationConfig, GenerationRequest, InFlight,
    RolloutEngine, generate_with,
};
use crate::{Error, Result, random};

/// The stack size of a thread that waits for an engine.
const STACK: usize = 512 * 1024;

/// A client of one or more inference servers; see the [module documentation](super) for setup and
/// an example.
///
/// Dropping it ends its threads and closes its connections, which aborts requests in flight.
#[doc(alias("use_vllm", "vllm_server_base_url"))]
#[derive(Debug)]
pub struct RemoteEngines {
    shared: Arc<Shared>,
    weights: Weights,
    threads: Vec<JoinHandle<()>>,
    /// The folders of the served models.
    roots: Vec<String>,
    loaded: bool,
    last: [Option<u64>; 2],
    version: Option<u64>,
}

impl RemoteEngines {
    /// Connects to all engines. Load a policy before submitting requests: an engine is checked
    /// against its weights.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid, the folder for weights cannot be created or
    /// belongs to another run, or an engine cannot be reached.
    pub fn connect(config: RemoteConfig) -> Result<Self> {
        config.validate()?;
        let weights = Weights::open(&config.weights)?;
        let mut roots = Vec::new();
        let mut engines = Vec::new();
        for address in &config.engines {
            let control = Control::new(address.protocol, &address.url, &config);
            let served = control.health().and_then(|()| control.describe());
            let served: Served = served.map_err(|trouble| Error::Engine {
                engine: address.to_string(),
                request: "connect".into(),
                reason: trouble.reason,
                remedy: trouble.remedy,
            })?;
            roots.extend(served.root.clone());
            let slot = |_| Slot {
                client: config.client(&address.url),
                flight: None,
            };
            engines.push(Engine {
                address: address.clone(),
                control,
                served,
                status: Status::Out,
                reason: "no weights are loaded yet".into(),
                target: None,
                checked: false,
                findings: Findings::default(),
                labels: false,
                queue: VecDeque::new(),
                slots: (0..config.max_in_flight).map(slot).collect(),
                adapters: BTreeMap::new(),
            });
        }
        roots.sort();
        roots.dedup();
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let run = [u64::from(std::process::id()), time.as_nanos() as u64];
        let labels = Labels::new(random::generator(&run).next_u64() as u32);
        let (count, slots) = (config.engines.len(), config.max_in_flight);
        let mut all = Self {
            shared: Arc::new(Shared::new(config, labels, State::new(engines))),
            weights,
            threads: Vec::new(),
            roots,
            loaded: false,
            last: [None; 2],
            version: None,
        };
        for index in 0..count {
            for slot in 0..slots {
                all.spawn(format!("engine-{index}-{slot}"), move |shared| {
                    shared.work(index, slot)
                })?;
            }
            all.spawn(format!("engine-{index}-watch"), move |shared| {
                shared.supervise(index)
            })?;
        }
        Ok(all)
    }

    fn spawn(&mut self, name: String, work: impl FnOnce(&Shared) + Send + 'static) -> Result<()> {
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name(name).stack_size(STACK);
        let thread = thread.spawn(move || work(&shared)).map_err(|reason| {
            let expected = "no more than the number of threads that the system allows";
            Error::config("remote.max_in_flight", format!("{reason}"), expected)
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Loads `target` into all engines in parallel. Waits until one can be reached.
    fn load_all(&self, target: &Arc<Target>) -> Result<()> {
        let shared = &self.shared;
        let until = Instant::now() + shared.config.retry_for;
        let what = format!("load {}", target.folder.display());
        loop {
            let outcomes: Vec<Result<(), Trouble>> = thread::scope(|scope| {
                let load = |index| scope.spawn(move || shared.load_and_verify(index, target));
                let threads: Vec<_> = (0..shared.config.engines.len()).map(load).collect();
                let panicked = |_| Err(Trouble::wrong("the thread that loads weights panicked"));
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(panicked))
                    .collect()
            });
            let succeeded = outcomes.iter().any(Result::is_ok);
            let failed = outcomes.into_iter().enumerate();
            let failed: Vec<_> = failed
                .filter_map(|(index, outcome)| Some((index, outcome.err()?)))
                .collect();
            // The first load must succeed on all engines: a wrongly started engine is an error, not
            // a warning.
            let worst = failed
                .into_iter()
                .max_by_key(|(_, trouble)| !trouble.is_of_transport());
            let Some((index, trouble)) = worst else {
                return Ok(());
            };
            if succeeded && self.loaded {
                return Ok(());
            }
            if !trouble.is_of_transport()
                || Instant::now() >= until
                || shared.sleep(shared.heartbeat())
            {
                return Err(shared.error(index, &what, trouble));
            }
        }
    }

    /// Waits until all requests are answered.
    fn finish(&self) -> Result<()> {
        let shared = &self.shared;
        let mut state = shared.lock();
        let busy = |engine: &Engine| engine.active() > 0 || !engine.queue.is_empty();
        while state.engines.iter().any(busy) || !state.unassigned.is_empty() {
            dead(&state)?;
            state = Shared::wait(&shared.ended, state, CHECK_INTERVAL);
        }
        Ok(())
    }

    /// Checks a request against the policy and the engines.
    fn check_request(
        &self,
        request: &GenerationRequest,
        config: &GenerationConfig,
        state: &State,
    ) -> Result<()> {
        config.validate()?;
        if config.weights != WeightFormat::Trained {
            let expected = "trained: the server's own flags say how it stores weights";
            let given = config.weights.name();
            return Err(Error::config("generation.weights", given, expected));
        }
        let Some(target) = &state.current else {
            return Err(Error::Engine {
                engine: state.addresses(),
                request: "submit".into(),
                reason: "no weights are loaded".into(),
                remedy: "load a policy first".into(),
            });
        };
        let vocabulary = target.fingerprint.vocabulary;
        config.check_stop_tokens(vocabulary)?;
        if request.prompt.is_empty() {
            return Err(Error::shape("prompt", "0 tokens", "at least 1 token"));
        }
        if let Some(&id) = request.prompt.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::UnknownToken { id, vocabulary });
        }
        let needed = request.prompt.len().saturating_add(config.max_new_tokens);
        // The last token of a completion is never fed back, but engines count it.
        let contexts = state
            .engines
            .iter()
            .filter_map(|engine| engine.served.context);
        let limits = [
            (
                target.positions + 1,
                "max_position_embeddings of the policy, plus one",
            ),
            (
                contexts.min().unwrap_or(usize::MAX),
                "--max-model-len of the engine",
            ),
        ];
        if let Some((limit, what)) = limits.into_iter().find(|&(limit, _)| needed > limit) {
            let tokens = request.prompt.len();
            let value = format!(
                "{} after a prompt of {tokens} tokens",
                config.max_new_tokens
            );
            let expected = format!("at most {limit} tokens in total ({what})");
            return Err(Error::config("generation.max_new_tokens", value, expected));
        }
        let truncates = config.sampling.truncates() && config.sampling.temperature > 0.0;
        let unable = state
            .engines
            .iter()
            .find(|engine| engine.target.is_some() && !engine.findings.truncates);
        match (truncates, unable) {
            (true, Some(engine)) => Err(Error::Engine {
                engine: engine.address.to_string(),
                request: "sampling with top_k, top_p or min_p".into(),
                reason: "its log-probs are those of the distribution before truncation".into(),
                remedy: "sample without truncation, or with vLLM".into(),
            }),
            _ => Ok(()),
        }
    }
}

impl<M: PolicyModel> AsyncEngine<M> for RemoteEngines {
    fn load(&mut self, policy: &M, version: u64) -> Result<()> {
        if self.shared.config.in_flight == InFlight::Finish {
            self.finish()?;
        }
        let shared = self.shared.clone();
        let _loading = shared
            .loading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.version = None;
        let label = shared.labels.label(version);
        let result = self.weights.write(policy, version, label, &self.roots);
        let result = result.and_then(|target| {
            let target = Arc::new(target);
            self.load_all(&target)?;
            Ok(target)
        });
        let mut state = shared.lock();
        match result {
            Ok(target) => {
                state.current = Some(target);
                state.adopt();
            }
            Err(error) => {
                state.current = None;
                return Err(error);
            }
        }
        drop(state);
        (self.loaded, self.version) = (true, Some(version));
        if self.last[0] != Some(version) {
            self.last = [Some(version), self.last[0]];
        }
        let mut kept = shared.versions_in_use();
        kept.extend(self.last.iter().flatten());
        self.weights.prune(&kept)
    }

    fn in_flight(&self) -> InFlight {
        self.shared.config.in_flight
    }

    fn version(&self) -> Option<u64> {
        self.version
    }

    fn submit(
        &mut self,
        request: GenerationRequest,
        config: &GenerationConfig,
        answers: &Sender<Answer>,
    ) -> Result<u64> {
        let mut state = self.shared.lock();
        self.check_request(&request, config, &state)?;
        dead(&state)?;
        let asked = Asked {
            prompt: request.prompt,
            address: request.address,
            config: config.clone(),
        };
        let ticket = state.submit(asked, request.samples, answers);
        self.shared.wake.notify_all();
        Ok(ticket)
    }

    fn cancel(&mut self, ticket: u64) {
        self.shared.lock().cancel(ticket);
        self.shared.wake.notify_all();
    }

    fn check(&mut self) -> Result<()> {
        dead(&self.shared.lock())
    }

    fn metrics(&mut self) -> BTreeMap<String, f64> {
        let mut state = self.shared.lock();
        let counters = std::mem::take(&mut state.counters);
        let sum = |of: fn(&Engine) -> usize| state.engines.iter().map(of).sum::<usize>() as f64;
        let ready = state
            .engines
            .iter()
            .filter(|engine| engine.status == Status::Ready);
        let metrics = [
            ("completions", counters.completions as f64),
            ("tokens", counters.tokens as f64),
            ("retries", counters.retries as f64),
            ("timeouts", counters.timeouts as f64),
            ("wrong_answers", counters.wrong_answers as f64),
            ("outages", counters.outages as f64),
            ("load_seconds", counters.load_seconds),
            ("in_flight", sum(Engine::active)),
            (
                "queued",
                sum(|engine| engine.queue.len()) + state.unassigned.len() as f64,
            ),
            ("ready", ready.count() as f64),
        ];
        let named = metrics.into_iter();
        named
            .map(|(name, value)| (format!("engine/{name}"), value))
            .collect()
    }
}

/// Returns an error if no engine has been available for too long.
fn dead(state: &State) -> Result<()> {
    match &state.dead {
        None => Ok(()),
        Some(trouble) => Err(Error::Engine {
            engine: state.addresses(),
            request: "generate".into(),
            reason: trouble.reason.clone(),
            remedy: trouble.remedy.clone(),
        }),
    }
}

/// Waits for all completions ([`generate_with`]).
impl<M: PolicyModel> RolloutEngine<M> for RemoteEngines {
    fn generate(
        &mut self,
        policy: &M,
        version: u64,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Completion>>> {
        generate_with(self, policy, version, requests, config)
    }
}

impl Drop for RemoteEngines {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stopping = true;
            let reason = "the engines were dropped before the request finished";
            state.fail_all(&Trouble::new(
                Kind::Broken,
                reason,
                "wait for the answers before dropping the engines",
            ));
            for engine in &state.engines {
                engine.control.client.shut_down();
                engine.slots.iter().for_each(|slot| slot.client.shut_down());
            }
        }
        self.shared.wake.notify_all();
        self.shared.ended.notify_all();
        for thread in self.threads.drain(..) {
            // Panics are ignored.
            let _ = thread.join();
        }
    }
}
