//! No sandbox: systems other than Linux have other means of confinement, and none of them is used yet.

use super::{
    Captured, Command, Error, Exit, Output, Result, SandboxConfig, SandboxReport, Stdio, Timeout,
};

/// There is none.
pub(crate) enum Confined {}

impl Confined {
    pub(super) fn new(_: SandboxConfig) -> Result<(Self, SandboxReport)> {
        Err(Error::config(
            "sandbox",
            std::env::consts::OS,
            "Linux, the only system on which programs are confined",
        ))
    }

    pub(super) fn config(&self) -> &SandboxConfig {
        match *self {}
    }

    pub(super) fn folder(&self) -> Result<Place> {
        match *self {}
    }
}

/// There is none.
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

/// There is none.
pub(crate) enum Started {}

impl Started {
    pub(crate) fn wait(self, _: Timeout) -> Result<(Exit, Captured)> {
        match self {}
    }
}

/// There is none.
#[derive(Debug)]
pub(crate) enum Descriptor {}

impl From<Descriptor> for std::fs::File {
    fn from(descriptor: Descriptor) -> Self {
        match descriptor {}
    }
}

/// An error: without a sandbox there is nothing to connect.
pub(crate) fn pipe() -> Result<(Descriptor, Descriptor)> {
    Err(Error::Wait(std::io::ErrorKind::Unsupported.into()))
}
