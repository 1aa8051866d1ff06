//! The sandbox, attacked: every limit by a program that tries to pass it, under all measures and with some of them left out.
#![cfg(all(target_os = "linux", feature = "code"))]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rlvr::reward::code::{Command, Ended, Language, Measure, Need, Ran, Sandbox, SandboxConfig};

const WALL: f64 = 3.0;

fn limits() -> SandboxConfig {
    SandboxConfig {
        cpu_seconds: 1,
        wall_seconds: WALL,
        memory_bytes: 256 << 20,
        processes: 6,
        open_files: 32,
        file_bytes: 1 << 20,
        folder_bytes: 4 << 20,
        folder_files: 64,
        output_bytes: 1 << 16,
        ..SandboxConfig::default()
    }
}

/// A confinement under test.
struct Held {
    name: &'static str,
    sandbox: Sandbox,
}

impl Held {
    fn has(&self, measure: Measure) -> bool {
        self.sandbox.report().has(measure)
    }

    /// Whether the run has a user of its own, as when root starts it.
    fn has_own_user(&self) -> bool {
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        is_root && self.has(Measure::UnprivilegedUser)
    }

    /// Whether anything holds the files outside.
    fn holds_files(&self) -> bool {
        self.has(Measure::MountNamespace) || self.has(Measure::Landlock)
    }

    /// The same measures with other limits.
    fn with(&self, change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let mut config = self.sandbox.config().clone();
        change(&mut config);
        Self {
            name: self.name,
            sandbox: Sandbox::new(config).unwrap(),
        }
    }

    /// Room for children where the kernel counts this user's other processes as well, see the report.
    fn roomy(&self) -> Self {
        self.with(|config| config.processes = 400)
    }

    /// Runs a Python program.
    fn python(&self, program: &str) -> Ran {
        self.python_as("attack.py", program, &[])
    }

    fn python_as(&self, file: &str, program: &str, arguments: &[&str]) -> Ran {
        let folder = self.sandbox.folder().unwrap();
        folder.write(file, program.as_bytes()).unwrap();
        let mut command = Command::new(interpreter()).argument(folder.path(file));
        for argument in arguments {
            command = command.argument(*argument);
        }
        folder.run(&command).unwrap()
    }
}

fn language() -> &'static Language {
    static FOUND: OnceLock<Language> = OnceLock::new();
    FOUND.get_or_init(|| {
        for path in ["/usr/bin/python3", "/usr/local/bin/python3"] {
            if Path::new(path).exists() {
                return Language::python_at(path).unwrap();
            }
        }
        Language::python_at("python3").unwrap()
    })
}

fn interpreter() -> &'static str {
    &language().run[0]
}

/// All measures, and with some left out, so that those that remain are seen to hold by themselves.
fn all() -> &'static [Held] {
    static ALL: OnceLock<Vec<Held>> = OnceLock::new();
    ALL.get_or_init(|| {
        let config = SandboxConfig {
            read_only: language().read_only.clone(),
            ..limits()
        };
        let namespaces = Measure::ALL.into_iter().filter(|one| one.is_namespace());
        let without = |measures: &mut dyn Iterator<Item = Measure>| {
            measures.fold(config.clone().allow_less(), |config, measure| {
                config.with(measure, Need::Off)
            })
        };
        let whole = Sandbox::new(config.clone()).unwrap_or_else(|error| {
            // A kernel that lacks something: refused by name, and what there is is taken when that is allowed.
            let text = error.to_string();
            assert!(text.contains("invalid `measures."), "{text}");
            eprintln!("not everything is to be had here: {text}");
            let less = Sandbox::new(config.clone().allow_less()).unwrap();
            assert!(!less.report().is_complete());
            less
        });
        let held = |name, config| Held {
            name,
            sandbox: Sandbox::new(config).unwrap(),
        };
        let found = vec![
            Held {
                name: "everything",
                sandbox: whole,
            },
            held("no namespaces", without(&mut namespaces.into_iter())),
            held("no landlock", without(&mut [Measure::Landlock].into_iter())),
            held("no seccomp", without(&mut [Measure::Seccomp].into_iter())),
        ];
        for held in &found {
            eprintln!("== {}\n{}", held.name, held.sandbox.report());
        }
        found
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_string()
}

/// A file name that no other run has, to find its processes by.
fn marker() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("marked-{}-{count}.py", process::id())
}

