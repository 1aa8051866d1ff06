//! The thread that turns the engine's answers into scored groups while the learner trains.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::flights::{Asked, Flight, Flights};
use crate::policy::PolicyModel;
use crate::prompt::Tokenizer;
use crate::reward::TokenReward;
use crate::rollout::{Answer, check_completion, sample_group};
use crate::train::collector::{Collector, score};
use crate::types::{RolloutBuffer, RolloutGroup};
use crate::{Error, Result};

/// The completions of a group that could be generated, scored.
pub(super) struct Scored {
    pub ticket: u64,
    /// The scored rollouts; an error if a completion cannot be decoded.
    pub group: Result<RolloutGroup>,
    /// The number of samples that the engine could not generate.
    pub failures: usize,
    /// The error of the first of them.
    pub first_error: Option<Error>,
    /// The time spent on decoding and rewards.
    pub time: Duration,
}

/// A handle to the scoring thread. The thread ends when the engine and this handle are dropped.
pub(super) struct Scoring {
    /// The channel on which the engine sends its answers.
    pub answers: Sender<Answer>,
    scored: Receiver<Scored>,
}

/// The state of the thread.
struct Scorer {
    flights: Flights,
    tokenizer: Arc<dyn Tokenizer>,
    token_rewards: Option<Arc<dyn TokenReward>>,
    vocabulary: usize,
}

impl Scoring {
    pub fn start<M: PolicyModel>(
        collector: &Collector<M>,
        vocabulary: usize,
        flights: &Flights,
    ) -> Self {
        let scorer = Scorer {
            flights: flights.clone(),
            tokenizer: collector.tokenizer.clone(),
            token_rewards: collector.token_rewards.clone(),
            vocabulary,
        };
        let (answers, incoming) = mpsc::channel::<Answer>();
        let (outgoing, scored) = mpsc::channel();
        thread::spawn(move || {
            for answer in incoming {
                let Some((flight, asked)) = scorer.flights.get(answer.ticket) else {
                    continue; // cancelled
                };
                if outgoing.send(scorer.score(answer, flight, &asked)).is_err() {
                    break;
                }
            }
        });
        Self { answers, scored }
    }

    /// Returns the next scored group, or `None` if none arrives within `time`.
    ///
    /// # Errors
    /// Returns an error if the thread has ended.
    pub fn next(&self, time: Duration) -> Result<Option<Scored>> {
        match self.scored.recv_timeout(time) {
            Ok(scored) => Ok(Some(scored)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Engine {
                engine: "rollouts".into(),
                request: "scoring the answers".into(),
                reason: "the scoring thread ended".into(),
                remedy: "see its panic message on standard error".into(),
            }),
        }
    }
}

impl Scorer {
    fn score(&self, answer: Answer, flight: Flight, asked: &Asked) -> Scored {
        let mut errors = Vec::new();
        let mut samples = Vec::new();
        let mut completions = Vec::new();
        for (sample, completion) in answer.completions.into_iter().enumerate() {
            let which = format!("completion {sample} of request {}", answer.ticket);
            let checked = completion.and_then(|completion| {
                check_completion(&completion, &which, &asked.generation, self.vocabulary)?;
                Ok(completion)
            });
            match checked {
                Ok(completion) => {
                    samples.push(sample);
                    completions.push(completion);
                }
                Err(error) => errors.push(error),
            }
        }
        let started = Instant::now();
        let group = sample_group(
            flight.question.problem,
            flight.question.prompt,
            completions,
            self.tokenizer.as_ref(),
            flight.version,
        );
        let group = group.map(|mut group| {
            for (rollout, sample) in group.rollouts.iter_mut().zip(samples) {
                rollout.sample = sample;
            }
            self.rewarded(group, asked)
        });
        Scored {
            ticket: answer.ticket,
            group,
            failures: errors.len(),
            first_error: errors.into_iter().next(),
            time: started.elapsed(),
        }
    }

    fn rewarded(&self, group: RolloutGroup, asked: &Asked) -> RolloutGroup {
        let mut buffer = RolloutBuffer {
            groups: vec![group],
        };
        score(&asked.rewards, self.token_rewards.as_deref(), &mut buffer);
        buffer.groups.swap_remove(0)
    }
}
