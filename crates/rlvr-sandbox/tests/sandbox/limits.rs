//! Programs that try to exceed the limits.

use super::*;

#[test]
fn a_fork_bomb_is_stopped_and_leaves_no_process() {
    for held in all()
        .iter()
        .filter(|held| held.has(Measure::ResourceLimits))
    {
        let name = marker();
        let ran = held.python_as(
            &name,
            "import os, time\nn = 0\ntry:\n    while n < 500:\n        if os.fork() == 0:\n            time.sleep(600)\n        n += 1\nexcept OSError:\n    pass\nprint(n)",
            &[],
        );
        let started: usize = text(&ran.stdout).parse().unwrap();
        assert!(started < 6, "{}: {started}", held.name);
        assert_eq!(alive(&name), Vec::<String>::new(), "{}", held.name);

        let name = marker();
        let bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass";
        let ran = held.python_as(&name, bomb, &[]);
        assert_ne!(ran.exit, Exit::Status(0), "{}", held.name);
        assert_eq!(alive(&name), Vec::<String>::new(), "{}", held.name);
    }
}

#[test]
fn memory_is_limited() {
    for held in all()
        .iter()
        .filter(|held| held.has(Measure::ResourceLimits))
    {
        let ran = held.python("try:\n    x = bytearray(1 << 29)\n    print('got it')\nexcept MemoryError:\n    print('refused')");
        assert_eq!(text(&ran.stdout), "refused", "{}", held.name);
        let ran = held.python("x = []\nwhile True: x.append(bytearray(1 << 20))");
        assert!(
            text(&ran.stderr).contains("MemoryError"),
            "{}: {}",
            held.name,
            text(&ran.stderr)
        );
        // Memory that belongs to no process: shared memory, and the kernel memory of System V
        // semaphores and messages.
        let program = r#"
import ctypes
c = ctypes.CDLL(None)
print(c.shmget(0, 1 << 28, 0o1600) < 0, c.memfd_create(b"x", 0) < 0, c.semget(0, 32000, 0o1600) < 0, c.msgget(0, 0o1600) < 0)
for call, remove in (("semget", lambda id: c.semctl(id, 0, 0)), ("msgget", lambda id: c.msgctl(id, 0, None))):
    id = c.semget(0x4a77, 8, 0o1666) if call == "semget" else c.msgget(0x4a77, 0o1666)
    if id >= 0:
        print("made by", call, "and removed:", remove(id) == 0)
"#;
        let ran = held.python(program);
        if held.has(Measure::Seccomp) {
            assert_eq!(text(&ran.stdout), "True True True True", "{}", held.name);
        }
    }
}

#[test]
fn an_endless_loop_ends_at_the_limit_of_cpu_time() {
    for held in all()
        .iter()
        .filter(|held| held.has(Measure::ResourceLimits))
    {
        // A second of CPU time takes long on a busy machine.
        let patient = held.with(|config| config.wall_seconds = SLEEP as f64);
        let ran = patient.python("while True: pass");
        // SIGXCPU, which does not end the first process of a pid namespace: SIGKILL does.
        let signal = if held.has(Measure::PidNamespace) {
            9
        } else {
            24
        };
        assert_eq!(ran.exit, Exit::Signal(signal), "{}", held.name);
        let deaf = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass";
        assert_eq!(patient.python(deaf).exit, Exit::Signal(9), "{}", held.name);
    }
}

#[test]
fn a_sleeping_program_ends_at_the_wall_clock_limit() {
    let program = format!(
        "import signal, time\nfor s in (1, 2, 3, 15): signal.signal(s, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep({SLEEP})"
    );
    for held in all() {
        // A busy machine may need more than the shortest limit to start the program.
        for wall in [2.0, 10.0, WALL] {
            let name = marker();
            let held = held.with(|config| config.wall_seconds = wall);
            let ran = held.python_as(&name, &program, &[]);
            assert_eq!(ran.exit, Exit::WallLimit, "{}", held.name);
            assert!(ran.wall.as_secs_f64() >= wall, "{}", held.name);
            assert_eq!(alive(&name), Vec::<String>::new(), "{}", held.name);
            if wall == WALL || !ran.stdout.is_empty() {
                assert_eq!(text(&ran.stdout), "here", "{}", held.name);
                break;
            }
        }
    }
}

