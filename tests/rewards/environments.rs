//! Multi-turn episodes: sampled tokens are never changed, observations are context only, every
//! limit has its reason, and a failing environment fails only its own rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use burn::module::Module;
use rlvr::advantage::{Estimator, ReinforcePlusPlus};
use rlvr::environment::process::{ProcessEnvironment, Program};
use rlvr::environment::{
    AgentLoop, AgentLoopConfig, Environment, EnvironmentError, EpisodeReward, FnEpisode, Message,
    Opening, Reply, Step, StepEnd, TurnRewards,
};
use rlvr::policy::LogProbConfig;
use rlvr::prompt::{Problem, Tokenizer};
use rlvr::reward::{FnReward, RewardSet};
use rlvr::rollout::{GenerationConfig, LocalEngine, RolloutBatch, RolloutBuffer, RolloutRequest};
use rlvr::train::TrainerConfig;
use rlvr::types::EpisodeEnd;

use crate::common::toy::{self, Rl};
use crate::common::{devices, quiet_reward_panics};
use crate::scripts::{python, script};

/// Echoes the reply and adds the turn's letter. The problem's answer is the number of turns.
struct Echo;

impl Environment for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn open(&self, problem: &Problem, seed: u64) -> Result<Opening, EnvironmentError> {
        let turns: usize = problem.answer.parse()?;
        let letter = ["a", "b", "c", "d"][(seed % 4) as usize];
        Ok(Opening::new(FnEpisode(move |reply: &Reply<'_>| {
            let reward = if reply.text.contains(letter) {
                1.0
            } else {
                0.0
            };
            if reply.turn + 1 == turns {
                return Ok(Step::done(reward));
            }
            let text = format!("{}{letter}", reply.text);
            let step = Step::observe(Message::new("tool", text)).with_reward(reward);
            Ok(Step {
                calls: BTreeMap::from([("ok".into(), 1)]),
                ..step
            })
        })))
    }
}

fn problems(turns: &str) -> Vec<Problem> {
    ["a", "ab", "c", "cad"]
        .map(|prompt| Problem::new(prompt, turns))
        .to_vec()
}

fn rewards() -> RewardSet {
    let rewards = RewardSet::builder().add(1.0, EpisodeReward::new("accuracy"));
    rewards.build().unwrap()
}

/// Positions for several turns.
fn builder(
    config: &TrainerConfig,
    device: &burn::tensor::Device,
) -> rlvr::train::TrainerBuilder<
    rlvr::policy::causal::CausalModel,
    rlvr::policy::ValueHead<rlvr::policy::causal::CausalModel>,
> {
    let shape = rlvr::policy::causal::CausalConfig {
        max_position_embeddings: 64,
        ..toy::shape(toy::tokenizer().vocab_size())
    };
    let policy = shape.init(0, &device.clone().autodiff()).unwrap();
    Rl::builder(policy, toy::tokenizer()).config(config.clone())
}

fn trainer(config: &TrainerConfig, agent_loop: AgentLoop, problems: Vec<Problem>) -> Rl {
    let builder = builder(config, &toy::device()).rewards(rewards());
    builder
        .problems(problems)
        .agent_loop(agent_loop)
        .build()
        .unwrap()
}

/// The episodes of an agent loop on the first problem and its neighbours.
fn play(agent_loop: &AgentLoop, turns: &str, generation: &GenerationConfig) -> RolloutBuffer {
    let trainer = trainer(&toy::config(), agent_loop.clone(), problems(turns));
    let policy = trainer.policy().valid();
    let question = |(index, problem): (usize, Problem)| RolloutRequest {
        problem: problem.into(),
        prompt: Vec::new(),
        samples: 3,
        address: vec![5, index as u64],
    };
    let questions: Vec<_> = problems(turns)
        .into_iter()
        .enumerate()
        .map(question)
        .collect();
    let tokenizer = toy::tokenizer();
    let engine = &mut LocalEngine;
    agent_loop
        .run(engine, &policy, 0, &tokenizer, &questions, generation)
        .unwrap()
}

fn generation() -> GenerationConfig {
    toy::config().generation
}

