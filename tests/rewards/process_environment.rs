//! Environments in other programs: the documented example, and processes that hang, end or send
//! invalid messages. With `RLVR_REASONING_GYM_PYTHON` set to a Python that has the package
//! `reasoning_gym`, its script is tested as well.

use std::path::Path;
use std::time::Duration;

use rlvr::environment::process::{ProcessEnvironment, Program};
use rlvr::environment::{Environment, Message, Opening, Reply, Step, StepEnd};
use rlvr::prompt::Problem;
use rlvr::types::FinishReason;
use serde_json::{Value, json};

use crate::scripts::{python, script};

fn program(python: &str, script: &Path) -> Program {
    Program {
        time_limit: Duration::from_secs(60),
        ..Program::new([python, script.to_str().unwrap()])
    }
}

fn reply(text: &str, turn: usize) -> Reply<'_> {
    Reply {
        text,
        finish: FinishReason::Stop,
        turn,
    }
}

fn step(opening: &mut Opening, text: &str) -> Result<Step, String> {
    let step = opening.episode.step(&reply(text, 0));
    step.map_err(|error| error.to_string())
}

/// The error of an opening that fails.
fn refusal(environment: &ProcessEnvironment, problem: &Problem) -> String {
    match environment.open(problem, 0) {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    }
}

/// The Python block of the module's documentation.
fn documented() -> String {
    let source = include_str!("../../src/environment/process/mod.rs");
    let lines = source.lines().map(|line| {
        let line = line.strip_prefix("//!").unwrap_or_default();
        line.strip_prefix(' ').unwrap_or(line)
    });
    let block = lines
        .skip_while(|line| *line != "```python")
        .skip(1)
        .take_while(|line| *line != "```");
    block.map(|line| format!("{line}\n")).collect()
}

fn guess(most: u64) -> Problem {
    Problem::new("", "").with_metadata("most", most)
}

/// Finds the number; returns the count of replies.
fn bisect(environment: &ProcessEnvironment, most: u64, seed: u64) -> (u64, usize) {
    let mut opening = environment.open(&guess(most), seed).unwrap();
    let text = format!("Guess a number from 0 to {most}.");
    assert_eq!(opening.messages, [Message::user(text)]);
    let (mut low, mut high, mut turn) = (0, most, 0);
    loop {
        let middle = (low + high) / 2;
        let said = middle.to_string();
        let step = opening.episode.step(&reply(&said, turn)).unwrap();
        turn += 1;
        if step.end == Some(StepEnd::Done) {
            assert_eq!(step.reward, Some(1.0));
            return (middle, turn);
        }
        assert_eq!(step.reward, None);
        match step.observation[0].content.as_str() {
            "higher" => low = middle + 1,
            "lower" => high = middle - 1,
            other => panic!("{other}"),
        }
    }
}

#[test]
fn the_documented_example_plays_many_episodes_at_once() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("environment.py", &documented());
    let environment = ProcessEnvironment::new("guess", program(python, &path), 2).unwrap();
    let environment = &environment;
    let found: Vec<(u64, usize)> = std::thread::scope(|scope| {
        let games: Vec<_> = (0..12)
            .map(|seed| scope.spawn(move || bisect(environment, 1000, seed / 2)))
            .collect();
        games.into_iter().map(|game| game.join().unwrap()).collect()
    });
    // Equal seeds have equal numbers, different seeds different ones.
    assert!(found.chunks(2).all(|pair| pair[0] == pair[1]));
    let mut numbers: Vec<u64> = found.iter().map(|(number, _)| *number).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 6);
    assert!(found.iter().all(|(_, turns)| *turns <= 10));
}

#[test]
fn an_error_fails_only_its_request() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("environment.py", &documented());
    let environment = ProcessEnvironment::new("guess", program(python, &path), 1).unwrap();
    let mut other = environment.open(&guess(0), 0).unwrap();
    let error = refusal(&environment, &Problem::new("", ""));
    assert!(
        error.contains("environment.py: open: KeyError: 'most'"),
        "{error}"
    );
    let step = step(&mut other, "0").unwrap();
    assert_eq!((step.reward, step.end), (Some(1.0), Some(StepEnd::Done)));
}

