//! A custom engine, around another one.

use std::time::{Duration, Instant};

use rlvr::Result;
use rlvr::policy::PolicyModel;
use rlvr::rollout::{Completion, GenerationConfig, GenerationRequest, RolloutEngine};

/// Measures the speed of an engine, and prints it at the end.
pub struct Timed<E> {
    engine: E,
    tokens: usize,
    time: Duration,
}

impl<E> Timed<E> {
    pub fn new(engine: E) -> Self {
        let (tokens, time) = Default::default();
        Self {
            engine,
            tokens,
            time,
        }
    }
}

impl<M: PolicyModel, E: RolloutEngine<M>> RolloutEngine<M> for Timed<E> {
    fn generate(
        &mut self,
        policy: &M,
        version: u64,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Completion>>> {
        let started = Instant::now();
        let answers = self.engine.generate(policy, version, requests, config)?;
        self.time += started.elapsed();
        let completions = answers.iter().flatten();
        self.tokens += completions.map(|one| one.tokens.len()).sum::<usize>();
        Ok(answers)
    }
}

impl<E> Drop for Timed<E> {
    fn drop(&mut self) {
        let (tokens, seconds) = (self.tokens, self.time.as_secs_f64());
        println!("generated {tokens} tokens in {seconds:.2} s");
    }
}
