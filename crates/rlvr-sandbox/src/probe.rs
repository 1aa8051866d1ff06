//! Finds out what this machine grants, by doing it.

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

/// A file that every machine has and no program needs.
const NOT_FOR_PROGRAMS: &CStr = c"/etc/passwd";

/// What is in force, and what was found.
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
    refuse_less(config, &report)?;
    // All together: one may be in the way of another.
    let everything = probe.found.clone();
    if let Err(why) = probe.with(&everything, probe.checks(&everything)) {
        return Err(Error::config(
            "measures",
            format!("cannot be taken together: {why}"),
            "other limits, or fewer measures",
        ));
    }
    Ok((probe.found, report))
}

/// An error if something is missing that was asked for.
fn refuse_less(config: &SandboxConfig, report: &SandboxReport) -> Result<()> {
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
        format!("required, but not to be had here ({})", reasons.join("; ")),
        "a machine that grants it, or `if_available` to run with less confinement",
    ))
}

struct Probe<'a> {
    config: &'a SandboxConfig,
    folder: &'a RunFolder,
    found: Confinement,
}

impl Probe<'_> {
    /// Tries one measure by itself: how it is in force, or why not.
    fn attempt(&mut self, measure: Measure) -> Result<String, String> {
        let mut alone = Confinement {
            measures: BTreeSet::from([measure]),
            ..self.found.clone()
        };
        match measure {
            Measure::UnprivilegedUser => {
                let own = rustix::process::geteuid();
                if !own.is_root() {
                    return Ok(format!("user {} starts it", own.as_raw()));
                }
                let users = Users::get().ok_or("root is the only user in this user namespace")?;
                self.with(&alone, vec![Step::Check(Check::NotRoot)])?;
                Ok(format!("each run is another user, from {} on", users.first))
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
                // With a pid namespace the view gets a /proc of those processes. Some containers do not let it be mounted,
                // and without the namespace it would show the others: then there is none.
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
                Ok("a list of calls".into())
            }
            Measure::ResourceLimits => {
                self.with(&alone, Vec::new())?;
                if rustix::process::geteuid().is_root()
                    && !self.found.has(Measure::UnprivilegedUser)
                {
                    return Err("the limit on processes does not bind root".into());
                }
                // The kernel counts processes by user, and in each user namespace apart.
                let counts_apart = rustix::process::geteuid().is_root()
                    || self
                        .found
                        .measures
                        .iter()
                        .any(|measure| measure.is_namespace());
                Ok(match counts_apart {
                    true => "for each process".into(),
                    false => "for each process; other processes of this user count".into(),
                })
            }
        }
    }

    fn makers(&self) -> String {
        match self.found.namespaces {
            Namespaces::ByRoot => "made by root".into(),
            Namespaces::ByUser => "made in a user namespace".into(),
        }
    }

    /// What must hold from inside if these measures are in force.
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

    /// Runs a process that is held by these measures, does `more`, and ends.
    fn with(&self, confinement: &Confinement, more: Vec<Step>) -> Result<(), String> {
        let wants_user =
            confinement.has(Measure::UnprivilegedUser) && rustix::process::geteuid().is_root();
        let user = match wants_user {
            true => Users::get().map(Users::take),
            false => None,
        };
        // The probe's folder is root's, and another user would not get in; a run's folder is its user's.
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

    /// A kernel without landlock and namespaces.
    fn poor() -> SandboxReport {
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
    fn less_than_is_asked_for_is_an_error_with_every_reason() {
        let config = SandboxConfig::default();
        let error = refuse_less(&config, &poor()).unwrap_err().to_string();
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
        let error = refuse_less(&some, &poor()).unwrap_err().to_string();
        assert!(error.starts_with("invalid `measures.landlock`"), "{error}");
        refuse_less(&some.with(Measure::Landlock, Need::Off), &poor()).unwrap();
        refuse_less(&config.allow_less(), &poor()).unwrap();
    }
}