#[test]
fn observations_are_inserted_between_sampled_tokens() {
    let buffer = play(&AgentLoop::new(Echo), "3", &generation());
    assert_eq!(buffer.len(), 12);
    let tokenizer = toy::tokenizer();
    let mut several = 0;
    for rollout in buffer.rollouts() {
        let episode = rollout.episode.as_ref().unwrap();
        let mut at = 0;
        for turn in &episode.turns {
            let sampled = at..at + turn.tokens;
            assert!(sampled.clone().all(|token| rollout.is_trained(token)));
            let spoken = tokenizer.decode(&rollout.tokens[sampled.clone()]).unwrap();
            assert_eq!(spoken, turn.text);
            let observed = sampled.end..sampled.end + turn.observation_tokens;
            assert!(observed.clone().all(|token| !rollout.is_trained(token)));
            assert!(
                observed
                    .clone()
                    .all(|token| rollout.log_probs[token] == 0.0)
            );
            if !observed.is_empty() {
                let text: String = turn
                    .observation
                    .iter()
                    .map(|m| m.content.as_str())
                    .collect();
                assert_eq!(
                    tokenizer.decode(&rollout.tokens[observed.clone()]).unwrap(),
                    text
                );
            }
            at = observed.end;
        }
        assert_eq!(at, rollout.tokens.len());
        assert!(rollout.is_trained(at - 1), "nothing follows the last reply");
        several += usize::from(episode.turns.len() == 3);
        assert_eq!(rollout.text, episode.turns.last().unwrap().text);
    }
    assert!(several > 0);
}

#[test]
fn one_forward_pass_gives_the_log_probs_of_all_turns() {
    for (backend, device) in devices() {
        let agent_loop = AgentLoop::new(Echo);
        let built = builder(&toy::config(), &device).rewards(rewards());
        let mut trainer = built
            .problems(problems("3"))
            .agent_loop(agent_loop)
            .build()
            .unwrap();
        let buffer = trainer.collect().unwrap().rollouts;
        let batch = RolloutBatch::all(&buffer, &device).unwrap();
        let scored = batch
            .log_probs(trainer.policy(), &LogProbConfig::default())
            .unwrap();
        let scored = batch.unpad(scored, "log-probs").unwrap();
        let sampled = buffer.log_probs();
        assert!(
            buffer
                .rollouts()
                .any(|rollout| rollout.tokens.len() > rollout.trained_tokens())
        );
        for (a, b) in scored.values().zip(sampled.values()) {
            assert!((a - b).abs() < 1e-5, "{backend}: {a} {b}");
        }
    }
}

#[test]
fn values_at_observations_have_no_effect() {
    let config = TrainerConfig {
        measure_kl: true,
        ..toy::config()
    };
    let step = |garbage: bool| {
        let mut trainer = trainer(&config, AgentLoop::new(Echo), problems("3"));
        let mut collected = trainer.collect().unwrap();
        for rollout in collected.rollouts.rollouts_mut().filter(|_| garbage) {
            for token in 0..rollout.tokens.len() {
                if !rollout.is_trained(token) {
                    rollout.log_probs[token] = -1e9;
                }
            }
        }
        let record = trainer.learn(collected).unwrap();
        (toy::bits(&record), toy::weights(trainer.policy()))
    };
    assert_eq!(step(true), step(false));
    // A sampled token's value is used.
    let mut correcting = config.clone();
    correcting.objective.sampler_correction =
        Some(rlvr::loss::SamplerCorrection::token_truncate(2.0));
    let step = |change: f32| {
        let mut trainer = trainer(&correcting, AgentLoop::new(Echo), problems("3"));
        let mut collected = trainer.collect().unwrap();
        for rollout in collected.rollouts.rollouts_mut() {
            rollout.log_probs[0] += change;
        }
        trainer.learn(collected).unwrap();
        toy::weights(trainer.policy())
    };
    assert_ne!(step(1.0), step(0.0));
}

/// The toy task as an environment: the first character is to be the answer.
struct Single;

impl Environment for Single {
    fn name(&self) -> &str {
        "single"
    }

    fn open(&self, problem: &Problem, _seed: u64) -> Result<Opening, EnvironmentError> {
        let answer = problem.answer.clone();
        Ok(Opening::new(FnEpisode(move |reply: &Reply<'_>| {
            let right = reply.text.starts_with(&answer);
            Ok(Step::done(if right { 1.0 } else { 0.0 }))
        })))
    }
}

