//! Programs that try to reach what is outside of the sandbox.

use super::*;

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
        assert_eq!(ran.exit, Exit::Status(0), "{}", text(&ran.stderr));
        let output = text(&ran.stdout);
        // The root of the program's own mount namespace may be listed: there is nothing in it.
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
fn nothing_is_written_outside_not_even_through_a_link() {
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
        // Landlock does not protect attributes; a mount namespace does.
        if held.has(Measure::MountNamespace) {
            arguments.push("attributes");
        }
        let ran = held.python_as("attack.py", program, &arguments);
        let output = text(&ran.stdout);
        // Without a mount namespace, making a folder unreadable may itself be an error.
        let refused = ran.exit != Exit::Status(0) && text(&ran.stderr).contains("os.chmod(\"a/b\"");
        assert!(
            ran.exit == Exit::Status(0) || refused,
            "{}: {}",
            held.name,
            text(&ran.stderr)
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
fn no_network_and_no_foreign_socket_is_reached() {
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
            ran.exit,
            Exit::Status(0),
            "{}: {}",
            held.name,
            text(&ran.stderr)
        );
        let output = text(&ran.stdout);
        let called = listener.accept().is_ok() || local.accept().is_ok();
        if held.has(Measure::Seccomp) {
            assert_eq!((output.as_str(), called), ("", false), "{}", held.name);
        } else if held.has(Measure::NetworkNamespace) && held.has(Measure::MountNamespace) {
            // Sockets can be made, but are connected to nothing.
            let reached = called || output.contains("connected") || output.contains("sent");
            assert!(!reached, "{}: {output}", held.name);
        }
    }
}

#[test]
fn signals_do_not_reach_processes_outside() {
    let mut bystander = process::Command::new("/bin/sleep")
        .arg(SLEEP.to_string())
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
        // Without any of these measures, a program of an ordinary user may signal all of that
        // user's processes.
        let report = held.sandbox.report().to_string();
        let scoped = held.has(Measure::Landlock) && report.contains("signals");
        if !(held.has(Measure::PidNamespace)
            || held.has(Measure::Seccomp)
            || scoped
            || held.has_own_user())
        {
            eprintln!("{}: nothing stops signals here", held.name);
            continue;
        }
        let ran = held.python_as("attack.py", program, &[&own, &other]);
        // Its signal to every process may end the program itself.
        let output = text(&ran.stdout);
        assert!(
            output == "end" || output.is_empty(),
            "{}: {output} {}",
            held.name,
            text(&ran.stderr)
        );
        assert!(bystander.try_wait().unwrap().is_none(), "{}", held.name);
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn the_environment_is_not_the_callers() {
    for held in all() {
        let ran = held.python("import os\nprint(sorted(os.environ))");
        let expected = "['HOME', 'LANG', 'MKL_NUM_THREADS', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH', 'TMPDIR']";
        let output = text(&ran.stdout).replace(", 'LC_CTYPE'", "");
        assert_eq!(output, expected, "{}", held.name);
    }
}

#[test]
fn privileges_cannot_be_gained() {
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
    // Calls that only seccomp stops.
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
        let output = text(&ran.stdout);
        assert_eq!(
            ran.exit,
            Exit::Status(0),
            "{}: {}",
            held.name,
            text(&ran.stderr)
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
fn a_program_sees_only_its_own_processes() {
    let apart = |held: &&Held| held.has(Measure::PidNamespace) && held.holds_files();
    for held in all().iter().filter(apart) {
        let program = "import os\nprint(os.getpid(), os.getppid())\ntry:\n    print(sorted(p for p in os.listdir('/proc') if p.isdigit()))\nexcept OSError:\n    print('none')";
        let ran = held.python(program);
        let output = text(&ran.stdout);
        let expected = ["1 0\n['1']", "1 0\nnone", "1 0\n[]"];
        assert!(
            expected.contains(&output.as_str()),
            "{}: {output}",
            held.name
        );
    }
}

#[test]
fn a_program_that_locks_its_folders_does_not_stop_the_next_run() {
    for held in all() {
        let folder = held.sandbox.folder().unwrap();
        let lock = b"import os\nfor path in ('.', os.path.dirname(__file__), '..'):\n    try:\n        os.chmod(path, 0)\n    except OSError:\n        pass\nprint('end')";
        folder.write("lock.py", lock).unwrap();
        folder.write("next.py", b"print('next')").unwrap();
        let command = Command::new(interpreter()).argument(folder.path("lock.py"));
        for _ in 0..2 {
            let ran = folder.run(&command).unwrap();
            assert_eq!(
                text(&ran.stdout),
                "end",
                "{}: {}",
                held.name,
                text(&ran.stderr)
            );
        }
        let ran = folder
            .run(&Command::new(interpreter()).argument(folder.path("next.py")))
            .unwrap();
        assert_eq!(
            text(&ran.stdout),
            "next",
            "{}: {}",
            held.name,
            text(&ran.stderr)
        );
    }
}
