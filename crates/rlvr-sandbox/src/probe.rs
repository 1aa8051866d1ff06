//! Finds the available measures by trying them.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::path::Path;

use super::folder::RunFolder;
use super::landlock::Landlock;
use super::plan::{Confinement, Namespaces, Process};
use super::step::{Check, Step, Then};
use super::users::Users;
use super::view::Readable;
use super::{Error, Measure, MeasureState, Need, Result, SandboxConfig, SandboxReport};

/// A file that every machine has and that programs must not read.
const NOT_FOR_PROGRAMS: &CStr = c"/etc/passwd";

/// Returns the confinement in force, and the report about it.
pub(super) fn probe(config: &SandboxConfig, parent: &Path) -> Result<(Confinement, SandboxReport)> {
    let folder = RunFolder::new(parent, None).map_err(|error| Error::io(parent, error))?;
    let mut probe = Probe {
        config,
        folder: &folder,
        found: Confinement {
            measures: BTreeSet::new(),
            namespaces: match rustix::process::geteuid().is_root() {
                true => Namespaces::ByRoot,
                false => Namespaces::ByUser,
            },
            landlock: None,
            readable: Readable::new(&config.read_only),
            proc: true,
        },
    };
    let mut measures = Vec::new();
    for measure in Measure::ALL {
        let state = match config.need(measure) {
            Need::Off => MeasureState::Off,
            _ => match probe.attempt(measure) {
                Ok(how) => MeasureState::Yes(how),
                Err(why) => MeasureState::No(why),
            },
        };
        if matches!(state, MeasureState::Yes(_)) {
            probe.found.measures.insert(measure);
        }
        measures.push((measure, state));
    }
    let report = SandboxReport { measures };
    check_required(config, &report)?;
    // All together, because one may prevent another.
    let everything = probe.found.clone();
    if let Err(why) = probe.with(&everything, probe.checks(&everything)) {
        return Err(Error::config(
            "measures",
            format!("do not work together: {why}"),
            "other limits, or fewer measures",
        ));
    }
    Ok((probe.found, report))
}

/// Returns an error if a required measure is missing.
fn check_required(config: &SandboxConfig, report: &SandboxReport) -> Result<()> {
    let missing: Vec<(Measure, &str)> = report
        .measures
        .iter()
        .filter_map(|(measure, state)| match state {
            MeasureState::No(why) if config.need(*measure) == Need::Required => {
                Some((*measure, why.as_str()))
            }
            _ => None,
        })
        .collect();
    let Some((first, _)) = missing.first() else {
        return Ok(());
    };
    let reasons: Vec<String> = missing
        .iter()
        .map(|(measure, why)| format!("{measure}: {why}"))
        .collect();
    Err(Error::config(
        format!("measures.{first}"),
        format!("required, but not available ({})", reasons.join("; ")),
        "a machine that provides it, or `if_available` to run with less confinement",
    ))
}

struct Probe<'a> {
    config: &'a SandboxConfig,
    folder: &'a RunFolder,
    found: Confinement,
}