#[test]
fn a_single_turn_environment_equals_a_run_without_one_bit_for_bit() {
    let plain = FnReward::plain("accuracy", |input| {
        input.completion().starts_with(input.answer())
    });
    let plain = RewardSet::builder().add(1.0, plain).build().unwrap();
    let config = TrainerConfig {
        passes: 2,
        ..toy::config()
    };
    let mut without = builder(&config, &toy::device())
        .rewards(plain)
        .problems(toy::problems())
        .build()
        .unwrap();
    let mut with = trainer(&config, AgentLoop::new(Single), toy::problems());
    for (a, b) in toy::steps(&mut without, 4)
        .iter()
        .zip(toy::steps(&mut with, 4))
    {
        let mut b = toy::bits(&b);
        b.retain(|name, _| !name.starts_with("episode/"));
        // The environment decides how to treat a truncated reply.
        let mut a = toy::bits(a);
        for metrics in [&mut a, &mut b] {
            metrics.retain(|name, _| {
                name != "completions/clipped_ratio" && name != "completions/mean_terminated_length"
            });
        }
        assert_eq!(a, b);
    }
    assert_eq!(toy::weights(without.policy()), toy::weights(with.policy()));
}

#[test]
fn episodes_do_not_depend_on_neighbours_batches_or_threads() {
    let config = |threads| AgentLoopConfig {
        threads,
        ..AgentLoopConfig::default()
    };
    let agent_loop = |threads| AgentLoop::new(Echo).with_config(config(threads)).unwrap();
    let all = play(&agent_loop(16), "3", &generation());
    let few = GenerationConfig {
        max_rows: 2,
        ..generation()
    };
    let one = play(&agent_loop(1), "3", &few);
    for (a, b) in all.rollouts().zip(one.rollouts()) {
        assert_eq!(a.tokens, b.tokens);
        assert_eq!(a.episode, b.episode);
    }
}

#[test]
fn every_limit_has_its_own_end() {
    let ends = |config: AgentLoopConfig, generation: &GenerationConfig, turns: &str| {
        let agent_loop = AgentLoop::new(Echo).with_config(config).unwrap();
        let buffer = play(&agent_loop, turns, generation);
        for rollout in buffer.rollouts() {
            let end = &rollout.episode.as_ref().unwrap().end;
            assert_eq!(rollout.is_truncated(), end.is_limit());
        }
        let end = |rollout: &rlvr::rollout::Rollout| rollout.episode.clone().unwrap().end;
        buffer.rollouts().map(end).collect::<Vec<_>>()
    };
    let default = AgentLoopConfig::default();
    let long = generation();
    assert!(
        ends(default.clone(), &long, "1")
            .iter()
            .all(|end| *end == EpisodeEnd::Done)
    );
    // Few replies end within one token; the others are truncated.
    let short = GenerationConfig {
        max_new_tokens: 1,
        ..generation()
    };
    let cut = ends(default.clone(), &short, "9");
    assert!(cut.contains(&EpisodeEnd::Length));
    let two = AgentLoopConfig {
        max_turns: 2,
        ..default.clone()
    };
    let found = ends(two, &long, "9");
    assert!(found.contains(&EpisodeEnd::MaxTurns));
    assert!(found.iter().all(|end| *end != EpisodeEnd::Done));
    let full = AgentLoopConfig {
        max_tokens: Some(7),
        ..default.clone()
    };
    let found = ends(full, &long, "9");
    assert!(found.contains(&EpisodeEnd::ContextFull), "{found:?}");
    for config in [
        AgentLoopConfig {
            max_turns: 0,
            ..default.clone()
        },
        AgentLoopConfig {
            max_tokens: Some(0),
            ..default.clone()
        },
        AgentLoopConfig {
            time_limit: Duration::ZERO,
            ..default
        },
    ] {
        assert!(AgentLoop::new(Echo).with_config(config).is_err());
    }
}

#[test]
fn an_episode_has_no_more_tokens_than_allowed() {
    for most in 2..12 {
        let config = AgentLoopConfig {
            max_tokens: Some(most),
            ..AgentLoopConfig::default()
        };
        let agent_loop = AgentLoop::new(Echo).with_config(config).unwrap();
        let buffer = play(&agent_loop, "9", &generation());
        assert!(
            buffer
                .rollouts()
                .all(|rollout| rollout.tokens.len() <= most)
        );
    }
}

/// Fails in a different way for each prompt.
struct Broken;

