//! Runs a stage: each has a folder, writes checkpoints there, and continues from the last one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use burn::tensor::Device;
use rlvr::loss::PolicyObjective;
use rlvr::policy::ValueHead;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::prompt::{CharTokenizer, Problem, Tokenizer};
use rlvr::reward::{
    AccuracyReward, CountdownReward, FnReward, FormatReward, LanguageReward, Missing, ModelReward,
    Reward, RewardInput, RewardOptions, RewardSet,
};
use rlvr::rollout::{GenerationConfig, LocalEngine, RolloutRequest, sample_rollouts};
use rlvr::train::observer::{MetricsFile, Observer, ProgressBar, read_metrics};
use rlvr::train::{
    Decay, Demonstration, DistillConfig, DistillData, Distiller, Evaluation, EvaluationConfig,
    KeptCompletion, Mixture, ModelTeacher, OptimizerConfig, Piecewise, PreferencePair,
    ProblemSource, RejectionConfig, RejectionReport, RejectionSampler, RewardModelConfig,
    RewardModelMetrics, RunCheckpoints, RunConfig, RunEnd, Schedule, SftConfig, SftRunConfig,
    SftTrainer, ShuffledProblems, StepSchedules, Trainer, TrainerConfig, evaluate,
    evaluate_reward_model, latest_checkpoint, read_kept, train_reward_model,
};
use rlvr::{Error, Result};

use crate::world::{ARITHMETIC, COUNTDOWN, GREETING, Language, World, liking};

/// The longest completions.
pub const MOST_TOKENS: usize = 72;
const METRICS: &str = "metrics.jsonl";

/// What all stages have in common.
pub struct Lab<'a> {
    pub out: &'a Path,
    pub world: &'a World,
    pub device: Device,
    pub seed: u64,
    pub stop: &'a AtomicBool,
    /// Every stage is this many times as long as by default.
    pub scale: f64,
}

/// Reinforcement of a stage.
pub struct Reinforcement<'a> {
    pub problems: Vec<(Piecewise, &'a [Problem])>,
    pub rewards: RewardSet,
    pub schedules: StepSchedules,
    pub steps: u64,
    pub rate: f64,
}

