//! Completions from inference servers: vLLM and SGLang (feature `remote`).

mod config;
mod control;
mod engines;
mod flight;
mod http;
mod loader;
mod probe;
mod protocol;
mod sglang;
mod state;
mod vllm;
mod watch;
mod weights;

pub use config::{EngineAddress, RemoteConfig};
pub use engines::RemoteEngines;