/// Processes that were started with a file of this name, as far as this user may know.
fn alive(marker: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found = processes.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let own = entry.file_name().to_string_lossy() == process::id().to_string();
        (line.contains(marker) && !own).then_some(line)
    });
    found.collect()
}

#[test]
fn an_honest_program_runs() {
    for held in all() {
        let ran = held.python("import sys\nfor line in sys.stdin: print(int(line) * 2)");
        assert_eq!(
            ran.ended,
            Ended::Exit(0),
            "{}: {}",
            held.name,
            text(&ran.errors)
        );
        let folder = held.sandbox.folder().unwrap();
        folder.write("main.py", b"import sys\nsys.stdout.write(sys.stdin.read())\nopen('own', 'w').write('x')\nsys.exit(3)").unwrap();
        let input = "0123456789abcde\n".repeat(4095);
        let command = Command::new(interpreter())
            .argument(folder.path("main.py"))
            .input(input.as_str());
        let ran = folder.run(&command).unwrap();
        assert_eq!(
            (ran.ended, ran.output == input.as_bytes()),
            (Ended::Exit(3), true),
            "{}: {}",
            held.name,
            text(&ran.errors)
        );
        // Nothing of one run is there for the next.
        folder
            .write(
                "next.py",
                b"import os\nprint(os.listdir('.'), os.path.exists('own'))",
            )
            .unwrap();
        let ran = folder
            .run(&Command::new(interpreter()).argument(folder.path("next.py")))
            .unwrap();
        assert_eq!(text(&ran.output), "[] False", "{}", held.name);
    }
}

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
        let started: usize = text(&ran.output).parse().unwrap();
        assert!(started < 6, "{}: {started}", held.name);
        assert_eq!(alive(&name), Vec::<String>::new(), "{}", held.name);

        let name = marker();
        let begun = Instant::now();
        let bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass";
        let ran = held.python_as(&name, bomb, &[]);
        assert_ne!(ran.ended, Ended::Exit(0), "{}", held.name);
        assert!(
            begun.elapsed().as_secs_f64() < WALL + 2.0,
            "{}: {:?}",
            held.name,
            begun.elapsed()
        );
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
        assert_eq!(text(&ran.output), "refused", "{}", held.name);
        let ran = held.python("x = []\nwhile True: x.append(bytearray(1 << 20))");
        assert!(
            text(&ran.errors).contains("MemoryError"),
            "{}: {}",
            held.name,
            text(&ran.errors)
        );
        // Memory that no process owns.
        let ran = held.python(
            "import ctypes, os\nc = ctypes.CDLL(None)\nprint(c.shmget(0, 1 << 28, 0o1600) < 0, c.memfd_create(b'x', 0) < 0)",
        );
        if held.has(Measure::Seccomp) {
            assert_eq!(text(&ran.output), "True True", "{}", held.name);
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
        assert_eq!(ran.ended, Ended::Signal(signal), "{}", held.name);
        let deaf = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass";
        assert_eq!(
            patient.python(deaf).ended,
            Ended::Signal(9),
            "{}",
            held.name
        );
    }
}

#[test]
fn sleeping_ends_by_the_clock() {
    for held in all() {
        let name = marker();
        let begun = Instant::now();
        let ran = held.python_as(&name, "import signal, time\nfor s in (1, 2, 3, 15): signal.signal(s, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep(60)", &[]);
        assert_eq!(ran.ended, Ended::WallLimit, "{}", held.name);
        assert_eq!(text(&ran.output), "here", "{}", held.name);
        let took = begun.elapsed().as_secs_f64();
        assert!((WALL..WALL + 1.5).contains(&took), "{}: {took}", held.name);
        assert_eq!(alive(&name), Vec::<String>::new(), "{}", held.name);
    }
}