impl Lab<'_> {
    pub fn folder(&self, stage: &str) -> Result<PathBuf> {
        let folder = self.out.join(stage);
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(folder)
    }

    /// A model with random weights, of this width and depth.
    pub fn model(&self, width: usize, layers: usize) -> Result<CausalModel> {
        CausalConfig {
            hidden_size: width,
            intermediate_size: 3 * width,
            num_hidden_layers: layers,
            max_position_embeddings: 128,
            ..CausalConfig::new(self.tokenizer().vocab_size())
        }
        .init(self.seed, &self.device)
    }

    pub fn tokenizer(&self) -> Arc<CharTokenizer> {
        self.world.tokenizer.clone()
    }

    fn scaled(&self, steps: u64) -> u64 {
        ((steps as f64 * self.scale).round() as u64).max(2)
    }

    fn optimizer(&self, rate: f64, updates: u64) -> OptimizerConfig {
        let decay = Decay::Cosine {
            updates: updates.max(11),
            floor: 0.1,
        };
        OptimizerConfig {
            beta_2: 0.95,
            ..OptimizerConfig::new(Schedule::constant(rate).with_warmup(10).with_decay(decay))
        }
    }

    fn generation(&self) -> GenerationConfig {
        GenerationConfig::new(MOST_TOKENS, self.tokenizer().stop_tokens())
    }

    /// The metrics file of a stage and a progress bar.
    fn observers(&self, folder: &Path, done: u64) -> Result<Vec<Box<dyn Observer>>> {
        let file = folder.join(METRICS);
        let metrics = match done {
            0 => MetricsFile::create(file)?,
            done => MetricsFile::resume(file, done)?,
        };
        Ok(vec![Box::new(metrics), Box::new(ProgressBar::new())])
    }

    /// Learns demonstrations; `None` if it was stopped.
    pub fn learn(
        &self,
        stage: &str,
        policy: CausalModel,
        demonstrations: Vec<Demonstration>,
        steps: u64,
        rate: f64,
    ) -> Result<Option<CausalModel>> {
        let folder = self.folder(stage)?;
        let steps = self.scaled(steps);
        let config = SftConfig {
            steps,
            batch_size: 64,
            optimizer: self.optimizer(rate, steps),
            seed: self.seed,
            ..SftConfig::default()
        };
        let mut trainer = SftTrainer::new(policy, self.tokenizer(), demonstrations, config)?;
        let checkpoints = folder.join("checkpoints");
        if let Some(latest) = latest_checkpoint(&checkpoints)? {
            trainer.load_checkpoint(latest)?;
        }
        if trainer.steps_done() < steps {
            let run = SftRunConfig {
                title: stage.into(),
                checkpoints: Some(every(50, checkpoints)),
                ..SftRunConfig::default()
            };
            let mut observers = self.observers(&folder, trainer.steps_done())?;
            if trainer.run(&run, &mut observers, self.stop)? == RunEnd::Stopped {
                return Ok(None);
            }
        }
        Ok(Some(trainer.into_policy()))
    }

    /// Learns from rewards; `None` if it was stopped.
    pub fn reinforce(
        &self,
        stage: &str,
        policy: CausalModel,
        plan: Reinforcement<'_>,
    ) -> Result<Option<CausalModel>> {
        let folder = self.folder(stage)?;
        let steps = self.scaled(plan.steps);
        let config = TrainerConfig {
            seed: self.seed,
            problems_per_step: 24,
            group_size: 8,
            generation: self.generation(),
            objective: PolicyObjective::dapo(),
            optimizer: self.optimizer(plan.rate, steps),
            schedules: plan.schedules,
            ..TrainerConfig::default()
        };
        let sources = plan.problems.into_iter().zip(self.seed..);
        let sources = sources.map(|((weight, problems), seed)| {
            let source: Box<dyn ProblemSource> =
                Box::new(ShuffledProblems::new(problems.to_vec(), seed)?);
            Ok((weight, source))
        });
        let mixture = Mixture::new(self.seed, sources.collect::<Result<Vec<_>>>()?)?;
        let mut trainer = Trainer::builder(policy, self.tokenizer())
            .config(config)
            .rewards(plan.rewards)
            .problem_source(mixture)
            .build()?;
        let checkpoints = folder.join("checkpoints");
        if let Some(latest) = latest_checkpoint(&checkpoints)? {
            trainer.load_checkpoint(latest)?;
        }
        if trainer.steps_done() < steps {
            let run = RunConfig {
                steps,
                title: stage.into(),
                checkpoints: Some(every(20, checkpoints)),
                ..RunConfig::default()
            };
            let mut observers = self.observers(&folder, trainer.steps_done())?;
            if trainer.run(&run, &mut observers, self.stop)? == RunEnd::Stopped {
                return Ok(None);
            }
        }
        Ok(Some(trainer.into_policy()))
    }

    /// Samples completions and keeps those that are right, readable and in one language.
    pub fn reject(
        &self,
        stage: &str,
        policy: &CausalModel,
        problems: &[Problem],
        samples: usize,
    ) -> Result<(Vec<Demonstration>, RejectionReport)> {
        let config = RejectionConfig {
            samples,
            // Right, and in the form.
            min_reward: 2.0,
            most_per_problem: Some(1),
            seed: self.seed,
            batch: 64,
            ..RejectionConfig::default()
        };
        let held_out = self
            .world
            .held_out
            .iter()
            .map(|problem| problem.prompt.as_str());
        let sampler = RejectionSampler::new(config)?
            .keep_out(held_out)
            .rule("thoughtless", |_, rollout| {
                !rollout.text.contains("<think></think>")
            })
            .rule("language", |problem, rollout| {
                let input = RewardInput::new(&problem.prompt, "", &rollout.text);
                judge(problem)
                    .score(&input)
                    .is_ok_and(|share| share == Some(1.0))
            });
        let file = self.folder(stage)?.join("kept.jsonl");
        let report = sampler.run(
            &mut LocalEngine,
            &policy.valid(),
            self.tokenizer().as_ref(),
            &rules(false)?,
            problems,
            &self.generation(),
            &file,
        )?;
        let shown = |kept: KeptCompletion| Demonstration::new(kept.question, kept.response);
        Ok((read_kept(&file)?.into_iter().map(shown).collect(), report))
    }

    /// A reward model from what people choose between two greetings of `policy`, and how good it is
    /// on pairs that it has not seen.
    pub fn reward_model(
        &self,
        policy: &CausalModel,
    ) -> Result<(ValueHead<CausalModel>, RewardModelMetrics)> {
        let greetings = &self.world.greeting;
        let mut pairs = Vec::new();
        let sampled = self.samples(policy, greetings, 24)?;
        for (problem, texts) in greetings.iter().zip(sampled) {
            for two in texts.chunks_exact(2) {
                let [a, b] = [&two[0], &two[1]];
                let (likes_a, likes_b) = (liking(problem, a), liking(problem, b));
                if likes_a != likes_b {
                    let (chosen, rejected) = if likes_a > likes_b { (a, b) } else { (b, a) };
                    pairs.push(PreferencePair::new(&problem.prompt, chosen, rejected));
                }
            }
        }
        let held_out = pairs.split_off(pairs.len() * 9 / 10);
        let config = RewardModelConfig {
            epochs: 2,
            batch_size: 64,
            optimizer: self.optimizer(1e-3, 60),
            seed: self.seed,
            ..RewardModelConfig::default()
        };
        let mut model = ValueHead::new(policy.clone()).without_bias();
        let tokenizer = self.tokenizer();
        train_reward_model(&mut model, tokenizer.as_ref(), &pairs, &config, |_| true)?;
        let metrics = evaluate_reward_model(&model, tokenizer.as_ref(), &held_out, &config)?;
        Ok((model, metrics))
    }

    /// Sampled completions of each problem.
    fn samples(
        &self,
        policy: &CausalModel,
        problems: &[Problem],
        count: usize,
    ) -> Result<Vec<Vec<String>>> {
        let tokenizer = self.tokenizer();
        let questions: Vec<RolloutRequest> = (0..)
            .zip(problems)
            .map(|(index, problem)| {
                let address = [self.seed, u64::from_be_bytes(*b"r1.pairs"), index];
                RolloutRequest::new(problem.clone(), tokenizer.as_ref(), count, address)
            })
            .collect::<Result<_>>()?;
        let engine = &mut LocalEngine;
        let policy = policy.valid();
        let answers = sample_rollouts(
            engine,
            &policy,
            0,
            tokenizer.as_ref(),
            &questions,
            &self.generation(),
        )?;
        let texts = answers.groups.into_iter().map(|group| {
            group
                .rollouts
                .into_iter()
                .map(|rollout| rollout.text)
                .collect()
        });
        Ok(texts.collect())
    }

    /// What `policy` says, as demonstrations.
    pub fn imitate(
        &self,
        policy: &CausalModel,
        problems: &[Problem],
        count: usize,
    ) -> Result<Vec<Demonstration>> {
        let said = self.samples(policy, problems, count)?;
        let shown = problems.iter().zip(said).flat_map(|(problem, texts)| {
            let prompt = problem.prompt.clone();
            let shown = move |text| Demonstration::new(&prompt, text);
            texts.into_iter().map(shown)
        });
        Ok(shown.collect())
    }

    /// A student learns the teacher's distributions on its own completions; `None` if it was
    /// stopped.
    pub fn distil(
        &self,
        stage: &str,
        mut student: CausalModel,
        teacher: &CausalModel,
        problems: Vec<Problem>,
        steps: u64,
        rate: f64,
    ) -> Result<Option<CausalModel>> {
        let folder = self.folder(stage)?.join("student");
        let steps = self.scaled(steps);
        let config = DistillConfig {
            steps,
            batch_size: 96,
            generation: self.generation(),
            optimizer: self.optimizer(rate, steps),
            seed: self.seed,
            ..DistillConfig::default()
        };
        let teacher = ModelTeacher::new(teacher);
        let data = DistillData::problems(problems);
        let mut distiller = Distiller::new(&student, teacher, self.tokenizer(), data, config)?;
        if folder.exists() {
            distiller.restore(&mut student, &folder)?;
        }
        while distiller.steps_done() < steps {
            if self.stop.load(std::sync::atomic::Ordering::Relaxed) {
                distiller.save(&student, &folder)?;
                return Ok(None);
            }
            let report = distiller.step(&mut student)?;
            if report.step % 20 == 0 || report.step == steps {
                eprintln!(
                    "{stage} {}/{steps} | divergence {:.4}",
                    report.step, report.divergence
                );
                distiller.save(&student, &folder)?;
            }
        }
        Ok(Some(student))
    }

    /// Greedy answers to everything that was held out.
    pub fn examine(&self, policy: &CausalModel) -> Result<Evaluation> {
        evaluate(
            &policy.valid(),
            self.tokenizer().as_ref(),
            &rules(true)?,
            &self.world.held_out,
            &self.generation(),
            &EvaluationConfig::default(),
        )
    }

    /// Seconds of the steps of a stage, those before a restart included; `None` if it has no
    /// metrics.
    pub fn seconds(&self, stage: &str) -> Result<Option<f64>> {
        let file = self.out.join(stage).join(METRICS);
        if !file.exists() {
            return Ok(None);
        }
        let records = read_metrics(file)?;
        Ok(Some(
            records
                .iter()
                .filter_map(|record| record.get("time/step"))
                .sum(),
        ))
    }
}

