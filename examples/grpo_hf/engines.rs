//! Where completions come from: this process, inference servers, and how far ahead of the learner.

use std::path::Path;
#[cfg(feature = "remote")]
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rlvr::Result;
use rlvr::loss::SamplerCorrection;
use rlvr::policy::causal::CausalModel;
use rlvr::policy::{ValueHead, WeightFormat};
use rlvr::rollout::{InFlight, LocalWorker};
use rlvr::train::{AsyncConfig, AsyncRollouts, TrainerBuilder, TrainerConfig};

/// Engines and staleness.
#[derive(Args, Debug)]
pub struct EngineArgs {
    /// An inference server that generates, as vllm=http://127.0.0.1:8000, vllm-generate=URL or
    /// sglang=URL; may be repeated. Default: this process generates
    #[cfg(feature = "remote")]
    #[arg(long, value_name = "KIND=URL")]
    pub engine: Vec<rlvr::rollout::remote::EngineAddress>,
    /// The folder that engines load weights from; they must see it under this path. Default:
    /// OUT-run/weights
    #[cfg(feature = "remote")]
    #[arg(long, value_name = "DIR", requires = "engine")]
    pub engine_weights: Option<PathBuf>,
    /// How far an engine's log-probs may be from the policy's after weights were loaded, in nats
    #[cfg(feature = "remote")]
    #[arg(long, default_value_t = 1e-3, requires = "engine")]
    pub engine_tolerance: f64,
    /// The most weight updates between the policy that sampled a completion and the one that learns
    /// from it. Above 0, completions are generated while the learner works
    #[arg(long, default_value_t = 0)]
    pub max_staleness: u64,
    /// Learn from problems in the order in which they were drawn: a step waits for its slowest
    /// completion
    #[arg(long)]
    pub ordered: bool,
    /// How completions in flight are handled when the weights change
    #[arg(long, value_enum, default_value_t = Flight::Continue)]
    pub in_flight: Flight,
    /// The largest weight of a token whose sampler was not the policy (truncated importance
    /// sampling); used with engines, with --max-staleness above 0 and with --generation-weights
    #[arg(long, default_value_t = 2.0)]
    pub truncate_weights: f64,
}

/// How completions in flight are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flight {
    /// They continue with the new weights; keys and values are recomputed
    Continue,
    /// They continue with the new weights and the old keys and values
    Keep,
    /// They are finished with the old weights
    Finish,
    /// They start over with the new weights
    Redo,
}

impl From<Flight> for InFlight {
    fn from(flight: Flight) -> Self {
        match flight {
            Flight::Continue => Self::Continue { recompute: true },
            Flight::Keep => Self::Continue { recompute: false },
            Flight::Finish => Self::Finish,
            Flight::Redo => Self::Redo,
        }
    }
}

type Builder = TrainerBuilder<CausalModel, ValueHead<CausalModel>>;

impl EngineArgs {
    /// Whether completions come from servers.
    fn is_remote(&self) -> bool {
        #[cfg(feature = "remote")]
        return !self.engine.is_empty();
        #[cfg(not(feature = "remote"))]
        false
    }

    /// What the sampler's distance from the policy asks of the objective.
    pub fn correct(&self, config: &mut TrainerConfig) {
        let correction = &mut config.objective.sampler_correction;
        let rounded = config.generation.weights != WeightFormat::Trained;
        if (self.is_remote() || self.max_staleness > 0 || rounded) && correction.is_none() {
            *correction = Some(SamplerCorrection::token_truncate(self.truncate_weights));
        }
    }

    /// The builder with the engine or the source that was asked for.
    pub fn attach(&self, builder: Builder, run: &Path) -> Result<Builder> {
        let ahead = AsyncConfig {
            max_staleness: self.max_staleness,
            ordered: self.ordered,
            ..AsyncConfig::default()
        };
        #[cfg(feature = "remote")]
        if !self.engine.is_empty() {
            use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};

            let weights = self.engine_weights.clone();
            let weights = weights.unwrap_or_else(|| run.join("weights"));
            let config = RemoteConfig {
                in_flight: self.in_flight.into(),
                tolerance: self.engine_tolerance,
                ..RemoteConfig::new(self.engine.clone(), weights)
            };
            let engines = RemoteEngines::connect(config)?;
            return Ok(match self.max_staleness {
                0 => builder.engine(engines),
                _ => builder.source(AsyncRollouts::new(engines, ahead)?),
            });
        }
        let _ = run;
        match self.max_staleness {
            0 => Ok(builder),
            _ => {
                let worker = LocalWorker::new(self.in_flight.into());
                Ok(builder.source(AsyncRollouts::new(worker, ahead)?))
            }
        }
    }
}