/// Follows the reply.
const OBEDIENT: &str = r#"
import json, os, sys, time
print("a warning", file=sys.stderr, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    text = request.get("text", "")
    if "id" not in request:
        continue
    answer = {"id": request["id"], "observation": str(os.getpid())} if request["op"] == "step" else {"id": request["id"]}
    if text == "hang":
        time.sleep(600)
    elif text == "die":
        print("Traceback (most recent call last): it hurts", file=sys.stderr, flush=True)
        os._exit(3)
    elif text == "rubbish":
        print("loading ...", flush=True)
    elif text == "unknown":
        print(json.dumps({"id": 12345}), flush=True)
    elif text == "nan":
        answer["reward"] = float("nan")
    elif text == "long":
        print("x" * (17 << 20), flush=True)
    elif text == "slow":
        time.sleep(1)
    elif text == "large":
        answer["observation"] = "y" * (1 << 20)
    elif text == "misspelt":
        answer["rewards"] = 1
    elif len(text) > 1000:
        answer["observation"] = str(len(text))
    print(json.dumps(answer), flush=True)
"#;

#[test]
fn a_failed_process_fails_its_episodes_and_is_restarted() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("environment.py", OBEDIENT);
    let program = Program {
        time_limit: Duration::from_secs(5),
        ..program(python, &path)
    };
    let environment = ProcessEnvironment::new("obedient", program, 2).unwrap();
    let open = || environment.open(&Problem::new("p", ""), 0).unwrap();
    let mut bystander = open();
    let pid = step(&mut bystander, "").unwrap().observation;
    for (text, expected) in [
        (
            "hang",
            "did not answer within 5 s; its standard error: a warning",
        ),
        (
            "die",
            "it ended (exit status: 3); its standard error: a warning\nTraceback (most recent call last): it hurts",
        ),
        (
            "rubbish",
            "it wrote \"loading ...\"; expected a JSON object on one line",
        ),
        ("unknown", "it wrote \"{\\\"id\\\": 12345}\""),
        ("nan", "NaN"),
        ("long", "a line of 16777216 bytes or more"),
    ] {
        // Two of three have the other process.
        let mut others = vec![open(), open(), open()];
        others.retain_mut(|other| step(other, "").unwrap().observation != pid);
        let [opening, neighbour] = others.as_mut_slice() else {
            panic!("{} are elsewhere", others.len());
        };
        let error = step(opening, text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.starts_with(&format!("{python} ")), "{error}");
        assert!(error.contains("environment.py: "), "{error}");
        assert_eq!(step(neighbour, "").unwrap_err(), error);
        // The other process continues, and the next episode gets a new process.
        assert_eq!(step(&mut bystander, "").unwrap().observation, pid, "{text}");
        step(&mut open(), "").unwrap();
    }
}

#[test]
fn an_unknown_field_fails_the_episode_but_not_the_process() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("environment.py", OBEDIENT);
    let environment = ProcessEnvironment::new("obedient", program(python, &path), 1).unwrap();
    let mut opening = environment.open(&Problem::new("p", ""), 0).unwrap();
    assert!(opening.messages.is_empty());
    let pid = step(&mut opening, "").unwrap().observation;
    let error = step(&mut opening, "misspelt").unwrap_err();
    assert!(
        error.contains("unknown field `rewards`, expected one of"),
        "{error}"
    );
    assert_eq!(step(&mut opening, "").unwrap().observation, pid);
    // Large messages do not block either pipe.
    let text = "z".repeat(1 << 20);
    assert_eq!(
        step(&mut opening, &text).unwrap().observation[0].content,
        "1048576"
    );
    let large = step(&mut opening, "large").unwrap();
    assert_eq!(large.observation[0].content.len(), 1 << 20);
}

#[test]
fn time_spent_waiting_for_other_requests_does_not_count() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("environment.py", OBEDIENT);
    let program = Program {
        time_limit: Duration::from_millis(4500),
        ..program(python, &path)
    };
    let environment = ProcessEnvironment::new("obedient", program, 1).unwrap();
    let environment = &environment;
    // Together they take longer than the limit; each takes one second.
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let mut opening = environment.open(&Problem::new("p", ""), 0).unwrap();
                step(&mut opening, "slow").unwrap();
            });
        }
    });
}

#[test]
fn a_program_that_cannot_be_started_is_an_error() {
    let new = |program: Program, processes: usize| {
        let made = ProcessEnvironment::new("x", program, processes);
        made.err().unwrap().to_string()
    };
    assert!(new(Program::new(["no-such-program-anywhere"]), 1).starts_with("no-such-program"));
    assert!(new(Program::new(["true"]), 0).contains("`process_environment.processes`: 0"));
    assert!(new(Program::default(), 1).contains("`program.command`"));
}

