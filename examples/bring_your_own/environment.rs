//! A custom environment, with episodes of several turns.

use rlvr::environment::{Environment, EnvironmentError, FnEpisode, Message, Opening, Reply, Step};
use rlvr::types::Problem;

/// Asks again, once, after a wrong reply. The second try earns half.
pub struct SecondTry;

impl Environment for SecondTry {
    fn name(&self) -> &str {
        "second_try"
    }

    fn open(&self, problem: &Problem, _seed: u64) -> Result<Opening, EnvironmentError> {
        let accepted = problem.metadata.get("accepted").ok_or("no `accepted`")?;
        let accepted: Vec<String> = serde_json::from_value(accepted.clone())?;
        let question = problem.prompt.clone();
        Ok(Opening::new(FnEpisode(move |reply: &Reply<'_>| {
            let right = accepted.iter().any(|answer| *answer == reply.text);
            Ok(match (right, reply.turn) {
                (true, 0) => Step::done(1.0),
                (true, _) => Step::done(0.5),
                // The policy reads the question a second time.
                (false, 0) => Step::observe(Message::new("user", question.clone())),
                (false, _) => Step::done(0.0),
            })
        })))
    }
}