#[test]
fn output_is_limited() {
    for held in all() {
        let ran = held.python("while True: print('x' * 1000)");
        assert_eq!(
            (ran.exit, ran.stdout.len()),
            (Exit::OutputLimit, 1 << 16),
            "{}",
            held.name
        );
        // On the standard error, the rest is dropped.
        let ran = held.python("import sys\nfor _ in range(40): sys.stderr.write('x' * 100000)");
        assert_eq!(
            (ran.exit, ran.stderr.len()),
            (Exit::Status(0), 1 << 16),
            "{}",
            held.name
        );
        // Exactly the limit.
        let ran = held.python("print('x' * 65535)");
        assert_eq!(
            (ran.exit, ran.stdout.len()),
            (Exit::Status(0), 1 << 16),
            "{}",
            held.name
        );
    }
}

#[test]
fn files_are_limited_in_size_and_number() {
    let program = r#"
import os, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def attempt(action):
    try:
        action()
        return True
    except OSError:
        return False
with open("big", "wb", buffering=0) as file:
    wrote = 0
    while wrote < 1 << 24 and attempt(lambda: file.write(b"x" * 65536)):
        wrote = file.tell()
    print("big", os.path.getsize("big"))
    print("sparse", attempt(lambda: os.truncate("big", 1 << 40)), attempt(lambda: os.posix_fallocate(file.fileno(), 0, 1 << 28)))
total = 0
for i in range(40):
    if not attempt(lambda: open(f"part{i}", "wb").write(b"x" * 500_000)):
        break
    total += 500_000
print("total", total)
for i in range(40):
    attempt(lambda: os.remove(f"part{i}"))
count = 0
while count < 1000 and attempt(lambda: open(f"small{count}", "w").close()):
    count += 1
print("count", count)
"#;
    for held in all()
        .iter()
        .filter(|held| held.has(Measure::ResourceLimits))
    {
        let ran = held.python(program);
        assert_eq!(
            ran.exit,
            Exit::Status(0),
            "{}: {}",
            held.name,
            text(&ran.stderr)
        );
        let output = text(&ran.stdout);
        let number = |key: &str| -> u64 {
            let line = output.lines().find(|line| line.starts_with(key)).unwrap();
            line.split(' ').nth(1).unwrap().parse().unwrap()
        };
        assert!(number("big") <= 1 << 20, "{}: {output}", held.name);
        assert!(
            output.contains("sparse False False"),
            "{}: {output}",
            held.name
        );
        if held.has(Measure::MountNamespace) {
            assert!(number("total") <= 4 << 20, "{}: {output}", held.name);
            assert!(number("count") < 64, "{}: {output}", held.name);
        }
    }
}

#[test]
fn open_files_are_limited_and_none_is_inherited() {
    // Descriptors of this process.
    let leak = fs::File::open("/dev/null").unwrap();
    let leaked: Vec<_> = (0..5).map(|_| leak.try_clone().unwrap()).collect();
    for held in all() {
        let program = "import os\nopened = []\ntry:\n    while len(opened) < 1000: opened.append(os.dup(0))\nexcept OSError: pass\nprint(len(opened))";
        let ran = held.python(program);
        if held.has(Measure::ResourceLimits) {
            // Three are open from the start.
            assert_eq!(text(&ran.stdout), "29", "{}", held.name);
        }
        let program = "import os\nfound = []\nfor fd in range(4096):\n    try:\n        os.fstat(fd)\n        found.append(fd)\n    except OSError: pass\nprint(found)\nos.closerange(0, 4096)";
        let ran = held.python(program);
        assert_eq!(
            text(&ran.stdout),
            "",
            "{}: closed before it was flushed",
            held.name
        );
        let ran = held.python(&program.replace("print(found)", "print(found, flush=True)"));
        assert_eq!(text(&ran.stdout), "[0, 1, 2]", "{}", held.name);
    }
    drop(leaked);
}