#[test]
fn a_flood_of_output_is_cut_off() {
    for held in all() {
        let ran = held.python("while True: print('x' * 1000)");
        assert_eq!(
            (ran.ended, ran.output.len()),
            (Ended::OutputLimit, 1 << 16),
            "{}",
            held.name
        );
        let ran = held.python("import sys\nwhile True: sys.stderr.write('x' * 100000)");
        assert!(
            matches!(ran.ended, Ended::Signal(24 | 9) | Ended::WallLimit),
            "{}: {:?}",
            held.name,
            ran.ended
        );
        assert_eq!(ran.errors.len(), 1 << 16, "{}", held.name);
        // Exactly at the limit is no flood.
        let ran = held.python("print('x' * 65535)");
        assert_eq!(
            (ran.ended, ran.output.len()),
            (Ended::Exit(0), 1 << 16),
            "{}",
            held.name
        );
    }
}

#[test]
fn files_outside_are_not_read() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    let own = process::id();
    let files = [
        "/etc/passwd".to_string(),
        "/etc/hostname".into(),
        secret.display().to_string(),
        std::env::current_exe().unwrap().display().to_string(),
        format!("{home}/.profile"),
        format!("/proc/{own}/environ"),
        format!("/proc/{own}/cmdline"),
        format!("/proc/{own}/maps"),
        format!("/proc/{own}/mem"),
        "/proc/1/environ".into(),
        format!("/proc/self/root{}", secret.display()),
        format!("/proc/self/cwd/../../../..{}", secret.display()),
        "/proc/kcore".into(),
        "/proc/sys/kernel/hostname".into(),
        "/sys/kernel/notes".into(),
        "/dev/mem".into(),
        "/dev/vda".into(),
        "/dev/sda".into(),
    ];
    let program = r#"
import os, sys
for path in sys.argv[1:]:
    try:
        with open(path, "rb") as file:
            if path.startswith("/proc/1/") and os.getpid() == 1:
                continue
            file.read(1)
            print("read", path)
    except OSError:
        pass
for path in ["/", "/home", "/root", os.path.dirname(sys.argv[3]), "/etc"]:
    try:
        print("listed", path, os.listdir(path))
    except OSError:
        pass
"#;
    for held in all().iter().filter(|held| held.holds_files()) {
        let arguments: Vec<&str> = files.iter().map(String::as_str).collect();
        let ran = held.python_as("attack.py", program, &arguments);
        assert_eq!(ran.ended, Ended::Exit(0), "{}", text(&ran.errors));
        let output = text(&ran.output);
        // A view of its own may be listed: there is nothing in it.
        let lines = output.lines().filter(|line| {
            let own_view = held.has(Measure::MountNamespace) && !held.has(Measure::Landlock);
            !(own_view && (line.starts_with("listed / ") || line.starts_with("listed /etc ")))
        });
        let got: Vec<&str> = lines.collect();
        assert_eq!(got, Vec::<&str>::new(), "{}", held.name);
        if held.has(Measure::MountNamespace) {
            assert!(
                !output.contains("'home'") && !output.contains("passwd"),
                "{output}"
            );
        }
    }
}

#[test]
fn nothing_is_written_outside_nor_through_a_planted_link() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let kept = outside.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o666)).unwrap();
    let program = r#"
import os, sys
outside = sys.argv[1]
def attempt(what, action):
    try:
        action()
        print("did", what)
    except OSError:
        pass