fn every(steps: u64, folder: PathBuf) -> RunCheckpoints {
    RunCheckpoints {
        folder,
        every: steps,
        keep: 1,
    }
}

/// The judge of the language that a problem is asked in.
fn judge(problem: &Problem) -> LanguageReward {
    let code = Language::of(problem).code;
    // Both codes are known to the library.
    LanguageReward::new(code).unwrap_or_else(|_| unreachable!("{code}"))
}

/// Accuracy and form, and the language of the thoughts if that counts.
pub fn rules(language: bool) -> Result<RewardSet> {
    builder(language).build()
}

fn builder(language: bool) -> rlvr::reward::RewardSetBuilder {
    let (sums, game) = (AccuracyReward::new(), CountdownReward::new());
    let accuracy = FnReward::new("accuracy", move |input: &RewardInput| {
        match input.problem.domain() {
            Some(ARITHMETIC) => sums.score(input),
            Some(COUNTDOWN) => game.score(input),
            _ => Ok(None),
        }
    });
    let builder = RewardSet::builder()
        .add(1.0, accuracy)
        .add(1.0, FormatReward::new());
    match language {
        false => builder,
        true => {
            let share = FnReward::new("language", |input: &RewardInput| {
                judge(&input.problem).score(input)
            });
            // Who does not think mixes no languages, and is not paid for it.
            let options = RewardOptions::new()
                .with_domains([ARITHMETIC, COUNTDOWN])
                .with_on_abstain(Missing::Value(0.0));
            builder.add_with(1.0, share, options)
        }
    }
}

/// The same with a reward model for greetings.
pub fn rules_and_model(
    model: &ValueHead<CausalModel>,
    tokenizer: Arc<CharTokenizer>,
    weight: f64,
) -> Result<RewardSet> {
    let model = ModelReward::new(model.clone(), tokenizer).with_name("liked");
    let options = RewardOptions::new().with_domains([GREETING]);
    builder(true).add_with(weight, model, options).build()
}
