//! The implementation on Linux.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::folder::RunFolder;
use super::plan::{Confinement, Process, exec};
use super::running::Running;
pub(crate) use super::running::pipe;
use super::users::{User, Users};
use super::{
    Captured, Command, Error, Exit, Measure, Output, Result, SandboxConfig, SandboxReport, Stdio,
    Timeout, probe, view,
};

/// The limits, and the confinement that enforces them.
pub(crate) struct Confined {
    config: SandboxConfig,
    parent: PathBuf,
    confinement: Arc<Confinement>,
}

impl Confined {
    pub(super) fn new(config: SandboxConfig) -> Result<(Self, SandboxReport)> {
        let parent = config.folder.clone().unwrap_or_else(std::env::temp_dir);
        // The path without links, which the mounts need.
        let parent = std::fs::canonicalize(&parent).map_err(|error| Error::io(&parent, error))?;
        let (confinement, report) = probe::probe(&config, &parent)?;
        let confined = Self {
            config,
            parent,
            confinement: Arc::new(confinement),
        };
        Ok((confined, report))
    }

    pub(super) fn config(&self) -> &SandboxConfig {
        &self.config
    }

    pub(super) fn folder(&self) -> Result<Place> {
        let other_user =
            self.confinement.has(Measure::UnprivilegedUser) && rustix::process::geteuid().is_root();
        let user = match other_user {
            true => Some(
                Users::get()
                    .ok_or_else(|| {
                        Error::Start("root has no other user IDs to run programs as".into())
                    })?
                    .take(),
            ),
            false => None,
        };
        let folder = RunFolder::new(&self.parent, user.as_ref().map(|user| user.id))
            .map_err(|error| Error::io(&self.parent, error))?;
        Ok(Place {
            folder,
            user,
            config: self.config.clone(),
            confinement: Arc::clone(&self.confinement),
        })
    }
}

/// Where a program runs. The folder is dropped before its user.
pub(crate) struct Place {
    folder: RunFolder,
    user: Option<User>,
    config: SandboxConfig,
    confinement: Arc<Confinement>,
}

impl Place {
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let failed = |error| Error::io(self.folder.place.files.join(name), error);
        self.folder.write(name, bytes).map_err(failed)
    }

    fn has_own_view(&self) -> bool {
        self.confinement.has(Measure::MountNamespace)
    }

    pub(super) fn path(&self, name: &str) -> String {
        match self.has_own_view() {
            true => format!("{}/{name}", view::BOX),
            false => self.folder.place.files.join(name).display().to_string(),
        }
    }

    pub(super) fn run(&self, command: &Command) -> Result<Output> {
        let limit = self.config.output_bytes as usize;
        let stdio = vec![
            (0, Stdio::Input(command.input.clone())),
            (1, Stdio::Capture { limit, kill: true }),
            (2, Stdio::Capture { limit, kill: false }),
        ];
        let timeout = Timeout {
            wall: self.config.wall(),
            total: self.config.wall(),
            progress: None,
        };
        let started = Instant::now();
        let (exit, mut captured) = self.spawn(command, stdio)?.wait(timeout)?;
        let mut take = |number| {
            let at = captured.iter().position(|(other, _)| *other == number);
            at.map_or_else(Vec::new, |at| captured.swap_remove(at).1)
        };
        Ok(Output {
            exit,
            stdout: take(1),
            stderr: take(2),
            wall: started.elapsed(),
        })
    }

    pub(super) fn spawn(&self, command: &Command, stdio: Vec<(i32, Stdio)>) -> Result<Started> {
        if !self.has_own_view() {
            let scratch = &self.folder.place.scratch;
            self.folder
                .empty_scratch()
                .map_err(|error| Error::io(scratch, error))?;
        }
        let home = match self.has_own_view() {
            true => view::TMP.to_string(),
            false => self.folder.place.scratch.display().to_string(),
        };
        let mut environment: Vec<(String, String)> = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("HOME", &home),
            ("TMPDIR", &home),
            ("LANG", "C.UTF-8"),
            ("OMP_NUM_THREADS", "1"),
            ("OPENBLAS_NUM_THREADS", "1"),
            ("MKL_NUM_THREADS", "1"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into();
        environment.extend(command.environment.iter().cloned());
        let user = self.user.as_ref().map(|user| user.id);
        let process = Process {
            place: &self.folder.place,
            user,
            may_write_files: command.may_write_files,
            cpu_seconds: self.config.cpu_seconds.saturating_mul(command.cpu_factor),
            then: exec(&command.program, &command.arguments, &environment).map_err(Error::Start)?,
        };
        let prepared = self
            .confinement
            .prepare(&self.config, process, Vec::new())
            .map_err(Error::Start)?;
        let is_group = self.confinement.is_group();
        let running = Running::start(&prepared, stdio, is_group, user)
            .map_err(|error| Error::Start(error.to_string()))?;
        Ok(Started(running))
    }
}

/// A descriptor of this process.
pub(crate) type Descriptor = std::os::fd::OwnedFd;

/// A running program. Dropping it kills the program.
pub(crate) struct Started(Running);

impl Started {
    /// Waits for the program, and returns how it ended and what it wrote to each descriptor.
    pub(crate) fn wait(self, timeout: Timeout) -> Result<(Exit, Captured)> {
        let finished = self.0.finish(timeout).map_err(Error::Wait)?;
        Ok((finished.exit, finished.captured))
    }
}
