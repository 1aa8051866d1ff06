//! Programs that try to use more than they may.

use super::*;

#[test]
fn a_fork_bomb_stops_at_the_limit_and_nothing_is_left() {
    for held in all()
        .iter()
        .filter(|held| held.has(Measure::ResourceLimits))
    {
        let name = marker();
        let ran = held.python_as(
            &name,
            "import os, time\nn = 0\ntry:\n    while n < 500:\n        if os.fork() == 0:\n            time.sleep(60)\n        n += 1\nexcept OSError:\n    pass\nprint(n)",
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
fn memory_ends_at_the_limit() {
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
        // Memory that no process owns: shared memory, and System V semaphores and messages, which are kernel memory.
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
fn an_endless_loop_ends_by_cpu_time_even_if_it_will_not_be_told() {
    for held in all()
        .iter()
        .filter(|held| held.has(Measure::ResourceLimits))
    {
        // A second of CPU time may be many by the clock of a busy machine.
        let patient = held.with(|config| config.wall_seconds = 60.0);
        let ran = patient.python("while True: pass");
        // SIGXCPU, but the first process of a namespace is only ended by SIGKILL.
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
fn sleeping_ends_by_the_clock() {
    for held in all() {
        let name = marker();
        let ran = held.python_as(&name, "import signal, time\nfor s in (1, 2, 3, 15): signal.signal(s, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep(60)", &[]);
        assert_eq!(ran.exit, Exit::WallLimit, "{}", held.name);
        assert_eq!(text(&ran.stdout), "here", "{}", held.name);
        // The program would sleep for 60 seconds: that it was stopped is what the end says.
        assert!(ran.wall.as_secs_f64() >= WALL, "{}", held.name);
        assert_eq!(alive(&name), Vec::<String>::new(), "{}", held.name);
    }
}

#[test]
fn a_flood_of_output_is_cut_off() {
    for held in all() {
        let ran = held.python("while True: print('x' * 1000)");
        assert_eq!(
            (ran.exit, ran.stdout.len()),
            (Exit::OutputLimit, 1 << 16),
            "{}",
            held.name
        );
        let ran = held.python("import sys\nwhile True: sys.stderr.write('x' * 100000)");
        assert!(
            matches!(ran.exit, Exit::Signal(24 | 9) | Exit::WallLimit),
            "{}: {:?}",
            held.name,
            ran.exit
        );
        assert_eq!(ran.stderr.len(), 1 << 16, "{}", held.name);
        // Exactly at the limit is no flood.
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
fn the_disk_is_not_filled() {
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
fn files_are_open_up_to_a_number_and_none_is_inherited() {
    // Descriptors that this process has open, without the flag that closes them.
    let leak = fs::File::open("/dev/null").unwrap();
    let leaked: Vec<_> = (0..5).map(|_| leak.try_clone().unwrap()).collect();
    for held in all() {
        let program = "import os\nopened = []\ntry:\n    while len(opened) < 1000: opened.append(os.dup(0))\nexcept OSError: pass\nprint(len(opened))";
        let ran = held.python(program);
        if held.has(Measure::ResourceLimits) {
            // Three are the program's from the start.
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