impl Probe<'_> {
    /// Tries one measure alone. Returns a description, or the reason why it is not available.
    fn attempt(&mut self, measure: Measure) -> Result<String, String> {
        let mut alone = Confinement {
            measures: BTreeSet::from([measure]),
            ..self.found.clone()
        };
        match measure {
            Measure::UnprivilegedUser => {
                let own = rustix::process::geteuid();
                if !own.is_root() {
                    return Ok(format!("started by user {}", own.as_raw()));
                }
                let users = Users::get().ok_or("root is the only user in this user namespace")?;
                self.with(&alone, vec![Step::Check(Check::NotRoot)])?;
                Ok(format!(
                    "each run has its own user, from {} on",
                    users.first
                ))
            }
            Measure::PidNamespace => {
                self.with(&alone, vec![Step::Check(Check::FirstProcess)])?;
                Ok(self.makers())
            }
            Measure::NetworkNamespace | Measure::IpcNamespace => {
                self.with(&alone, Vec::new())?;
                Ok(self.makers())
            }
            Measure::MountNamespace => {
                // With a pid namespace, `/proc` shows the processes of the run. Without one, it
                // would show all others and is not mounted; nor is it in containers that forbid it.
                if self.found.has(Measure::PidNamespace) {
                    alone.measures.insert(Measure::PidNamespace);
                } else {
                    alone.proc = false;
                }
                let checks = self.checks(&alone);
                let mut how = self.makers();
                if !alone.proc || self.with(&alone, checks).is_err() {
                    alone.proc = false;
                    self.with(&alone, self.checks(&alone))?;
                    how += ", without /proc";
                }
                self.found.proc = alone.proc;
                Ok(how)
            }
            Measure::Landlock => {
                let landlock = Landlock::find()?;
                alone.landlock = Some(landlock);
                self.with(&alone, self.checks(&alone))?;
                self.found.landlock = Some(landlock);
                Ok(landlock.describe())
            }
            Measure::Seccomp => {
                self.with(&alone, vec![Step::Check(Check::NoInternetSocket)])?;
                Ok("a list of forbidden calls".into())
            }
            Measure::ResourceLimits => {
                self.with(&alone, Vec::new())?;
                if rustix::process::geteuid().is_root()
                    && !self.found.has(Measure::UnprivilegedUser)
                {
                    return Err("the limit on processes does not apply to root".into());
                }
                // The kernel counts processes by user, separately in each user namespace.
                let counts_apart = rustix::process::geteuid().is_root()
                    || self
                        .found
                        .measures
                        .iter()
                        .any(|measure| measure.is_namespace());
                Ok(match counts_apart {
                    true => "for each process".into(),
                    false => "for each process; other processes of this user count too".into(),
                })
            }
        }
    }

    fn makers(&self) -> String {
        match self.found.namespaces {
            Namespaces::ByRoot => "created by root".into(),
            Namespaces::ByUser => "created in a user namespace".into(),
        }
    }

    /// Returns the checks that hold inside of a process if these measures are in force.
    fn checks(&self, confinement: &Confinement) -> Vec<Step> {
        let mut checks = Vec::new();
        let holds_files =
            confinement.has(Measure::MountNamespace) || confinement.has(Measure::Landlock);
        let passwd = Path::new(NOT_FOR_PROGRAMS.to_str().unwrap_or_default());
        if holds_files && !confinement.readable.holds(passwd) {
            checks.push(Check::Unreadable(NOT_FOR_PROGRAMS));
        }
        if confinement.has(Measure::Seccomp) {
            checks.push(Check::NoInternetSocket);
        }
        if confinement.has(Measure::UnprivilegedUser) {
            checks.push(Check::NotRoot);
        }
        if confinement.has(Measure::PidNamespace) {
            checks.push(Check::FirstProcess);
        }
        checks.into_iter().map(Step::Check).collect()
    }

    /// Runs a process with these measures and the steps `more`.
    fn with(&self, confinement: &Confinement, more: Vec<Step>) -> Result<(), String> {
        let wants_user =
            confinement.has(Measure::UnprivilegedUser) && rustix::process::geteuid().is_root();
        let user = match wants_user {
            true => Users::get().map(Users::take),
            false => None,
        };
        // The folder of the probe belongs to root. Another user needs its own, as a run has.
        let own;
        let folder = match &user {
            Some(user) => {
                let parent = self.folder.place.files.as_path();
                let parent = parent.ancestors().nth(2).unwrap_or(parent);
                own = RunFolder::new(parent, Some(user.id)).map_err(|error| error.to_string())?;
                &own
            }
            None => self.folder,
        };
        let process = Process {
            place: &folder.place,
            user: user.as_ref().map(|user| user.id),
            may_write_files: false,
            cpu_seconds: self.config.cpu_seconds,
            then: Then::Exit,
        };
        let prepared = confinement.prepare(self.config, process, more)?;
        let child = prepared.launch(&[]).map_err(|error| error.to_string())?;
        let ended = super::running::reap(&child).map_err(|error| error.to_string())?;
        match ended {
            super::Exit::Status(0) => Ok(()),
            other => Err(format!("a trial process ended with {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The report of a kernel without Landlock and namespaces.
    fn without_namespaces() -> SandboxReport {
        let measures = Measure::ALL.map(|measure| {
            let state = match measure {
                Measure::Landlock => MeasureState::No("Function not implemented".into()),
                measure if measure.is_namespace() => MeasureState::No("not permitted".into()),
                _ => MeasureState::Yes("here".into()),
            };
            (measure, state)
        });
        SandboxReport {
            measures: measures.into(),
        }
    }

    #[test]
    fn missing_required_measures_are_an_error_with_every_reason() {
        let config = SandboxConfig::default();
        let error = check_required(&config, &without_namespaces())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("invalid `measures.pid_namespace`: required"),
            "{error}"
        );
        assert!(error.contains("mount_namespace: not permitted"), "{error}");
        assert!(
            error.contains("landlock: Function not implemented"),
            "{error}"
        );
        assert!(!error.contains("seccomp"), "{error}");

        let mut some = config.clone();
        for measure in Measure::ALL.into_iter().filter(|one| one.is_namespace()) {
            some = some.with(measure, Need::IfAvailable);
        }
        let error = check_required(&some, &without_namespaces())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("invalid `measures.landlock`"), "{error}");
        check_required(
            &some.with(Measure::Landlock, Need::Off),
            &without_namespaces(),
        )
        .unwrap();
        check_required(&config.allow_less(), &without_namespaces()).unwrap();
    }
}