box = os.path.dirname(os.path.abspath(__file__))
for folder in [outside, "/", "/usr", "/usr/lib", "/etc", "/var/tmp", "/run", "/proc", "/dev", box]:
    attempt(f"write in {folder}", lambda: open(f"{folder}/planted", "w").close())
    attempt(f"mkdir in {folder}", lambda: os.mkdir(f"{folder}/planted-folder"))
    attempt(f"link in {folder}", lambda: os.symlink("x", f"{folder}/planted-link"))
kept = f"{outside}/kept"
attempt("append", lambda: open(kept, "a").close())
attempt("truncate", lambda: os.truncate(kept, 0))
attempt("remove", lambda: os.remove(kept))
attempt("rename", lambda: os.rename(kept, "mine"))
attempt("hard link", lambda: os.link(kept, "mine"))
attempt("own program", lambda: open(__file__, "a").close())
attempt("interpreter", lambda: open(sys.executable, "a").close())
if "attributes" in sys.argv:
    attempt("chmod", lambda: os.chmod(kept, 0o000))
    attempt("utime", lambda: os.utime(kept, (0, 0)))
    attempt("chmod interpreter", lambda: os.chmod(sys.executable, 0o777))
os.symlink(kept, "file-link")
os.symlink(outside, "folder-link")
attempt("through a link", lambda: open("file-link", "a").close())
attempt("in a linked folder", lambda: open("folder-link/planted", "w").close())
os.makedirs("a/b")
os.symlink(outside, "a/b/c")
os.chmod("a/b", 0)
os.chmod("a", 0)
"#;
    for held in all().iter().filter(|held| held.holds_files()) {
        let outside = outside.path().display().to_string();
        let mut arguments = vec![outside.as_str()];
        // Landlock does not look at these: a view of its own does, or seccomp, and without both the report says so.
        if held.has(Measure::MountNamespace) {
            arguments.push("attributes");
        }
        let ran = held.python_as("attack.py", program, &arguments);
        let output = text(&ran.output);
        // With neither seccomp's word nor a view, making a folder unreadable may be refused in other ways.
        let refused = ran.ended != Ended::Exit(0) && text(&ran.errors).contains("os.chmod(\"a/b\"");
        assert!(
            ran.ended == Ended::Exit(0) || refused,
            "{}: {}",
            held.name,
            text(&ran.errors)
        );
        assert_eq!(output, "", "{}", held.name);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "kept");
        assert_eq!(
            fs::read_dir(Path::new(&outside)).unwrap().count(),
            1,
            "{}",
            held.name
        );
        let mode = fs::metadata(&kept).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
    }
}

#[test]
fn no_network_and_no_sockets_of_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("socket");
    let local = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    local.set_nonblocking(true).unwrap();
    let program = r#"
import socket, sys
port, path = int(sys.argv[1]), sys.argv[2]
for family in (socket.AF_INET, socket.AF_INET6):
    try:
        s = socket.socket(family, socket.SOCK_STREAM)
        s.settimeout(1)
        s.connect(("127.0.0.1" if family == socket.AF_INET else "::1", port))
        print("connected", family)
    except OSError as error:
        pass
try:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"x", ("127.0.0.1", port))
    print("sent")
except OSError:
    pass
for kind in (socket.AF_PACKET, socket.AF_NETLINK):
    try:
        socket.socket(kind, socket.SOCK_RAW)
        print("socket of", kind)
    except OSError:
        pass
try:
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    print("connected to", path)
except OSError:
    pass
a, b = socket.socketpair()
a.send(b"own")
assert b.recv(3) == b"own"
"#;
    for held in all() {
        let arguments = [port.as_str(), path.to_str().unwrap()];
        let ran = held.python_as("attack.py", program, &arguments);
        assert_eq!(
            ran.ended,
            Ended::Exit(0),
            "{}: {}",
            held.name,
            text(&ran.errors)
        );
        let output = text(&ran.output);
        let called = listener.accept().is_ok() || local.accept().is_ok();
        if held.has(Measure::Seccomp) {
            assert_eq!((output.as_str(), called), ("", false), "{}", held.name);
        } else if held.has(Measure::NetworkNamespace) && held.has(Measure::MountNamespace) {
            // Sockets can be made, and lead nowhere.
            let reached = called || output.contains("connected") || output.contains("sent");
            assert!(!reached, "{}: {output}", held.name);
        }
    }
}