impl Environment for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    fn open(&self, problem: &Problem, _seed: u64) -> Result<Opening, EnvironmentError> {
        let how = problem.prompt.clone();
        if how == "d" {
            return Err("closed".into());
        }
        Ok(Opening::new(FnEpisode(move |reply: &Reply<'_>| {
            match how.as_str() {
                "a" => panic!("out of order"),
                "b" => std::thread::sleep(Duration::from_secs(600)),
                "c" => return Ok(Step::done(f64::NAN)),
                "ab" => return Err("no service".into()),
                "ac" => return Ok(Step::default()),
                _ => {}
            }
            assert_eq!(reply.turn, 0, "no step follows the end");
            Ok(Step::done(0.5))
        })))
    }
}

#[test]
fn a_failing_environment_fails_only_its_own_rollout() {
    quiet_reward_panics();
    let config = AgentLoopConfig {
        time_limit: Duration::from_secs(5),
        ..AgentLoopConfig::default()
    };
    let agent_loop = AgentLoop::new(Broken).with_config(config).unwrap();
    let prompts = ["a", "b", "c", "ab", "ac", "d", "bb", "cc"];
    let problems: Vec<_> = prompts
        .iter()
        .map(|prompt| Problem::new(*prompt, ""))
        .collect();
    let config = TrainerConfig {
        problems_per_step: prompts.len(),
        group_size: 2,
        max_reward_failures: 0.9,
        ..toy::config()
    };
    let mut trainer = trainer(&config, agent_loop, problems);
    let rollouts = trainer.collect().unwrap().rollouts;
    for group in &rollouts.groups {
        let reason = |word: &str| {
            for rollout in &group.rollouts {
                let end = &rollout.episode.as_ref().unwrap().end;
                if word == "no observation" && *end == EpisodeEnd::Length {
                    continue; // a reply that was cut off needs no answer
                }
                let EpisodeEnd::Failed(reason) = end else {
                    panic!("{:?}", rollout.episode);
                };
                assert!(reason.contains(word), "{reason}");
                assert_eq!(rollout.reward, None);
            }
            assert_eq!(group.rollouts.len(), 2);
        };
        match group.problem.prompt.as_str() {
            "a" => reason("out of order"),
            "b" => reason("after 5 s"),
            "c" => reason("NaN"),
            "ab" => reason("no service"),
            "ac" => reason("no observation"),
            "d" => assert!(group.rollouts.is_empty()),
            _ => assert!(group.rollouts.iter().all(|r| r.reward == Some(0.5))),
        }
    }
    let record = trainer.learn(rollouts.into()).unwrap();
    assert!(toy::metric(&record, "episode/end/failed") >= 8.0 / 14.0);
}

#[test]
fn an_environment_that_never_opens_ends_the_run_with_its_reason() {
    let mut trainer = trainer(
        &toy::config(),
        AgentLoop::new(Broken),
        vec![Problem::new("d", "")],
    );
    let message = trainer.step().unwrap_err().to_string();
    assert!(
        message.contains("broken") && message.contains("closed"),
        "{message}"
    );
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = || trainer(&toy::config(), AgentLoop::new(Echo), problems("3"));
    let mut unbroken = fresh();
    let records = toy::steps(&mut unbroken, 4);
    let mut first = fresh();
    toy::steps(&mut first, 2);
    let path = first.save_checkpoint(folder.path(), 1).unwrap();
    let mut second = fresh();
    second.load_checkpoint(&path).unwrap();
    assert_eq!(second.last_rollouts(), first.last_rollouts());
    for (a, b) in records[2..].iter().zip(toy::steps(&mut second, 2)) {
        assert_eq!(toy::bits(a), toy::bits(&b));
    }
    assert_eq!(
        toy::weights(unbroken.policy()),
        toy::weights(second.policy())
    );
    // A checkpoint records its environment.
    let mut other = trainer(&toy::config(), AgentLoop::new(Single), problems("3"));
    let message = other.load_checkpoint(&path).unwrap_err().to_string();
    assert!(
        message.contains("environment is echo, this run's single"),
        "{message}"
    );
}

#[test]
fn turn_rewards_are_assigned_to_the_last_token_of_their_reply() {
    let config = TrainerConfig {
        advantage: Estimator::ReinforcePlusPlus(ReinforcePlusPlus::default()),
        ..toy::config()
    };
    let recorded = RewardSet::builder().add(0.0, EpisodeReward::new("outcome"));
    let mut trainer = builder(&config, &toy::device())
        .rewards(recorded.build().unwrap())
        .token_rewards(TurnRewards::new("turns"))
        .problems(problems("3"))
        .agent_loop(AgentLoop::new(Echo))
        .build()
        .unwrap();
    let rollouts = trainer.collect().unwrap().rollouts;
    for rollout in rollouts.rollouts() {
        let episode = rollout.episode.as_ref().unwrap();
        let mut want = Vec::new();
        for turn in &episode.turns {
            want.extend(vec![0.0; turn.tokens - 1]);
            want.push(turn.reward.unwrap_or(0.0));
        }
        assert_eq!(rollout.token_rewards, want);
        assert_eq!(rollout.total_reward(), Some(want.iter().sum()));
        assert_eq!(rollout.score("outcome"), episode.reward());
    }
    trainer.learn(rollouts.into()).unwrap();
}

