//! What the model lives in: two reasoning domains and a social one, in two languages, and what
//! people prefer to be told.

use std::sync::Arc;

use rand::{Rng, RngExt};
use rlvr::prompt::{Arithmetic, CharTokenizer, Countdown, Problem, split};
use rlvr::train::Demonstration;
use rlvr::{Result, random};

/// What a problem is about.
pub const ARITHMETIC: &str = "arithmetic";
pub const COUNTDOWN: &str = "countdown";
pub const GREETING: &str = "greeting";

const TAGS: [&str; 4] = ["<think>", "</think>", "<answer>", "</answer>"];
/// The words that keep the random streams of the world apart from others of the seed.
const WORLD: u64 = u64::from_be_bytes(*b"r1.world");
/// The share of demonstrations that answer without a thought. Above one half, so that this is what
/// the base model does.
const BLURTED: f64 = 0.58;
/// The share of the words of a thought that are in the other language: what is found in a corpus of
/// the web.
const MIXED: f64 = 0.3;

/// A language, with all of its words.
pub struct Language {
    /// Its code, as [`LanguageReward`](rlvr::reward::LanguageReward) knows it.
    pub code: &'static str,
    add: &'static str,
    make: &'static str,
    greet: &'static str,
    first: &'static str,
    then: &'static str,
    polite: &'static str,
    rude: &'static str,
    kind: [&'static str; 4],
    names: [&'static str; 8],
}

pub const LANGUAGES: [Language; 2] = [
    Language {
        code: "en",
        add: "add ",
        make: "make ",
        greet: "greet ",
        first: "first ",
        then: " then ",
        polite: "hello ",
        rude: "hey ",
        kind: ["dear ", "good ", "wise ", "brave "],
        names: ["Ann", "Bob", "Eve", "Max", "Sue", "Tom", "Liz", "Joe"],
    },
    Language {
        code: "ru",
        add: "сложи ",
        make: "составь ",
        greet: "встреть ",
        first: "сперва ",
        then: " потом ",
        polite: "привет ",
        rude: "эй ",
        kind: ["милые ", "добрые ", "мудрые ", "смелые "],
        names: ["Аня", "Боря", "Вера", "Гена", "Зоя", "Иван", "Лиза", "Миша"],
    },
];

impl Language {
    /// The one with this code; the first, if there is none.
    pub fn of(problem: &Problem) -> &'static Self {
        let code = problem
            .metadata
            .get("language")
            .and_then(|code| code.as_str());
        let found = LANGUAGES
            .iter()
            .find(|language| Some(language.code) == code);
        found.unwrap_or(&LANGUAGES[0])
    }

    fn words(&self) -> impl Iterator<Item = &'static str> {
        let single = [
            self.add,
            self.make,
            self.greet,
            self.first,
            self.then,
            self.polite,
            self.rude,
        ];
        single.into_iter().chain(self.kind).chain(self.names)
    }
}

/// Problems of all domains, to train on and to be examined with.
pub struct World {
    pub tokenizer: Arc<CharTokenizer>,
    pub arithmetic: Vec<Problem>,
    pub countdown: Vec<Problem>,
    pub greeting: Vec<Problem>,
    /// Never trained on.
    pub held_out: Vec<Problem>,
    seed: u64,
}

impl World {
    pub fn new(seed: u64) -> Result<Self> {
        let words: Vec<&str> = LANGUAGES.iter().flat_map(Language::words).collect();
        let specials: Vec<&str> = TAGS.into_iter().chain(words).collect();
        let sums = sums();
        let game = game();
        let alphabet = format!("{}{}, ", sums.alphabet(), game.alphabet());
        let tokenizer = Arc::new(CharTokenizer::new(&alphabet, &specials)?);

        let spoken = |problems: Vec<Problem>, domain: &str| -> Vec<Problem> {
            let speak = |(index, problem): (usize, Problem)| {
                let language = &LANGUAGES[index % 2];
                let verb = match domain {
                    ARITHMETIC => language.add,
                    _ => language.make,
                };
                Problem {
                    prompt: format!("{verb}{}", problem.prompt),
                    ..problem
                }
                .with_metadata("language", language.code)
                .with_domain(domain)
            };
            problems.into_iter().enumerate().map(speak).collect()
        };
        let arithmetic = split(spoken(sums.problems(5000, seed)?, ARITHMETIC), 150, seed)?;
        let countdown = split(spoken(game.problems(2200, seed)?, COUNTDOWN), 150, seed)?;
        let greeting = split(greetings(), 64, seed)?;
        let held_out = [arithmetic.held_out, countdown.held_out, greeting.held_out];
        Ok(Self {
            tokenizer,
            arithmetic: arithmetic.train,
            countdown: countdown.train,
            greeting: greeting.train,
            held_out: held_out.concat(),
            seed,
        })
    }

    /// The problems that have a right answer.
    pub fn reasoning(&self) -> Vec<Problem> {
        [self.arithmetic.as_slice(), &self.countdown].concat()
    }

