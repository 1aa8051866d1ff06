//! No sandbox: systems other than Linux have other means of confinement, and none of them is used yet.

use std::time::Duration;

use super::{Command, Ended, Ran, SandboxConfig, SandboxReport, Written};
use crate::reward::RewardError;
use crate::{Error, Result};

/// There is none.
pub(in crate::reward::code) enum Confined {}

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

    pub(super) fn folder(&self) -> Result<Place, RewardError> {
        match *self {}
    }
}

/// There is none.
pub(in crate::reward::code) enum Place {}

impl Place {
    pub(super) fn write(&self, _: &str, _: &[u8]) -> Result<(), RewardError> {
        match *self {}
    }

    pub(super) fn path(&self, _: &str) -> String {
        match *self {}
    }

    pub(super) fn run(&self, _: &Command) -> Result<Ran, RewardError> {
        match *self {}
    }

    pub(super) fn start(&self, _: &Command, _: Vec<(i32, Wire)>) -> Result<Started, RewardError> {
        match *self {}
    }
}

/// There is none.
pub(in crate::reward::code) enum Started {}

impl Started {
    pub(in crate::reward::code) fn finish(
        self,
        _: Patience,
    ) -> Result<(Ended, Written), RewardError> {
        match self {}
    }
}

/// As on Linux.
#[allow(dead_code)]
pub(in crate::reward::code) enum Wire {
    Null,
    Feed(Vec<u8>),
    Dialog(Vec<Vec<u8>>),
    Keep { most: usize, kill: bool },
    Given(()),
}

/// As on Linux.
#[allow(dead_code)]
pub(in crate::reward::code) struct Patience {
    pub(in crate::reward::code) wall: Duration,
    pub(in crate::reward::code) total: Duration,
    pub(in crate::reward::code) progress: Option<(i32, usize)>,
}

/// As on Linux.
pub(in crate::reward::code) fn pipes() -> std::io::Result<[(); 4]> {
    Err(std::io::ErrorKind::Unsupported.into())
}