#[test]
fn a_program_that_ignores_the_end_of_its_input_is_killed() {
    let Some(python) = python() else { return };
    let (folder, path) = script(
        "environment.py",
        "import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\nos.rename(sys.argv[1], sys.argv[2])\ntime.sleep(600)\n",
    );
    let written = folder.path().join("pid");
    let program = program(python, &path)
        .argument(folder.path().join("part").to_str().unwrap())
        .argument(written.to_str().unwrap());
    let environment = ProcessEnvironment::new("sleeper", program, 1).unwrap();
    while !written.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = std::fs::read_to_string(&written).unwrap();
    let process = Path::new("/proc").join(pid);
    assert!(!cfg!(target_os = "linux") || process.exists());
    drop(environment);
    assert!(!process.exists());
}

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/scripts/reasoning_gym_environment.py"
);
const RECORDED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/environments/reasoning_gym.jsonl"
);

/// Problems with the replies to them.
fn gym_cases() -> Vec<(Problem, Vec<&'static str>)> {
    let problem = |metadata: Value| {
        let mut problem = Problem::new("", "");
        problem.metadata = metadata.as_object().unwrap().clone();
        problem
    };
    vec![
        (
            problem(json!({"task": "chain_sum", "index": 3, "seed": 7})),
            vec![
                "<answer>0</answer> or rather\n<answer>\n-14 </answer>",
                "-14",
                "<answer>-14",
            ],
        ),
        (
            problem(json!({"task": "n_queens", "index": 0})),
            vec!["<answer>__import__('os')._exit(0)</answer>"],
        ),
        (
            problem(json!({"task": "products", "entry":
                {"question": "2 * 3 =", "answer": "6", "metadata": {"source_dataset": "products"}}})),
            vec!["<answer>6</answer>", "<answer>7</answer>"],
        ),
        (
            Problem {
                prompt: "What is the greatest common divisor?".into(),
                ..problem(
                    json!({"task": "gcd", "index": 700, "seed": 1, "config": {"max_value": 30}}),
                )
            },
            vec!["<answer>1</answer>"],
        ),
        (problem(json!({"task": "no_such_task"})), vec![]),
        (problem(json!({"index": 1})), vec![]),
    ]
}

/// The replies of an environment to the cases.
fn converse(environment: &ProcessEnvironment) -> Vec<String> {
    let mut said = Vec::new();
    for (problem, replies) in gym_cases() {
        for text in replies.iter().copied().map(Some).chain([None]) {
            let mut opening = match environment.open(&problem, 5) {
                Ok(opening) => opening,
                Err(error) => {
                    let error = error.to_string();
                    said.push(error.rsplit(": open: ").next().unwrap().to_string());
                    continue;
                }
            };
            said.push(format!("{:?}", opening.messages));
            if let Some(text) = text {
                let step = opening.episode.step(&reply(text, 0)).unwrap();
                said.push(format!("{:?} {:?}", step.reward, step.end));
            }
        }
    }
    said
}

/// Plays a recorded conversation: each request must be the recorded one.
const PLAYER: &str = r#"
import json, sys
recorded = [json.loads(line) for line in open(sys.argv[1])]
for line, expected in zip(sys.stdin, recorded):
    request = json.loads(line)
    if request != expected["request"]:
        sys.exit(f"got {line}, expected {expected['request']}")
    if "answer" in expected:
        print(json.dumps(expected["answer"]), flush=True)
"#;

#[test]
fn the_recorded_conversation_with_reasoning_gym() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("environment.py", PLAYER);
    let program = program(python, &path).argument(RECORDED);
    let environment = ProcessEnvironment::new("recorded", program, 1).unwrap();
    let said = converse(&environment);
    let question =
        "State the final answer to the following arithmetic problem: 6 - 7 - 9 + 0 + 3 - 7 =";
    assert!(said[0].contains(question), "{}", said[0]);
    let done = |reward: &str| format!("Some({reward}) Some(Done)");
    let rewards: Vec<&String> = said
        .iter()
        .filter(|said| said.starts_with("Some"))
        .collect();
    let expected = ["1.0", "0.0", "0.0", "0.0", "1.0", "0.0"].map(done);
    assert_eq!(rewards[..6], expected.iter().collect::<Vec<_>>());
    assert_eq!(
        said[said.len() - 2..],
        [
            "ValueError: Dataset 'no_such_task' not registered",
            "ValueError: the problem's metadata has task = None; expected the name of a task"
        ]
    );
}

