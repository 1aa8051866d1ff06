//! An inference server in this process: a tiny model behind the protocols of vLLM and SGLang, with
//! scripted faults.

mod answers;
mod model;
mod routes;
mod server;

use std::collections::{HashMap, VecDeque};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rlvr::policy::KvCache;
use rlvr::policy::causal::CausalModel;
use serde_json::Value;

/// The kind of server. The default is a correctly configured vLLM 0.33 and SGLang at once.
#[derive(Clone)]
pub struct Options {
    /// `--logprobs-mode raw_logprobs`.
    pub raw: bool,
    /// Log-probs of `/inference/v1/generate` as before 0.32.
    pub old_shape: bool,
    /// Whether completions say which weights sampled which tokens (0.33).
    pub reports: bool,
    /// Whether `/inference/v1/generate` and `/generate` do.
    pub generate_reports: bool,
    /// Whether weights have labels (0.27).
    pub labels: bool,
    /// `--enable-scale-out`.
    pub scale_out: bool,
    /// `VLLM_SERVER_DEV_MODE=1`.
    pub dev_mode: bool,
    /// `--enable-lora` with the variable.
    pub lora: bool,
    /// Whether the prefix cache can be reset.
    pub resets: bool,
    /// Request fields that it ignores silently.
    pub ignores: Vec<&'static str>,
    /// Ends completions unless `ignore_eos`.
    pub eos: Vec<u32>,
    /// Multiplies logits after everything else: a sampling default that requests cannot see.
    pub secret_temperature: f64,
    /// The time of a token.
    pub pace: Duration,
    /// Tokens in a chunk of a stream.
    pub chunk: usize,
    /// `--incremental-streaming-output` of SGLang.
    pub incremental: bool,
    /// `--api-key`.
    pub key: Option<&'static str>,
    pub max_model_len: usize,
    /// Whether each answer closes its connection.
    pub closes: bool,
    /// Bytes per write, to split chunks anywhere.
    pub piece: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            raw: false,
            old_shape: false,
            reports: true,
            generate_reports: true,
            labels: true,
            scale_out: true,
            dev_mode: true,
            lora: true,
            resets: true,
            ignores: Vec::new(),
            eos: Vec::new(),
            secret_temperature: 1.0,
            pace: Duration::ZERO,
            chunk: 2,
            incremental: false,
            key: None,
            max_model_len: 512,
            closes: false,
            piece: 4096,
        }
    }
}

/// A fault of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    Status(u16),
    RetryAfter(u64),
    /// The connection closes before the head.
    CloseBefore,
    /// The connection closes after so many bytes of the body, or chunks of a stream.
    CloseInside(usize),
    /// No answer for this long.
    Hang(Duration),
    /// Status 200, and an error inside.
    ErrorInside,
    Choices(usize),
    ShortLogProbs,
    NullLogProb,
    MinusInfinity,
    PositiveLogProb,
    /// A token id outside the vocabulary.
    UnknownToken,
    /// The prompt that is echoed is another one.
    OtherPrompt,
    /// The label of other weights.
    Label(&'static str),
    /// Spans that leave tokens out.
    ShortSpans,
    /// Aborted without a token.
    AbortEmpty,
    /// An unknown finish reason.
    StrangeFinish,
    /// Invalid JSON.
    Garbage,
    /// A request that stops the server.
    Die,
    /// Weights are half loaded; the server stops at the next request.
    Tear,
    /// All weights but one tensor are loaded.
    KeepOneTensor,
}

/// Counters of the server.
#[derive(Default)]
pub struct Gauges {
    pub running: AtomicUsize,
    pub most_running: AtomicUsize,
    /// Ended because the client closed the connection.
    pub closed: AtomicUsize,
    pub tokens: AtomicUsize,
}

/// The state of the server.
struct World {
    model: CausalModel,
    first: CausalModel,
    adapters: HashMap<String, CausalModel>,
    label: String,
    /// Counts changes of weights.
    epoch: u64,
    recompute: bool,
    paused: bool,
    /// Counts aborts.
    aborts: u64,
    torn: bool,
    /// Keys and values of prompts, by salt.
    prefixes: HashMap<(String, Vec<u32>), KvCache>,
}