#[test]
fn no_child_outlives_the_run() {
    let program = r#"
import os, sys, time
if os.fork() == 0:
    try:
        os.setsid()
    except OSError:
        pass
    if os.fork() == 0:
        os.closerange(0, 64)
        time.sleep(60)
    os._exit(0)
os.wait()
print("left")
"#;
    for held in all() {
        // Without a namespace, seccomp keeps the group together, or the user is the run's alone.
        if !(held.has(Measure::PidNamespace) || held.has(Measure::Seccomp) || held.has_own_user()) {
            eprintln!("{}: nothing keeps the run together here", held.name);
            continue;
        }
        let name = marker();
        let begun = Instant::now();
        let ran = held.roomy().python_as(&name, program, &[]);
        assert_eq!(
            (ran.ended, text(&ran.output).as_str()),
            (Ended::Exit(0), "left"),
            "{}: {}",
            held.name,
            text(&ran.errors)
        );
        assert!(begun.elapsed().as_secs_f64() < WALL, "{}", held.name);
        assert_eq!(alive(&name), Vec::<String>::new(), "{}", held.name);
    }
}

#[test]
fn a_child_that_holds_the_output_does_not_hold_the_judge() {
    for held in all() {
        let held = held.roomy();
        let begun = Instant::now();
        let ran =
            held.python("import os, time\nif os.fork() == 0:\n    time.sleep(60)\nprint('done')");
        assert_eq!(
            (ran.ended, text(&ran.output).as_str()),
            (Ended::Exit(0), "done"),
            "{}",
            held.name
        );
        assert!(
            begun.elapsed().as_secs_f64() < WALL,
            "{}: {:?}",
            held.name,
            begun.elapsed()
        );
    }
}

#[test]
fn signals_reach_nobody_outside() {
    let mut bystander = process::Command::new("/bin/sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let program = r#"
import os, signal, sys
try:
    os.kill(os.getppid(), 9)
except OSError:
    pass
for pid in map(int, sys.argv[1:]):
    try:
        os.kill(pid, 9)
        print("signalled", pid)
    except OSError:
        pass
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for everyone in (-1, -int(sys.argv[2])):
    try:
        os.kill(everyone, signal.SIGTERM)
    except OSError:
        pass
print("end")
"#;
    let own = process::id().to_string();
    let other = bystander.id().to_string();
    for held in all() {
        // With nothing of all this, an ordinary user's program may end everything of that user's: as the report says.
        let report = held.sandbox.report().to_string();
        let scoped = held.has(Measure::Landlock) && report.contains("signals");
        if !(held.has(Measure::PidNamespace)
            || held.has(Measure::Seccomp)
            || scoped
            || held.has_own_user())
        {
            eprintln!("{}: nothing holds signals here", held.name);
            continue;
        }
        let ran = held.python_as("attack.py", program, &[&own, &other]);
        // Its own signal to everyone may end it.
        let output = text(&ran.output);
        assert!(
            output == "end" || output.is_empty(),
            "{}: {output} {}",
            held.name,
            text(&ran.errors)
        );
        assert!(bystander.try_wait().unwrap().is_none(), "{}", held.name);
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
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
            ran.ended,
            Ended::Exit(0),
            "{}: {}",
            held.name,
            text(&ran.errors)
        );
        let output = text(&ran.output);
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
            assert_eq!(text(&ran.output), "29", "{}", held.name);
        }
        let program = "import os\nfound = []\nfor fd in range(4096):\n    try:\n        os.fstat(fd)\n        found.append(fd)\n    except OSError: pass\nprint(found)\nos.closerange(0, 4096)";
        let ran = held.python(program);
        assert_eq!(
            text(&ran.output),
            "",
            "{}: closed before it was flushed",
            held.name
        );
        let ran = held.python(&program.replace("print(found)", "print(found, flush=True)"));
        assert_eq!(text(&ran.output), "[0, 1, 2]", "{}", held.name);
    }
    drop(leaked);
}