#[test]
#[cfg(all(target_os = "linux", feature = "code"))]
fn the_real_package_matches_the_recording_and_is_confined() {
    let Ok(python) = std::env::var("RLVR_REASONING_GYM_PYTHON") else {
        eprintln!("skipped: RLVR_REASONING_GYM_PYTHON names no Python with reasoning_gym");
        return;
    };
    let program = Program::confined_python(&python, SCRIPT)
        .unwrap()
        .argument("--score-seconds")
        .argument("2");
    if std::env::var_os("RLVR_BLESS").is_some() {
        // A script in between records the messages.
        let (_folder, path) = script("environment.py", RECORDER);
        let recorder = ["python3", path.to_str().unwrap(), RECORDED, &python, SCRIPT];
        converse(&ProcessEnvironment::new("recorder", Program::new(recorder), 1).unwrap());
    }
    let real = ProcessEnvironment::new("reasoning_gym", program, 2).unwrap();
    let (_folder, path) = script("environment.py", PLAYER);
    let player = Program::new(["python3", path.to_str().unwrap(), RECORDED]);
    let recorded = ProcessEnvironment::new("recorded", player, 1).unwrap();
    assert_eq!(converse(&real), converse(&recorded));

    // An evaluated answer cannot write files or run forever.
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let queens = gym_cases()[1].0.clone();
    let attack = format!("<answer>open({mark:?}, 'w').close()</answer>");
    let unconfined = Program::new([&*python, SCRIPT]);
    let unconfined = ProcessEnvironment::new("unconfined", unconfined, 1).unwrap();
    step(&mut unconfined.open(&queens, 5).unwrap(), &attack).unwrap();
    // So the answer is evaluated.
    std::fs::remove_file(&mark).unwrap();
    for text in [&*attack, "<answer>__import__('time').sleep(600)</answer>"] {
        let mut opening = real.open(&queens, 5).unwrap();
        let step = step(&mut opening, text).unwrap();
        assert_eq!((step.reward, step.end), (Some(0.0), Some(StepEnd::Done)));
        assert!(!mark.exists());
    }
    // An episode without an index has a different item for every seed.
    let any = Problem::new("", "").with_metadata("task", "chain_sum");
    let question = |seed: u64| real.open(&any, seed).unwrap().messages;
    assert_eq!(question(u64::MAX), question(u64::MAX));
    assert_ne!(question(1), question(2));
    // A truncated reply has a reward and does not end the episode.
    let mut opening = real.open(&any, 1).unwrap();
    let cut = Reply {
        finish: FinishReason::Length,
        ..reply("<answer>1", 0)
    };
    let step = opening.episode.step(&cut).unwrap();
    assert_eq!((step.reward, step.end), (Some(0.0), None));
}

/// Starts the program given as arguments and records its messages.
#[cfg(all(target_os = "linux", feature = "code"))]
const RECORDER: &str = r#"
import json, subprocess, sys
pipe = subprocess.PIPE
program = subprocess.Popen(sys.argv[2:], stdin=pipe, stdout=pipe, text=True)
with open(sys.argv[1], "w") as recorded:
    for line in sys.stdin:
        request = json.loads(line)
        said = {"request": request}
        program.stdin.write(line)
        program.stdin.flush()
        if "id" in request:
            answer = program.stdout.readline()
            said["answer"] = json.loads(answer)
            print(answer, end="", flush=True)
        recorded.write(json.dumps(said) + "\n")
"#;

#[test]
#[cfg(all(target_os = "linux", feature = "code"))]
fn a_confined_program_is_isolated_and_ends_with_its_environment() {
    let Some(python) = python() else { return };
    let (folder, path) = script(
        "environment.py",
        r#"
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "step":
        try:
            result = open(request["text"]).read()
        except OSError as error:
            result = type(error).__name__
        print(json.dumps({"id": request["id"], "observation": result}), flush=True)
    elif request["op"] == "open":
        print(json.dumps({"id": request["id"]}), flush=True)
"#,
    );
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let secret = secret.to_str().unwrap();
    let plain = ProcessEnvironment::new("plain", program(python, &path), 1).unwrap();
    let mut opening = plain.open(&Problem::new("p", ""), 0).unwrap();
    assert_eq!(
        step(&mut opening, secret).unwrap().observation[0].content,
        "secret"
    );

    let mut program = Program::confined_python(python, &path).unwrap();
    // Whatever confinement this machine has.
    program.sandbox = program.sandbox.map(|config| config.allow_less());
    // Built by a thread that has ended, opened by another.
    let environment = std::thread::scope(|scope| {
        let made = scope.spawn(|| ProcessEnvironment::new("confined", program, 1));
        made.join().unwrap().unwrap()
    });
    let mut opening = std::thread::scope(|scope| {
        let opened = scope.spawn(|| environment.open(&Problem::new("p", ""), 0));
        opened.join().unwrap().unwrap()
    });
    let seen = step(&mut opening, secret).unwrap().observation;
    assert!(
        ["FileNotFoundError", "PermissionError"].contains(&seen[0].content.as_str()),
        "{seen:?}"
    );
}
