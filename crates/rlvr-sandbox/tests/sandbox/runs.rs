//! Runs from start to end, whatever the program does.

use super::*;

#[test]
fn a_harmless_program_runs() {
    for held in all() {
        let ran = held.python("import sys\nfor line in sys.stdin: print(int(line) * 2)");
        assert_eq!(
            ran.exit,
            Exit::Status(0),
            "{}: {}",
            held.name,
            text(&ran.stderr)
        );
        let folder = held.sandbox.folder().unwrap();
        folder.write("main.py", b"import sys\nsys.stdout.write(sys.stdin.read())\nopen('own', 'w').write('x')\nsys.exit(3)").unwrap();
        let input = "0123456789abcde\n".repeat(4095);
        let command = Command::new(interpreter())
            .argument(folder.path("main.py"))
            .input(input.as_str());
        let ran = folder.run(&command).unwrap();
        assert_eq!(
            (ran.exit, ran.stdout == input.as_bytes()),
            (Exit::Status(3), true),
            "{}: {}",
            held.name,
            text(&ran.stderr)
        );
        // The next run does not find what this one wrote.
        folder
            .write(
                "next.py",
                b"import os\nprint(os.listdir('.'), os.path.exists('own'))",
            )
            .unwrap();
        let ran = folder
            .run(&Command::new(interpreter()).argument(folder.path("next.py")))
            .unwrap();
        assert_eq!(text(&ran.stdout), "[] False", "{}", held.name);
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
        time.sleep(600)
    os._exit(0)
os.wait()
print("left")
"#;
    for held in all() {
        // Without a pid namespace, seccomp keeps the processes in one group, or the user belongs to
        // the run.
        if !(held.has(Measure::PidNamespace) || held.has(Measure::Seccomp) || held.has_own_user()) {
            eprintln!("{}: nothing tracks the processes of a run here", held.name);
            continue;
        }
        let name = marker();
        let ran = held.roomy().python_as(&name, program, &[]);
        assert_eq!(
            (ran.exit, text(&ran.stdout).as_str()),
            (Exit::Status(0), "left"),
            "{}: {}",
            held.name,
            text(&ran.stderr)
        );
        assert_eq!(alive(&name), Vec::<String>::new(), "{}", held.name);
    }
}

#[test]
fn a_run_does_not_wait_for_a_child_that_holds_the_output() {
    for held in all() {
        let held = held.roomy();
        let ran =
            held.python("import os, time\nif os.fork() == 0:\n    time.sleep(600)\nprint('done')");
        assert_eq!(
            (ran.exit, text(&ran.stdout).as_str()),
            (Exit::Status(0), "done"),
            "{}",
            held.name
        );
    }
}

#[test]
fn a_program_that_cannot_be_started_is_an_error() {
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
fn concurrent_runs_are_separate_and_leave_no_folder() {
    for held in all() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let sandbox = held
            .roomy()
            .with(|config| config.folder = Some(parent.path().to_path_buf()))
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
                        assert_eq!(text(&ran.stdout), format!("{input} ['x']"), "{}", text(&ran.stderr));
                        assert_eq!(ran.exit, Exit::Status(0));
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

/// Not a test: the process that `a_run_ends_with_the_process_that_started_it` starts and kills.
#[test]
#[ignore = "started by another test"]
fn parent() {
    let (Ok(file), Ok(which)) = (
        std::env::var("RLVR_TEST_FILE"),
        std::env::var("RLVR_TEST_WHICH"),
    ) else {
        return;
    };
    let held = all().iter().find(|held| held.name == which).unwrap();
    held.with(|config| config.wall_seconds = SLEEP as f64)
        .python_as(&file, &format!("import time\ntime.sleep({SLEEP})"), &[]);
}

#[test]
fn a_run_ends_with_the_process_that_started_it() {
    for held in all() {
        let name = marker();
        let litter = tempfile::tempdir().unwrap();
        fs::set_permissions(litter.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut parent = process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runs::parent", "--ignored"])
            .env("RLVR_TEST_FILE", &name)
            .env("RLVR_TEST_WHICH", held.name)
            // A process that is killed does not remove its folders.
            .env("TMPDIR", litter.path())
            .stderr(process::Stdio::null())
            .stdout(process::Stdio::null())
            .spawn()
            .unwrap();
        let wait = |until: bool| {
            let begun = Instant::now();
            while alive(&name).is_empty() == until && begun.elapsed() < Duration::from_secs(120) {
                thread::sleep(Duration::from_millis(5));
            }
            !alive(&name).is_empty()
        };
        assert!(wait(true), "{}: it did not start", held.name);
        parent.kill().unwrap();
        parent.wait().unwrap();
        // The program sleeps for longer than `wait` waits.
        assert!(!wait(false), "{}: {:?}", held.name, alive(&name));
    }
}