struct Inner {
    options: Mutex<Options>,
    world: Mutex<World>,
    changed: Condvar,
    faults: Mutex<VecDeque<(String, Fault, usize)>>,
    log: Mutex<Vec<(String, Value)>>,
    gauges: Gauges,
    down: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    root: PathBuf,
}

/// A running server; it ends when it is dropped.
pub struct Mock {
    inner: Arc<Inner>,
    port: u16,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl Mock {
    /// Serves the model in `folder`.
    pub fn start(folder: &Path, options: Options) -> Self {
        let model = model::read(folder);
        let world = World {
            first: model.clone(),
            model,
            adapters: HashMap::new(),
            label: "default".into(),
            epoch: 0,
            recompute: false,
            paused: false,
            aborts: 0,
            torn: false,
            prefixes: HashMap::new(),
        };
        let inner = Arc::new(Inner {
            options: Mutex::new(options),
            world: Mutex::new(world),
            changed: Condvar::new(),
            faults: Mutex::new(VecDeque::new()),
            log: Mutex::new(Vec::new()),
            gauges: Gauges::default(),
            down: AtomicBool::new(true),
            connections: Mutex::new(Vec::new()),
            root: folder.to_path_buf(),
        });
        let (port, acceptor) = server::listen(&inner, 0);
        Self {
            inner,
            port,
            acceptor: Mutex::new(Some(acceptor)),
        }
    }

    /// As `kind=http://..`.
    pub fn address(&self, kind: &str) -> String {
        format!("{kind}=http://127.0.0.1:{}", self.port)
    }

    /// The next `times` requests to paths that begin with `path` have this fault.
    pub fn script(&self, path: &str, fault: Fault, times: usize) {
        lock(&self.inner.faults).push_back((path.into(), fault, times));
    }

    /// Removes all faults.
    pub fn clear_script(&self) {
        lock(&self.inner.faults).clear();
    }

    /// Holds all completions back, or releases them.
    pub fn hold(&self, held: bool) {
        lock(&self.inner.world).paused = held;
        self.inner.changed.notify_all();
    }

    /// Whether every scripted fault has happened.
    pub fn script_is_done(&self) -> bool {
        lock(&self.inner.faults).is_empty()
    }

    /// Requests to paths that begin with `path`.
    pub fn asked(&self, path: &str) -> Vec<Value> {
        let log = lock(&self.inner.log);
        let those = log.iter().filter(|(asked, _)| asked.starts_with(path));
        those.map(|(_, body)| body.clone()).collect()
    }

    /// The paths of all requests in order, without health checks.
    pub fn paths(&self) -> Vec<String> {
        let log = lock(&self.inner.log);
        log.iter().map(|(path, _)| path.clone()).collect()
    }

    pub fn forget(&self) {
        lock(&self.inner.log).clear();
    }

    pub fn gauges(&self) -> &Gauges {
        &self.inner.gauges
    }

    /// The names of the adapters that it has.
    pub fn adapters(&self) -> Vec<String> {
        let mut names: Vec<String> = lock(&self.inner.world).adapters.keys().cloned().collect();
        names.sort();
        names
    }

    /// As `kill -9`.
    pub fn kill(&self) {
        server::stop(&self.inner, self.port);
        if let Some(acceptor) = lock(&self.acceptor).take() {
            acceptor.join().unwrap();
        }
    }

    /// Restarts on the same port with the initial weights.
    pub fn restart(&self) {
        self.kill();
        {
            let mut world = lock(&self.inner.world);
            world.model = world.first.clone();
            world.adapters.clear();
            world.label = "default".into();
            (world.paused, world.torn) = (false, false);
            world.epoch += 1;
            world.prefixes.clear();
        }
        let (_, acceptor) = server::listen(&self.inner, self.port);
        *lock(&self.acceptor) = Some(acceptor);
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
