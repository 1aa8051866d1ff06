//! The sandbox on Linux.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::folder::RunFolder;
use super::plan::{Confinement, Process, exec};
use super::running::Running;
pub(in crate::reward::code) use super::running::{Patience, Wire, pipes};
use super::users::{User, Users};
use super::{Command, Measure, Ran, SandboxConfig, SandboxReport, Written, probe, view};
use crate::reward::RewardError;
use crate::reward::code::Ended;
use crate::{Error, Result};

/// Limits with what holds a program to them.
pub(in crate::reward::code) struct Confined {
    config: SandboxConfig,
    parent: PathBuf,
    confinement: Arc<Confinement>,
}

impl Confined {
    pub(super) fn new(config: SandboxConfig) -> Result<(Self, SandboxReport)> {
        let parent = config.folder.clone().unwrap_or_else(std::env::temp_dir);
        // What is mounted must have one name.
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

    pub(super) fn folder(&self) -> Result<Place, RewardError> {
        let other_user =
            self.confinement.has(Measure::UnprivilegedUser) && rustix::process::geteuid().is_root();
        let user = match other_user {
            true => Some(Users::get().ok_or("no users to run programs as")?.take()),
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

/// Where a program runs. The folder goes before its user is given back.
pub(in crate::reward::code) struct Place {
    folder: RunFolder,
    user: Option<User>,
    config: SandboxConfig,
    confinement: Arc<Confinement>,
}

impl Place {
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RewardError> {
        Ok(self.folder.write(name, bytes)?)
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

    pub(super) fn run(&self, command: &Command) -> Result<Ran, RewardError> {
        let most = self.config.output_bytes as usize;
        let wires = vec![
            (0, Wire::Feed(command.input.clone())),
            (1, Wire::Keep { most, kill: true }),
            (2, Wire::Keep { most, kill: false }),
        ];
        let patience = Patience {
            wall: self.config.wall(),
            total: self.config.wall(),
            progress: None,
        };
        let started = Instant::now();
        let (ended, mut written) = self.start(command, wires)?.finish(patience)?;
        let mut take = |number| {
            let at = written.iter().position(|(other, _)| *other == number);
            at.map_or_else(Vec::new, |at| written.swap_remove(at).1)
        };
        Ok(Ran {
            ended,
            output: take(1),
            errors: take(2),
            wall: started.elapsed(),
        })
    }

    pub(super) fn start(
        &self,
        command: &Command,
        wires: Vec<(i32, Wire)>,
    ) -> Result<Started, RewardError> {
        if !self.has_own_view() {
            self.folder.empty_scratch()?;
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
            then: exec(&command.program, &command.arguments, &environment)?,
        };
        let prepared = self
            .confinement
            .prepare(&self.config, process, Vec::new())?;
        let is_group = self.confinement.is_group();
        let running = Running::start(&prepared, wires, is_group, user)
            .map_err(|error| format!("the sandbox could not start the program: {error}"))?;
        Ok(Started(running))
    }
}

/// A program under way; it ends with this value.
pub(in crate::reward::code) struct Started(Running);

impl Started {
    /// Waits for it within `patience`; how it ended, and what it wrote by descriptor.
    pub(in crate::reward::code) fn finish(
        self,
        patience: Patience,
    ) -> Result<(Ended, Written), RewardError> {
        let finished = self.0.finish(patience)?;
        Ok((finished.ended, finished.written))
    }
}
