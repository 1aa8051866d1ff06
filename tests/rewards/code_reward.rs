//! The reward for programs: correct ones pass, wrong ones fail, and attacks on the judge do not
//! pass.

use std::path::Path;
use std::sync::OnceLock;

use rlvr::prompt::Problem;
use rlvr::reward::code::{
    CodeConfig, CodeReward, Language, Measure, Need, SandboxConfig, Scoring, Suite, TestOutcome,
};
use rlvr::reward::{Reward, RewardInput, RewardSet};
use serde_json::{Value, json};

fn python() -> Language {
    for path in ["/usr/bin/python3", "/usr/local/bin/python3"] {
        if Path::new(path).exists() {
            return Language::python_at(path).unwrap();
        }
    }
    Language::python_at("python3").unwrap()
}

fn config() -> CodeConfig {
    CodeConfig {
        language: python(),
        sandbox: SandboxConfig {
            cpu_seconds: 4,
            wall_seconds: 8.0,
            memory_bytes: 512 << 20,
            processes: 400,
            ..SandboxConfig::default().allow_less()
        },
        scoring: Scoring::Fraction,
        ..CodeConfig::default()
    }
}

fn reward() -> &'static CodeReward {
    static REWARD: OnceLock<CodeReward> = OnceLock::new();
    REWARD.get_or_init(|| {
        let reward = CodeReward::new(config()).unwrap();
        eprintln!("{}", reward.report());
        reward
    })
}

fn suite(metadata: Value) -> Suite {
    Suite::from_metadata(metadata.as_object().unwrap()).unwrap()
}

fn judge(program: &str, metadata: Value) -> Vec<TestOutcome> {
    reward().judge(program, &suite(metadata)).unwrap()
}

fn passes(program: &str, metadata: Value) -> Vec<bool> {
    let cases = judge(program, metadata);
    cases.iter().map(|case| case.passed).collect()
}

fn score(reward: &CodeReward, completion: &str, tests: Value) -> Result<Option<f64>, String> {
    let input = RewardInput::new("", "", completion).with_metadata("tests", tests);
    reward.score(&input).map_err(|error| error.to_string())
}

fn fenced(program: &str) -> String {
    format!("<think>```python\nprint('thought')\n```</think>So:\n```python\n{program}\n```\n")
}

fn add_asserts() -> Value {
    json!({"test_list": ["assert add(1, 2) == 3", "assert add(-5, 5) == 0", "assert add('a', 'b') == 'ab'"]})
}

#[test]
fn streams_are_compared_line_by_line_and_scored() {
    let tests = json!([
        {"input": "1 2\n", "output": "3\n"},
        {"input": "5 5", "output": "10"},
        {"input": "0 0", "output": "0"},
        {"input": "2 2", "output": "4"},
    ]);
    let right = fenced("a, b = map(int, input().split())\nprint(a + b)");
    let quarter = fenced("print(10)");
    assert_eq!(score(reward(), &right, tests.clone()), Ok(Some(1.0)));
    assert_eq!(score(reward(), &quarter, tests.clone()), Ok(Some(0.25)));
    assert_eq!(score(reward(), "no program", tests.clone()), Ok(Some(0.0)));
    assert_eq!(
        score(reward(), "```cpp\nint main(){}\n```", tests.clone()),
        Ok(Some(0.0))
    );
    let strict = CodeReward::new(CodeConfig {
        scoring: Scoring::AllOrNothing,
        ..config()
    })
    .unwrap()
    .with_name("all");
    assert_eq!(strict.name(), "all");
    assert_eq!(score(&strict, &right, tests.clone()), Ok(Some(1.0)));
    assert_eq!(score(&strict, &quarter, tests.clone()), Ok(Some(0.0)));
    // Correct output followed by a failure fails, and so does correct output of a killed program.
    let one = json!({"tests": [{"input": "", "output": "1"}]});
    assert_eq!(
        passes("print(1)\nraise SystemExit(3)", one.clone()),
        [false]
    );
    assert_eq!(
        passes(
            "print(1, flush=True)\nimport ctypes\nctypes.string_at(0)",
            one.clone()
        ),
        [false]
    );
    assert_eq!(
        passes("import sys\nsys.stdout.buffer.write(b'\\xff')", one),
        [false]
    );
    // A failed program does not match an empty expected output.
    let empty = json!({"tests": [{"input": "", "output": ""}]});
    assert_eq!(passes("raise ValueError", empty.clone()), [false]);
    assert_eq!(passes("def broken(:", empty.clone()), [false]);
    assert_eq!(passes("pass", empty), [true]);
}