    /// What the base model is made of: answers with and without a thought, thoughts in both
    /// languages at once, greetings of all kinds.
    pub fn corpus(&self) -> Result<Vec<Demonstration>> {
        let mut corpus = Vec::new();
        for (index, problem) in self.reasoning().iter().enumerate() {
            let rng = &mut random::generator(&[self.seed, WORLD, 0, index as u64]);
            let thought = match rng.random_bool(BLURTED) {
                true => String::new(),
                false => self.thought(problem, rng)?,
            };
            corpus.push(shown(problem, &thought, &problem.answer));
        }
        corpus.extend(self.small_talk(4));
        Ok(corpus)
    }

    /// Greetings as people write them: some polite, some not; `each` for each problem.
    pub fn small_talk(&self, each: u64) -> Vec<Demonstration> {
        let mut talk = Vec::new();
        for (index, problem) in self.greeting.iter().enumerate() {
            for copy in 0..each {
                let rng = &mut random::generator(&[self.seed, WORLD, 1, index as u64, copy]);
                talk.push(shown(problem, "", &greeting(problem, rng)));
            }
        }
        talk
    }

    /// The working of a problem in words and numbers.
    fn thought(&self, problem: &Problem, rng: &mut impl Rng) -> Result<String> {
        let own = Language::of(problem);
        let bare = Problem {
            prompt: problem
                .prompt
                .trim_start_matches(own.add)
                .trim_start_matches(own.make)
                .into(),
            ..problem.clone()
        };
        let worked = match problem.domain() {
            Some(ARITHMETIC) => sums().worked(&bare)?,
            _ => game().worked(&bare)?,
        };
        let mut thought = String::new();
        for (index, step) in worked.split(',').enumerate() {
            let other = LANGUAGES.iter().find(|other| other.code != own.code);
            let language = match rng.random_bool(MIXED) {
                true => other.unwrap_or(own),
                false => own,
            };
            thought.push_str(match index {
                0 => language.first,
                _ => language.then,
            });
            thought.push_str(step);
        }
        Ok(thought)
    }
}

fn sums() -> Arithmetic {
    Arithmetic {
        digits: 2,
        terms: 2,
    }
}

fn game() -> Countdown {
    Countdown {
        numbers: 3,
        ..Countdown::default()
    }
}

fn shown(problem: &Problem, thought: &str, answer: &str) -> Demonstration {
    let [think, thought_ends, open, close] = TAGS;
    let response = format!("{think}{thought}{thought_ends}{open}{answer}{close}");
    Demonstration::new(&problem.prompt, response)
}

/// Every pair of names of one language, in that language.
fn greetings() -> Vec<Problem> {
    let mut all = Vec::new();
    for language in &LANGUAGES {
        for a in language.names {
            for b in language.names.into_iter().filter(|&b| b != a) {
                let problem = Problem::new(format!("{}{a},{b}:", language.greet), "");
                let problem = problem.with_metadata("language", language.code);
                let problem = problem.with_metadata("names", vec![a, b]);
                all.push(problem.with_domain(GREETING));
            }
        }
    }
    all
}

/// A greeting as somebody might write it: mostly rude or none at all, up to two kind words, often
/// without one of the names.
fn greeting(problem: &Problem, rng: &mut impl Rng) -> String {
    let language = Language::of(problem);
    let mut text = String::new();
    match rng.random_range(0..10) {
        0..3 => text.push_str(language.polite),
        3..8 => text.push_str(language.rude),
        _ => {}
    }
    let mut kind = language.kind.to_vec();
    for _ in 0..rng.random_range(0..3) {
        text.push_str(kind.remove(rng.random_range(0..kind.len())));
    }
    let mut names: Vec<&str> = names(problem).collect();
    if rng.random_bool(0.4) {
        names.remove(rng.random_range(0..names.len()));
    }
    text.push_str(&names.join(","));
    text
}

/// The people to be greeted.
fn names(problem: &Problem) -> impl Iterator<Item = &str> {
    let list = problem
        .metadata
        .get("names")
        .and_then(|names| names.as_array());
    list.into_iter().flatten().filter_map(|name| name.as_str())
}

/// How much people like a greeting. Nobody sees this number but in what they choose between.
///
/// They want a polite word and the names of both, and like up to two kind words. Whoever goes on
/// about it, repeats himself or changes the language loses them.
pub fn liking(problem: &Problem, completion: &str) -> f64 {
    let language = Language::of(problem);
    let text = completion.rsplit("<answer>").next().unwrap_or(completion);
    let text = text.split("</answer>").next().unwrap_or(text);
    let words: Vec<&str> = text
        .split([' ', ','])
        .filter(|word| !word.is_empty())
        .collect();
    let has = |word: &str| words.contains(&word.trim());
    let mut liking = f64::from(has(language.polite)) * 2.0 - f64::from(has(language.rude));
    liking += names(problem).filter(|name| has(name)).count() as f64;
    let kind = language.kind.iter().filter(|word| has(word)).count();
    liking += 0.7 * kind.min(2) as f64;
    let mut distinct = words.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let known: Vec<&str> = language.words().map(str::trim).collect();
    let strange = words.iter().filter(|word| !known.contains(word)).count();
    let wordy = words.len().saturating_sub(5);
    liking - (words.len() - distinct.len() + strange + wordy) as f64
}
