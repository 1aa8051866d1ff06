//! The files that a program may open: a Landlock ruleset, and the access rights of its rules.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    Scope,
};

use super::launch;

/// A kind of access to a file, or to everything in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Read and execute what is there.
    Programs,
    /// Read and list.
    Read,
    /// Read and write one file, such as `/dev/null`.
    Device,
    /// Everything but creating devices.
    Own,
}

/// The Landlock version of the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Landlock {
    /// The version of the interface, at least 1.
    pub(super) version: i32,
    abi: ABI,
}

impl Landlock {
    /// Asks the kernel. The error says why Landlock is not available.
    pub(super) fn find() -> Result<Self, String> {
        let version = launch::landlock_abi().map_err(|error| error.to_string())?;
        let abi = match version {
            ..1 => return Err(format!("the kernel's version is {version}")),
            1 => ABI::V1,
            2 => ABI::V2,
            3 => ABI::V3,
            4 => ABI::V4,
            5 => ABI::V5,
            6 => ABI::V6,
            7 => ABI::V7,
            8 => ABI::V8,
            9 => ABI::V9,
            _ => ABI::V10,
        };
        Ok(Self { version, abi })
    }

    /// Returns whether it stops signals to processes outside.
    pub(super) fn restricts_signals(self) -> bool {
        self.version >= 6
    }

    /// Describes what it restricts.
    pub(super) fn describe(self) -> String {
        let mut holds = vec!["files"];
        if self.version >= 4 {
            holds.push("TCP");
        }
        if self.restricts_signals() {
            holds.push("signals");
        }
        format!("version {}: {}", self.version, holds.join(", "))
    }

    /// Creates a ruleset without rules: it forbids every file, TCP connection and signal to
    /// processes outside.
    pub(super) fn ruleset(self) -> Result<OwnedFd, String> {
        let make = || {
            // An error if the kernel lacks a feature of its version, rather than a weaker ruleset.
            let mut ruleset = Ruleset::default()
                .set_compatibility(CompatLevel::HardRequirement)
                .handle_access(AccessFs::from_all(self.abi))?;
            if self.version >= 4 {
                ruleset = ruleset.handle_access(AccessNet::from_all(self.abi))?;
            }
            if self.restricts_signals() {
                ruleset = ruleset.scope(Scope::from_all(self.abi))?;
            }
            ruleset.create()
        };
        let ruleset = make().map_err(|error| error.to_string())?;
        let descriptor: Option<OwnedFd> = ruleset.into();
        descriptor.ok_or_else(|| "the kernel created no ruleset".to_string())
    }

    /// Returns the bits of a right in a rule. For a file, those that only folders have are invalid.
    pub(super) fn bits(self, right: Right, is_folder: bool) -> u64 {
        let device = AccessFs::MakeChar | AccessFs::MakeBlock;
        let mut bits: BitFlags<AccessFs> = match right {
            Right::Programs => AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir,
            Right::Read => AccessFs::ReadFile | AccessFs::ReadDir,
            Right::Device => AccessFs::ReadFile | AccessFs::WriteFile,
            Right::Own => AccessFs::from_all(self.abi) & !device,
        };
        bits &= AccessFs::from_all(self.abi);
        if !is_folder {
            bits &= AccessFs::from_file(self.abi);
        }
        bits.bits()
    }
}