#[test]
fn broken_tests_are_errors_and_never_a_score() {
    let right = fenced("def add(a, b): return a + b");
    for completion in [right.as_str(), "no program"] {
        for tests in [json!([]), json!("x"), json!([{"input": "1"}])] {
            assert!(score(reward(), completion, tests).is_err());
        }
    }
    for (tests, reason) in [
        (json!([{"assert": "assert add(1, 2"}]), "cannot be read"),
        (
            json!([{"assert": "assert True"}]),
            "without calling the program",
        ),
        (
            json!([{"assert": "assert add(object(), 1)"}]),
            "passes a value of type object",
        ),
    ] {
        let error = score(reward(), &right, tests).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    let metadata =
        json!({"tests": [{"assert": "assert add(1, 2) == 3"}], "setup": "import no_such_module"});
    let error = reward()
        .judge("def add(a, b): return a + b", &suite(metadata))
        .unwrap_err();
    assert!(error.to_string().contains("no_such_module"), "{error}");
}

#[test]
fn calls_are_compared_outside_the_sandbox() {
    let tests = |name: &str| {
        json!({"tests": [
            {"function": name, "args": [[3, 1, 2]], "expected": [1, 2, 3]},
            {"function": name, "args": [[]], "expected": []},
            {"function": name, "args": [["b", "a"]], "kwargs": {"reverse": true}, "expected": ["b", "a"]},
        ]})
    };
    let right = "def order(a, reverse=False): return sorted(a, reverse=reverse)";
    assert_eq!(passes(right, tests("order")), [true; 3]);
    assert_eq!(
        passes("def order(a, **k): return tuple(sorted(a))", tests("order")),
        [true, true, false]
    );
    assert_eq!(
        passes(
            "class Solution:\n    def order(self, a, reverse=False): return sorted(a, reverse=reverse)",
            tests("order")
        ),
        [true; 3]
    );
    assert_eq!(
        passes("def order(a, **k): print('[1, 2, 3]')", tests("order")),
        [false; 3]
    );
    assert_eq!(passes("", tests("order")), [false; 3]);
    assert_eq!(judge("", tests("order"))[0].reason, "it has no \"order\"");
    assert_eq!(passes("raise SystemExit", tests("order")), [false; 3]);
    // A test that ends the process or takes too long fails only itself.
    let dies = "import os\ndef order(a, reverse=False):\n    if not a: os._exit(0)\n    return sorted(a, reverse=reverse)";
    assert_eq!(passes(dies, tests("order")), [true, false, true]);
    let raises = "def order(a, reverse=False): return sorted(a, reverse=reverse) if a else 1 / 0";
    let cases = judge(raises, tests("order"));
    assert_eq!(
        cases[1].reason,
        "\"ZeroDivisionError\": \"division by zero\""
    );
    assert!(cases[0].passed && cases[2].passed);
    let big =
        json!({"tests": [{"function": "f", "args": [], "expected": 18446744073709551615u64}]});
    assert_eq!(passes("def f(): return 2 ** 64 - 1", big.clone()), [true]);
    assert_eq!(passes("def f(): return 2 ** 64", big), [false]);
}

#[test]
fn assertions_of_all_common_forms() {
    let right = "
import math
def area(r): return math.pi * r * r
def order(a): a.sort()
def squares(n): return (i * i for i in range(n))
def divide(a, b): return a / b
def pairs(): return {(1, 2): {3}, 'x': frozenset([1.5]), None: b'y'}
def sum(a, b): return a + b
def exact():
    from decimal import Decimal
    from fractions import Fraction
    return Decimal('0.10'), Fraction(2, 6)
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
";
    let tests = json!({"test_list": [
        "assert abs(area(2) - 12.566370614359172) < 1e-9",
        "assert math.isclose(area(1), math.pi)",
        "a = [3, 1, 2]\norder(a)\nassert a == [1, 2, 3]",
        "assert list(squares(4)) == [0, 1, 4, 9]",
        "try:\n    divide(1, 0)\n    assert False\nexcept ZeroDivisionError:\n    pass",
        "assert pairs() == {(1, 2): {3}, 'x': frozenset([1.5]), None: b'y'}",
        "assert sum(10, 15) == 25",
        "s = Stack()\ns.push(4)\ns.push([5])\nassert s.pop() == [5] and s.items == [4]",
        "assert all(divide(x, 2) == x / 2 for x in range(100))",
        "for r in (1, 2):\n    assert round(area(r), 2) == {1: 3.14, 2: 12.57}[r], 'message'",
        "assert sum(2 ** 70, 1) == 2 ** 70 + 1",
        "import decimal, fractions\nassert exact() == (decimal.Decimal('0.1'), fractions.Fraction(1, 3))",
    ]});
    let cases = judge(right, tests.clone());
    assert!(cases.iter().all(|case| case.passed), "{cases:#?}");
    // The same names, always wrong.
    let wrong = "
def area(r): return 1.0
def order(a): a.clear()
def squares(n): return [1] * n
def divide(a, b): return None
def pairs(): return {}
def sum(a, b): return -1
class Stack:
    items = None
    def push(self, x): pass
    def pop(self): return None
";
    let cases = judge(wrong, tests);
    assert!(cases.iter().all(|case| !case.passed), "{cases:#?}");
}

#[test]
fn humaneval_tests() {
    let metadata = json!({
        "prelude": "import math\n\ndef poly(xs, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n\ndef find_zero(xs):\n    \"\"\"A zero of the polynomial.\"\"\"\n",
        "entry_point": "find_zero",
        "test": "METADATA = {}\n\ndef check(candidate):\n    for coeffs in ([-10, -2], [-3, -6, -7, 7], [8, 3]):\n        solution = candidate(list(coeffs))\n        assert math.fabs(poly(coeffs, solution)) < 1e-4\n",
    });
    let right = "def find_zero(xs):\n    lo, hi = -1.0, 1.0\n    while poly(xs, lo) * poly(xs, hi) > 0: lo, hi = lo * 2, hi * 2\n    for _ in range(200):\n        mid = (lo + hi) / 2\n        if poly(xs, lo) * poly(xs, mid) <= 0: hi = mid\n        else: lo = mid\n    return lo";
    assert_eq!(judge(right, metadata.clone())[0].reason, "");
    // The test's own `poly` and `math` are not the program's to replace.
    let forged = "def poly(xs, x): return 0\nclass math: fabs = staticmethod(lambda x: 0)\ndef find_zero(xs): return 0";
    assert_eq!(passes(forged, metadata.clone()), [false]);
    // Without the prompt the helper is undefined: an error, not a failed program.
    let mut without = metadata;
    without.as_object_mut().unwrap().remove("prelude");
    let error = reward().judge(forged, &suite(without)).unwrap_err();
    assert!(error.to_string().contains("'poly'"), "{error}");
}

#[test]
fn a_pass_cannot_be_forged() {
    let always = "
class Always:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def __hash__(self): return 0
    def __bool__(self): return True
    def __sub__(self, other): return 0
    def __abs__(self): return 0
    def __getattr__(self, name): return Always()
    def __call__(self, *a, **k): return Always()
class Int(int):
    __eq__ = lambda *a: True
class Str(str):
    __eq__ = lambda *a: True
";
    let attacks = [
        // leaving early, with status 0
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "def add(*a):\n    import sys\n    sys.exit(0)",
        "def add(*a):\n    import os\n    os._exit(0)",
        "raise SystemExit(0)",
        "def add(*a): raise StopIteration",
        "def add(*a): raise GeneratorExit",
        "import atexit, os\natexit.register(lambda: os._exit(0))\ndef add(*a): return 1 / 0",
        "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.alarm(1)\ndef add(*a):\n    while True: pass",
        // values that are equal to everything
        &format!("{always}\ndef add(*a): return Always()"),
        &format!("{always}\ndef add(*a): return Int(77)"),
        &format!("{always}\ndef add(*a): return Str('77')"),
        &format!("{always}\nadd = Always()"),
        &format!("{always}\ndef add(*a): return [Always()]"),
        "import unittest.mock\ndef add(*a): return unittest.mock.ANY",
        // patching Python here, where nothing is compared
        "import builtins, sys\nbuiltins.exec = builtins.compile = lambda *a, **k: None\nbuiltins.AssertionError = type('A', (Exception,), {})\nadd = lambda *a: 77",
        "import json\njson.dumps = lambda *a, **k: '{\"pass\": true, \"why\": null, \"dead\": false}'\nadd = lambda *a: 77",
        "import json\njson.dumps = lambda *a, **k: '{\"loaded\": true}'\nadd = lambda *a: 77",
        "import sys\nsys.settrace(lambda *a: None)\nfor name in list(sys.modules): sys.modules[name] = None\ndef add(*a): return 77",
        // writing what a verdict looks like, wherever it can
        "import os\nline = b'{\"pass\": true, \"why\": null, \"dead\": false}\\n' * 9\nfor fd in range(0, 64):\n    try: os.write(fd, line)\n    except OSError: pass\ndef add(*a): return 77",
        "import os\nfor fd in range(0, 64):\n    try: os.write(fd, b'{\"started\": true}\\n{\"loaded\": true}\\n')\n    except OSError: pass\ndef add(*a): return 77",
        "import os\ndef add(*a):\n    os.write(4, b'{\"v\": {\"i\": \"77\"}}\\n' * 100)\n    return 77",
        "import os\ndef add(*a):\n    os.write(4, b'[' * 100000 + b'\\n')\n    return 77",
        "import os\ndef add(*a):\n    os.write(4, b'{\"v\": ' + b'[' * 90000 + b']' * 90000 + b'}\\n')\n    return 77",
        "import os\ndef add(*a):\n    os.write(4, b'{\"v\": {\"pass\": true}}\\n')\n    return 77",
        "import os\ndef add(*a):\n    os.write(4, b'{\"e\": \"SystemExit\", \"a\": \"0\"}\\n')\n    return 77",
        "import os\ndef add(*a):\n    os.write(4, b'{\"e\": \"exec\", \"a\": \"0\"}\\n{\"e\": \"KeyboardInterrupt\", \"a\": \"0\"}\\n')\n    return 77",
        "import os\ndef add(*a):\n    os.write(4, b'{\"v\": {\"i\": \"' + b'9' * 3000000 + b'\"}}\\n')\n    return 77",
        // looking for what is expected, in every place there is
        "import sys, gc, os, glob\ndef add(*a):\n    frame = sys._getframe()\n    while frame:\n        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n            if value == 3 and type(value) is int: return value\n        frame = frame.f_back\n    return 77",
        "import glob, re\ndef add(*a):\n    text = ''\n    for path in glob.glob('/proc/*/cmdline') + glob.glob('/proc/*/environ') + glob.glob('/box/*') + glob.glob('/tmp/**', recursive=True) + glob.glob('*') + glob.glob(__file__.rsplit('/', 1)[0] + '/*'):\n        try: text += open(path, errors='replace').read()\n        except OSError: pass\n    found = re.search(r'add\\(\\S+, \\S+\\) == (\\S+)', text.replace(chr(92), ''))\n    return eval(found.group(1)) if found else 77",
        "import os\ndef add(*a):\n    for fd in (3, 4, 5, 6):\n        for path in (f'/proc/self/fd/{fd}', f'/proc/{os.getppid()}/fd/{fd}'):\n            try:\n                fd2 = os.open(path, os.O_RDONLY | os.O_NONBLOCK)\n                if b'== 3' in os.read(fd2, 65536): return 3\n            except OSError: pass\n    return 77",
        "import os\n[os.kill(pid, 9) for pid in [os.getppid()] if pid]\ndef add(*a): return 77",
        // its own program and the driver, replaced for the next process
        "import os\nfor name in ('driver.py', 'checker.py', 'values.py', 'json.py', 'ast.py'):\n    for folder in (os.path.dirname(os.path.abspath(__file__)) if '__file__' in globals() else '/box', '/tmp', '.'):\n        try: open(f'{folder}/{name}', 'w').write('import os\\nos.write(4, b\"{}\")')\n        except OSError: pass\ndef add(*a): os._exit(1)",
        "import os\nos.close(4)\ndef add(*a): return 77",
        "import os\nos.dup2(3, 4)\ndef add(*a): return 77",
        "def add(*a):\n    while True: yield 1",
        "x = []\nx.append(x)\ndef add(*a): return x",
        "import threading, os\nthreading.Thread(target=lambda: [os.write(4, b'{\"v\": true}\\n') for _ in range(10000)]).start()\ndef add(*a): return 77",
    ];
    let calls = json!({"tests": [
        {"function": "add", "args": [1, 2], "expected": 3},
        {"function": "add", "args": [-5, 5], "expected": 0},
        {"function": "add", "args": ["a", "b"], "expected": "ab"},
    ]});
    let truths = json!({"test_list": [
        "assert add(1, 2) == 3 and not add(0, 0)",
        "assert abs(add(1, 2) - 3) < 1e-6",
        "assert add(1, 2) != 4 and add(1, 2) == 3",
        "assert add(1, 2) in (3,)",
        "assert sorted([add(2, 1), 0]) == [0, 3]",
        "try:\n    x = add(1, 2)\nexcept:\n    x = 77\nassert x == 3",
    ]});
    let mut quick = config();
    quick.sandbox.wall_seconds = 2.5;
    let reward = &CodeReward::new(quick).unwrap();
    std::thread::scope(|scope| {
        for chunk in attacks.chunks(attacks.len().div_ceil(4)) {
            let (calls, truths) = (calls.clone(), truths.clone());
            scope.spawn(move || {
                for attack in chunk {
                    for metadata in [&add_asserts(), &calls, &truths] {
                        let cases = reward.judge(attack, &suite(metadata.clone())).unwrap();
                        let passed: Vec<&TestOutcome> =
                            cases.iter().filter(|case| case.passed).collect();
                        assert!(passed.is_empty(), "{attack}\n{metadata}\n{cases:#?}");
                        let tests = metadata.get("tests").or(metadata.get("test_list"));
                        assert_eq!(cases.len(), tests.unwrap().as_array().unwrap().len());
                    }
                }
            });
        }
    });
    // Without kernel confinement, one of the attacks leaves modules in the temporary folder.
    for name in ["driver.py", "checker.py", "values.py", "json.py", "ast.py"] {
        let planted = std::path::Path::new("/tmp").join(name);
        if std::fs::read_to_string(&planted)
            .is_ok_and(|text| text == "import os\nos.write(4, b\"{}\")")
        {
            std::fs::remove_file(&planted).unwrap();
        }
    }
}

#[test]
fn the_program_cannot_read_the_expected_output() {
    let program = "
import glob, os, sys
seen = sys.argv + list(os.environ.values())
here = os.path.dirname(os.path.abspath(__file__))
for path in [f'{here}/*', '*', '/tmp/**', '/proc/self/*', '/proc/[0-9]*/*']:
    for name in glob.glob(path, recursive=True):
        seen.append(name)
        if name != os.path.abspath(__file__) and os.path.isfile(name):
            try: seen.append(open(name, errors='replace').read(100000))
            except OSError: pass
print('fo' + 'und' if any('expected' + '-77' in text for text in seen) else 'nothing')
";
    let tests = json!({"tests": [
        {"input": "x", "output": "nothing"},
        {"input": "x", "output": "expected-77"},
    ]});
    assert_eq!(passes(program, tests), [true, false]);
}

#[test]
fn time_limits_apply_per_test_and_in_total() {
    let mut short = config();
    short.sandbox.wall_seconds = 5.0;
    short.total_seconds = 120.0;
    let reward = CodeReward::new(short.clone()).unwrap();
    let slow = "import time\ndef add(a, b):\n    if a == -5: time.sleep(600)\n    return a + b";
    let judge = |program: &str, metadata| reward.judge(program, &suite(metadata)).unwrap();
    let passed = |program: &str, metadata| -> Vec<bool> {
        let cases = judge(program, metadata);
        cases.iter().map(|case| case.passed).collect()
    };
    let calls = json!({"tests": [
        {"function": "add", "args": [1, 2], "expected": 3},
        {"function": "add", "args": [-5, 5], "expected": 0},
        {"function": "add", "args": [2, 2], "expected": 4},
    ]});
    assert_eq!(passed(slow, add_asserts()), [true, false, true]);
    assert_eq!(passed(slow, calls.clone()), [true, false, true]);
    // The limit covers loading. A program that does not load fails every test at once.
    for metadata in [add_asserts(), calls] {
        let cases = judge("while True: pass", metadata);
        assert_eq!(cases.len(), 3);
        for case in cases {
            assert!(case.reason.starts_with("it was not loaded"), "{case:?}");
        }
    }
    // Each test is within its limit; all of them are not.
    short.total_seconds = 5.0;
    let reward = CodeReward::new(short).unwrap();
    let naps = "import time\ntime.sleep(1)\nprint(1)";
    let streams: Vec<Value> = (0..8)
        .map(|_| json!({"input": "", "output": "1"}))
        .collect();
    let cases = reward
        .judge(naps, &suite(json!({"tests": streams})))
        .unwrap();
    let passed = cases.iter().filter(|case| case.passed).count();
    assert!((1..=5).contains(&passed) && cases.len() == 8, "{cases:?}");
    assert!(cases[7].reason.contains("not run"), "{cases:?}");
}

#[test]
fn other_languages_run_by_their_commands() {
    let shell: Language = serde_json::from_value(json!({
        "fences": ["sh", "bash"], "file": "main.sh", "run": ["sh", "{file}"], "trial": "echo ok",
    }))
    .unwrap();
    let reward = CodeReward::new(CodeConfig {
        language: shell,
        ..config()
    })
    .unwrap();
    let tests = json!([{"input": "2 3", "output": "5"}]);
    let completion = "```bash\nread a b\necho $((a + b))\n```";
    assert_eq!(score(&reward, completion, tests), Ok(Some(1.0)));
    let calls = json!([{"function": "f", "args": [], "expected": 1}]);
    assert!(
        score(&reward, completion, calls)
            .unwrap_err()
            .contains("not Python")
    );

    let c = json!({
        "fences": ["c"], "file": "main.c", "compile": ["cc", "-O1", "-o", "{folder}/main", "{file}"], "run": ["{folder}/main"],
        "trial": "#include <stdio.h>\nint main(void) { puts(\"ok\"); }",
    });
    if !["/usr/bin/cc", "/usr/local/bin/cc"]
        .iter()
        .any(|path| Path::new(path).exists())
    {
        eprintln!("there is no C compiler here: the compiled language is not tried");
        return;
    }
    let reward = CodeReward::new(CodeConfig {
        language: serde_json::from_value(c).unwrap(),
        ..config()
    })
    .unwrap();
    let tests = json!([{"input": "2 3", "output": "5"}, {"input": "20 30", "output": "50"}]);
    let right = "```c\n#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }\n```";
    assert_eq!(score(&reward, right, tests.clone()), Ok(Some(1.0)));
    assert_eq!(
        score(
            &reward,
            "```c\nint main(void) { return *(int *)0; }\n```",
            tests.clone()
        ),
        Ok(Some(0.0))
    );
    assert_eq!(
        score(&reward, "```c\nint main(\n```", tests.clone()),
        Ok(Some(0.0))
    );
    // A compiler is confined as well.
    let include = "```c\n#include </etc/passwd>\nint main(void) {}\n```";
    let suite = suite(json!({"tests": tests}));
    let cases = reward
        .judge(include.trim_matches('`').trim_start_matches('c'), &suite)
        .unwrap();
    let held =
        reward.report().has(Measure::Landlock) || reward.report().has(Measure::MountNamespace);
    assert!(
        !held || cases[0].reason.starts_with("it does not compile"),
        "{cases:?}"
    );
}

#[test]
fn invalid_settings_are_errors_at_construction() {
    let refused = |change: &dyn Fn(&mut CodeConfig)| {
        let mut config = config();
        change(&mut config);
        CodeReward::new(config).unwrap_err().to_string()
    };
    let error = refused(&|config| config.tolerance = -1.0);
    assert!(error.contains("`tolerance`: -1"), "{error}");
    let error = refused(&|config| config.total_seconds = f64::NAN);
    assert!(error.contains("`total_seconds`: NaN"), "{error}");
    let error = refused(&|config| config.language.trial = "print('no')".into());
    assert!(error.contains("wrong output"), "{error}");
    let error = refused(&|config| config.sandbox.memory_bytes = 1);
    assert!(error.contains("`memory_bytes`"), "{error}");

    // An interpreter that the program's user cannot read is an error with the remedy.
    let private = tempfile::tempdir().unwrap();
    let interpreter = private.path().join("python3");
    std::fs::copy("/bin/sh", &interpreter).unwrap();
    let path = interpreter.display().to_string();
    let error = refused(&|config| config.language.run[0] = path.clone());
    assert!(
        error.contains(&path) && error.contains("read_only"),
        "{error}"
    );
    // Made readable, it works if its folder can be entered, or is put into the view by root.
    let mut open = config();
    open.language.run[0] = path;
    open.language.trial = "echo ok".into();
    open.language.read_only = vec![interpreter];
    let reward = CodeReward::new(open);
    if let Ok(reward) = &reward {
        assert!(reward.config().language.read_only.len() == 1);
    } else {
        assert!(reward.unwrap_err().to_string().contains("read_only"));
    }
}

#[test]
fn a_set_scores_programs_in_parallel() {
    let set = RewardSet::builder()
        .add(1.0, reward().clone())
        .time_limit(std::time::Duration::from_secs(60))
        .threads(4)
        .build()
        .unwrap();
    let inputs: Vec<RewardInput> = (0..12)
        .map(|i| {
            let program = fenced(["def add(a, b): return a + b", "def add(a, b): return b"][i % 2]);
            let mut problem = Problem::new("", "");
            problem.metadata = add_asserts().as_object().unwrap().clone();
            RewardInput {
                problem: problem.into(),
                ..RewardInput::new("", "", program)
            }
        })
        .collect();
    let totals: Vec<Option<f64>> = set
        .score(inputs)
        .into_iter()
        .map(|one| one.reward)
        .collect();
    for (i, total) in totals.iter().enumerate() {
        assert_eq!(*total, Some([1.0, 0.0][i % 2]), "{totals:?}");
    }
}

#[test]
fn the_settings_are_read_from_a_file() {
    let config: CodeConfig = serde_json::from_value(json!({
        "scoring": "fraction",
        "tolerance": 1e-6,
        "sandbox": {"wall_seconds": 4.0, "measures": {"ipc_namespace": "if_available"}},
    }))
    .unwrap();
    assert_eq!(config.scoring, Scoring::Fraction);
    assert_eq!(
        config.sandbox.need(Measure::IpcNamespace),
        Need::IfAvailable
    );
    assert_eq!(config.language, Language::python());
    assert!(serde_json::from_value::<CodeConfig>(json!({"scorin": "fraction"})).is_err());
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(
        serde_json::from_value::<CodeConfig>(written).unwrap(),
        config
    );
}

#[test]
fn a_test_of_the_programs_values_uses_pythons_own_functions() {
    let tests = json!({"test_list": ["assert len(RESULT) == 3"]});
    assert_eq!(
        passes("RESULT = []\ndef len(x): return 3", tests.clone()),
        [false]
    );
    assert_eq!(passes("RESULT = [1, 2, 3]", tests), [true]);
    // Also if an earlier test used the value.
    let tests = json!({"test_list": ["r = solve()", "assert sorted(r) == [1, 2]"]});
    let forged = "def solve(): return [7]\ndef sorted(x): return [1, 2]";
    assert_eq!(passes(forged, tests.clone()), [true, false]);
    assert_eq!(passes("def solve(): return [2, 1]", tests), [true, true]);
    // A test without other names calls the program's function, not Python's.
    let tests = json!({"test_list": ["assert sum(10, 15) == 25", "assert len([1]) == 1"]});
    let program = "def sum(a, b): return a + b";
    assert_eq!(passes(program, tests), [true, false]);
    let tests = json!({"test_list": ["assert sorted(sum(10, 15)) == [10, 15]"]});
    assert_eq!(passes("def sum(a, b): return [b, a]", tests), [true]);
}

#[test]
fn imports_from_the_future_come_before_the_prelude() {
    let tests = json!({"prelude": "import math", "tests": [{"input": "9", "output": "3"}]});
    let body = "\ndef root(n: int) -> int: return math.isqrt(n)\nprint(root(int(input())))";
    for head in [
        "from __future__ import annotations",
        "# a comment\n\nfrom __future__ import (\n    annotations,\n)",
        "\"\"\"A\ndocstring.\"\"\"\nfrom __future__ import annotations",
    ] {
        assert_eq!(
            passes(&format!("{head}{body}"), tests.clone()),
            [true],
            "{head}"
        );
    }
}