#[test]
fn the_environment_is_not_the_callers() {
    for held in all() {
        let ran = held.python("import os\nprint(sorted(os.environ))");
        let expected = "['HOME', 'LANG', 'MKL_NUM_THREADS', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH', 'TMPDIR']";
        let output = text(&ran.output).replace(", 'LC_CTYPE'", "");
        assert_eq!(output, expected, "{}", held.name);
    }
}

#[test]
fn privileges_cannot_be_had() {
    let program = r#"
import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
def attempt(what, *args):
    if c.syscall(*args) >= 0:
        print("could", what)
def action(what, action):
    try:
        action()
        print("could", what)
    except OSError:
        pass
print(os.getuid() == 0, os.geteuid() == 0)
action("setuid", lambda: os.setuid(0))
action("setgid", lambda: os.setgid(0) if os.getgid() else os.setuid(0))
action("setgroups", lambda: os.setgroups([0]))
action("chroot", lambda: os.chroot("."))
action("device", lambda: os.mknod("device", 0o600 | 0o020000, os.makedev(1, 1)))
action("nice", lambda: os.nice(-5))
import platform
x86 = platform.machine() == "x86_64"
if x86:
    attempt("mount", 165, b"none", b"/tmp", b"tmpfs", 0, 0)
    attempt("unmount", 166, b"/tmp", 2)
    attempt("ptrace", 101, 16, 1, 0, 0)
    attempt("read memory", 310, 1, 0, 0, 0, 0, 0)
    attempt("bpf", 321, 0, 0, 0)
    attempt("key", 248, b"user", b"x", b"y", 1, -3)
    attempt("perf", 298, 0, 0, -1, -1, 0)
    attempt("userfaultfd", 323, 1)
    attempt("io_uring", 425, 8, ctypes.create_string_buffer(256))
    attempt("setns", 308, 0, 0)
    attempt("handle", 304, -1, 0, 0)
"#;
    // Those that the kernel grants to whoever has a namespace of his own: seccomp's alone.
    let more = r#"
if x86:
    attempt("user namespace", 272, 0x10000000)
    attempt("clone with a user namespace", 56, 0x10000000 | 17, 0, 0, 0, 0)
    ctypes.set_errno(0)
    c.syscall(435, 0, 0)
    print("clone3", ctypes.get_errno())
    c.syscall(0x40000000 + 39)
    print("x32", ctypes.get_errno())
    c.syscall(460)
    print("new", ctypes.get_errno())
"#;
    for held in all()
        .iter()
        .filter(|held| held.has(Measure::UnprivilegedUser))
    {
        let seccomp = held.has(Measure::Seccomp);
        let program = if seccomp {
            [program, more].concat()
        } else {
            program.to_string()
        };
        let ran = held.python(&program);
        let output = text(&ran.output);
        assert_eq!(
            ran.ended,
            Ended::Exit(0),
            "{}: {}",
            held.name,
            text(&ran.errors)
        );
        assert!(output.starts_with("False False"), "{}: {output}", held.name);
        if seccomp {
            assert!(!output.contains("could"), "{}: {output}", held.name);
            if output.contains("clone3") {
                assert!(
                    output.ends_with("clone3 38\nx32 38\nnew 38"),
                    "{}: {output}",
                    held.name
                );
            }
        } else {
            for what in [
                "setuid",
                "setgid",
                "setgroups",
                "chroot",
                "device",
                " mount",
            ] {
                assert!(
                    !output.contains(&format!("could {}", what.trim())),
                    "{}: {output}",
                    held.name
                );
            }
        }
    }
}

