//! Runs from their beginning to their end, whatever the program does.

use super::*;

#[test]
fn an_honest_program_runs() {
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
fn a_child_that_holds_the_output_does_not_hold_the_judge() {
    for held in all() {
        let held = held.roomy();
        let ran =
            held.python("import os, time\nif os.fork() == 0:\n    time.sleep(60)\nprint('done')");
        assert_eq!(
            (ran.exit, text(&ran.stdout).as_str()),
            (Exit::Status(0), "done"),
            "{}",
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
            .args(["--exact", "runs::victim", "--nocapture"])
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
        // `wait` is over long before the program's sleep is.
        assert!(!wait(false), "{}: {:?}", held.name, alive(&name));
    }
}
