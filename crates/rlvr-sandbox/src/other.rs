//! The implementation on systems other than Linux, whose means of confinement are not supported: a
//! sandbox cannot be created.

use super::{
    Captured, Command, Error, Exit, Output, Result, SandboxConfig, SandboxReport, Stdio, Timeout,
};

/// Has no values.
pub(crate) enum Confined {}

impl Confined {
    pub(super) fn new(_: SandboxConfig) -> Result<(Self, SandboxReport)> {
        Err(Error::config(
            "sandbox",
            std::env::consts::OS,
            "Linux, the only supported system",
        ))
    }

    pub(super) fn config(&self) -> &SandboxConfig {
        match *self {}
    }

    pub(super) fn folder(&self) -> Result<Place> {
        match *self {}
    }
}

/// Has no values.
pub(crate) enum Place {}

impl Place {
    pub(super) fn write(&self, _: &str, _: &[u8]) -> Result<()> {
        match *self {}
    }

    pub(super) fn path(&self, _: &str) -> String {
        match *self {}
    }

    pub(super) fn run(&self, _: &Command) -> Result<Output> {
        match *self {}
    }

    pub(super) fn spawn(&self, _: &Command, _: Vec<(i32, Stdio)>) -> Result<Started> {
        match *self {}
    }
}

/// Has no values.
pub(crate) enum Started {}

impl Started {
    pub(crate) fn wait(self, _: Timeout) -> Result<(Exit, Captured)> {
        match self {}
    }
}

/// Has no values.
#[derive(Debug)]
pub(crate) enum Descriptor {}

impl From<Descriptor> for std::fs::File {
    fn from(descriptor: Descriptor) -> Self {
        match descriptor {}
    }
}

/// Always an error.
pub(crate) fn pipe() -> Result<(Descriptor, Descriptor)> {
    Err(Error::Wait(std::io::ErrorKind::Unsupported.into()))
}