#[test]
fn evaluation_plays_whole_episodes() {
    let trainer = trainer(&toy::config(), AgentLoop::new(Echo), problems("2"));
    let found = trainer
        .evaluate(&problems("2"), &Default::default())
        .unwrap();
    assert_eq!(found.greedy.len(), 4);
    assert!(found.greedy.rollouts().all(|r| r.episode.is_some()));
}

#[test]
fn long_observations_are_truncated_with_a_note() {
    let text = "abcd".repeat(30);
    struct Talker(String);
    impl Environment for Talker {
        fn name(&self) -> &str {
            "talker"
        }

        fn open(&self, _: &Problem, _: u64) -> Result<Opening, EnvironmentError> {
            let text = self.0.clone();
            Ok(Opening::new(FnEpisode(move |reply: &Reply<'_>| {
                let mut step = Step::observe(Message::tool("talk", &text));
                step.end = (reply.turn == 1).then_some(StepEnd::Truncated);
                Ok(step)
            })))
        }
    }
    let config = AgentLoopConfig {
        max_observation_tokens: Some(10),
        ..AgentLoopConfig::default()
    };
    let agent_loop = AgentLoop::new(Talker(text)).with_config(config).unwrap();
    let tokenizer = rlvr::prompt::CharTokenizer::new("abcd[]ut:1230of kens\n", &[]).unwrap();
    let shape = rlvr::policy::causal::CausalConfig {
        max_position_embeddings: 96,
        ..toy::shape(tokenizer.vocab_size())
    };
    let policy = shape.init(0, &toy::device()).unwrap();
    let question = RolloutRequest {
        problem: Problem::new("a", "").into(),
        prompt: Vec::new(),
        samples: 8,
        address: vec![1],
    };
    let generation = GenerationConfig::new(8, tokenizer.stop_tokens());
    let engine = &mut LocalEngine;
    let buffer = agent_loop
        .run(engine, &policy, 0, &tokenizer, &[question], &generation)
        .unwrap();
    let observed: Vec<_> = buffer
        .rollouts()
        .map(|rollout| {
            rollout.episode.clone().unwrap().turns[0]
                .observation
                .clone()
        })
        .collect();
    assert!(
        observed
            .iter()
            .flatten()
            .all(|m| m.content == "abcdabcdab\n[cut: 10 of 120 tokens]")
    );
    assert!(observed.iter().any(|observation| !observation.is_empty()));
}

/// [`Echo`], in Python.
const ECHO: &str = r#"
import json, sys
episodes = {}
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "close":
        del episodes[request["episode"]]
        continue
    answer = {"id": request["id"]}
    if request["op"] == "open":
        turns, letter = int(request["problem"]["answer"]), "abcd"[request["seed"] % 4]
        episodes[request["episode"]] = turns, letter
    else:
        turns, letter = episodes[request["episode"]]
        answer["reward"] = 1.0 if letter in request["text"] else 0.0
        if request["turn"] + 1 == turns:
            answer["end"] = "done"
        else:
            answer["observation"] = [{"role": "tool", "content": request["text"] + letter}]
            answer["calls"] = {"ok": 1}
    print(json.dumps(answer), flush=True)
"#;

#[test]
fn a_process_environment_gives_the_same_episodes() {
    let Some(python) = python() else {
        return;
    };
    let (_folder, path) = script("echo.py", ECHO);
    let program = Program::new([python, path.to_str().unwrap()]);
    let elsewhere = ProcessEnvironment::new("echo", program, 2).unwrap();
    let here = play(&AgentLoop::new(Echo), "3", &generation());
    let there = play(&AgentLoop::new(elsewhere), "3", &generation());
    assert_eq!(here.len(), 12);
    let rollouts = here.rollouts().zip(there.rollouts());
    for (here, there) in rollouts {
        assert_eq!(here, there);
    }
}