#[test]
fn the_processes_it_sees_are_its_own() {
    let apart = |held: &&Held| held.has(Measure::PidNamespace) && held.holds_files();
    for held in all().iter().filter(apart) {
        let program = "import os\nprint(os.getpid(), os.getppid())\ntry:\n    print(sorted(p for p in os.listdir('/proc') if p.isdigit()))\nexcept OSError:\n    print('none')";
        let ran = held.python(program);
        let output = text(&ran.output);
        let expected = ["1 0\n['1']", "1 0\nnone", "1 0\n[]"];
        assert!(
            expected.contains(&output.as_str()),
            "{}: {output}",
            held.name
        );
    }
}

#[test]
fn a_program_that_cannot_be_started_is_an_error_and_no_verdict() {
    for held in all() {
        let folder = held.sandbox.folder().unwrap();
        let error = folder
            .run(&Command::new("/usr/bin/no-such-program"))
            .unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
        for name in ["", ".", "..", "a/b", "/etc/x", "a\0b"] {
            assert!(folder.write(name, b"").is_err(), "{name:?}");
        }
    }
}

#[test]
fn many_runs_at_once_are_apart_and_leave_no_folder() {
    for held in all() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let sandbox = held
            .roomy()
            .with(|config| {
                config.folder = Some(parent.path().to_path_buf());
                config.wall_seconds = 20.0;
            })
            .sandbox;
        thread::scope(|scope| {
            for worker in 0..8 {
                let sandbox = &sandbox;
                scope.spawn(move || {
                    for round in 0..6 {
                        let folder = sandbox.folder().unwrap();
                        let program = "import os, sys\nopen('x', 'x').write(sys.stdin.read())\nprint(open('x').read(), os.listdir('.'))";
                        folder.write("main.py", program.as_bytes()).unwrap();
                        let input = format!("{worker}-{round}");
                        let command = Command::new(interpreter()).argument(folder.path("main.py")).input(input.as_str());
                        let ran = folder.run(&command).unwrap();
                        assert_eq!(text(&ran.output), format!("{input} ['x']"), "{}", text(&ran.errors));
                        assert_eq!(ran.ended, Ended::Exit(0));
                    }
                });
            }
        });
        assert_eq!(
            fs::read_dir(parent.path()).unwrap().count(),
            0,
            "{}",
            held.name
        );
    }
}

/// Not a test by itself: what `the_run_dies_with_the_judge` starts and kills.
#[test]
fn victim() {
    let (Ok(file), Ok(which)) = (
        std::env::var("RLVR_TEST_VICTIM"),
        std::env::var("RLVR_TEST_WHICH"),
    ) else {
        return;
    };
    let held = all().iter().find(|held| held.name == which).unwrap();
    held.python_as(
        &file,
        "import time\nprint('up', flush=True)\ntime.sleep(60)",
        &[],
    );
}

#[test]
fn the_run_dies_with_the_judge() {
    for held in all() {
        let name = marker();
        let litter = tempfile::tempdir().unwrap();
        fs::set_permissions(litter.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut judge = process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env("RLVR_TEST_VICTIM", &name)
            .env("RLVR_TEST_WHICH", held.name)
            // What a judge that is killed cannot remove.
            .env("TMPDIR", litter.path())
            .stderr(process::Stdio::null())
            .stdout(process::Stdio::null())
            .spawn()
            .unwrap();
        let wait = |until: bool| {
            let begun = Instant::now();
            while alive(&name).is_empty() == until && begun.elapsed() < Duration::from_secs(20) {
                thread::sleep(Duration::from_millis(5));
            }
            !alive(&name).is_empty()
        };
        assert!(wait(true), "{}: it did not start", held.name);
        judge.kill().unwrap();
        judge.wait().unwrap();
        let begun = Instant::now();
        assert!(!wait(false), "{}: {:?}", held.name, alive(&name));
        // Not by its own limit.
        assert!(begun.elapsed().as_secs_f64() < WALL / 2.0, "{}", held.name);
    }
}
