//! Programs that attack the sandbox: each limit, with all measures and with some of them left out.
#![cfg(target_os = "linux")]

mod limits;
mod outside;
mod runs;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rlvr_sandbox::{Command, Exit, Measure, Need, Output, Sandbox, SandboxConfig};

/// The wall-clock limit of a run, in seconds. Only a program that sleeps reaches it.
const WALL: f64 = 60.0;

/// The time that a program sleeps until a limit or a signal ends it, in seconds.
const SLEEP: u64 = 600;

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

/// A sandbox under test.
struct Held {
    name: &'static str,
    sandbox: Sandbox,
}

impl Held {
    fn has(&self, measure: Measure) -> bool {
        self.sandbox.report().has(measure)
    }

    /// Whether each run has its own user, as it has if root starts it.
    fn has_own_user(&self) -> bool {
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        is_root && self.has(Measure::UnprivilegedUser)
    }

    /// Whether a measure protects the files outside.
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

    /// A higher limit on processes, for programs with children: without namespaces the kernel also
    /// counts this user's other processes.
    fn roomy(&self) -> Self {
        self.with(|config| config.processes = 400)
    }

    /// Runs a Python program.
    fn python(&self, program: &str) -> Output {
        self.python_as("attack.py", program, &[])
    }

    fn python_as(&self, file: &str, program: &str, arguments: &[&str]) -> Output {
        let folder = self.sandbox.folder().unwrap();
        folder.write(file, program.as_bytes()).unwrap();
        let mut command = Command::new(interpreter()).argument(folder.path(file));
        for argument in arguments {
            command = command.argument(*argument);
        }
        folder.run(&command).unwrap()
    }
}

/// A Python interpreter outside of the home folders, and the folders that it reads.
fn python() -> &'static (String, Vec<PathBuf>) {
    static FOUND: OnceLock<(String, Vec<PathBuf>)> = OnceLock::new();
    FOUND.get_or_init(|| {
        let candidates = ["/usr/bin/python3", "/usr/local/bin/python3"];
        let exists = candidates.into_iter().find(|path| Path::new(path).exists());
        let question = "import sys; print(sys.executable, sys.prefix, sys.base_prefix, sep='\\n')";
        let answer = process::Command::new(exists.unwrap_or("python3"))
            .args(["-c", question])
            .output()
            .unwrap();
        let answer = text(&answer.stdout);
        let mut paths: Vec<PathBuf> = answer.lines().skip(1).map(PathBuf::from).collect();
        let program = answer.lines().next().unwrap();
        paths.extend(Path::new(program).parent().map(Path::to_path_buf));
        paths.retain(|path| !path.starts_with("/usr") && path.parent().is_some());
        (program.to_string(), paths)
    })
}

fn interpreter() -> &'static str {
    &python().0
}

/// Sandboxes with all measures, and with some left out, to test the others alone.
fn all() -> &'static [Held] {
    static ALL: OnceLock<Vec<Held>> = OnceLock::new();
    ALL.get_or_init(|| {
        let config = SandboxConfig {
            read_only: python().1.clone(),
            ..limits()
        };
        let namespaces = Measure::ALL.into_iter().filter(|one| one.is_namespace());
        let without = |measures: &mut dyn Iterator<Item = Measure>| {
            measures.fold(config.clone().allow_less(), |config, measure| {
                config.with(measure, Need::Off)
            })
        };
        let whole = Sandbox::new(config.clone()).unwrap_or_else(|error| {
            // The machine lacks a measure: the error names it, and `allow_less` runs without it.
            let text = error.to_string();
            assert!(text.contains("invalid `measures."), "{text}");
            eprintln!("not every measure is available here: {text}");
            let less = Sandbox::new(config.clone().allow_less()).unwrap();
            assert!(!less.report().missing().is_empty());
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

/// A unique file name, by which the processes of a run are found.
fn marker() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("marked-{}-{count}.py", process::id())
}

/// The visible processes that were started with a file of this name.
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
