//! Loading of weights into an engine, and the check that follows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Protocol;
use super::control::{Control, Pause, Served};
use super::flight::{Shared, stale};
use super::http::{Kind, Trouble};
use super::probe::{Findings, Question, check_engine, compare};
use super::protocol::{self, Part};
use super::state::Status;
use super::weights::Target;
use crate::Error;
use crate::rollout::InFlight;

/// The time limit for requests to end after they were aborted, and again after their connections
/// were closed.
const GRACE: Duration = Duration::from_secs(10);

/// The reason that weights were not loaded, and its effect on requests in flight.
struct Failed {
    trouble: Trouble,
    /// The engine has its last valid weights again and continues.
    repaired: bool,
    /// Later answers of the engine must be discarded.
    tainted: bool,
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self {
            trouble,
            repaired: false,
            tainted: true,
        }
    }
}

/// The state of an engine before weights are loaded.
struct Before {
    control: Control,
    protocol: Protocol,
    good: Option<Arc<Target>>,
    checked: bool,
    findings: Findings,
    labels: bool,
}

/// The state of an engine after weights are loaded.
struct After {
    served: Served,
    findings: Findings,
    labels: bool,
}

impl Shared {
    /// Loads `target` into an engine and checks it. Afterwards the engine is in rotation, or out of
    /// it with a reason. The caller must hold [`loading`](Self::loading).
    pub(super) fn load_and_verify(
        &self,
        index: usize,
        target: &Arc<Target>,
    ) -> Result<(), Trouble> {
        let started = Instant::now();
        let before = {
            let mut state = self.lock();
            let engine = &mut state.engines[index];
            engine.status = Status::Loading;
            Before {
                control: engine.control.clone(),
                protocol: engine.address.protocol,
                good: engine.target.clone(),
                checked: engine.checked,
                findings: engine.findings,
                labels: engine.labels,
            }
        };
        let outcome = self.load(index, target, &before);
        let mut state = self.lock();
        state.counters.load_seconds += started.elapsed().as_secs_f64();
        let result = match outcome {
            Ok(after) => {
                let engine = &mut state.engines[index];
                engine.target = Some(target.clone());
                (engine.served, engine.findings, engine.labels) =
                    (after.served, after.findings, after.labels);
                (engine.status, engine.checked) = (Status::Ready, true);
                engine.reason.clear();
                (state.none_since, state.dead) = (None, None);
                state.adopt();
                Ok(())
            }
            Err(failed) => {
                if !failed.repaired {
                    state.engines[index].target = None;
                }
                state.take_out(index, &failed.trouble, !failed.repaired, failed.tainted);
                Err(failed.trouble)
            }
        };
        self.wake.notify_all();
        result
    }

    fn load(&self, index: usize, target: &Arc<Target>, before: &Before) -> Result<After, Failed> {
        let control = &before.control;
        // An engine that cannot be described has no new weights yet: requests in flight still use
        // the old ones.
        let served = control.describe().map_err(|trouble| Failed {
            trouble,
            repaired: false,
            tainted: false,
        })?;
        let labels = match target.adapter {
            true => {
                self.load_adapter(index, target, control)?;
                false
            }
            false => self.load_whole(index, target, before)?,
        };
        let findings = self.verify(target, before, &served, labels)?;
        Ok(After {
            served,
            findings,
            labels,
        })
    }

    /// Loads an adapter. Requests to other adapters continue.
    fn load_adapter(&self, index: usize, target: &Target, control: &Control) -> Result<(), Failed> {
        // The engine would reject an adapter that it has from an attempt whose answer was lost.
        if self.lock().engines[index]
            .adapters
            .contains_key(&target.version)
        {
            let _ = control.unload_adapter(&target.label);
        }
        self.lock().engines[index]
            .adapters
            .insert(target.version, target.label.clone());
        control
            .load_adapter(&target.folder, &target.label)
            .map_err(|trouble| Failed {
                trouble,
                // The engine is unchanged.
                repaired: true,
                tainted: false,
            })?;
        if self.config.in_flight == InFlight::Redo {
            self.lock().engines[index].cut_all(false);
        }
        Ok(())
    }

    /// Pauses the engine, loads and labels the weights, and resumes. Returns whether the engine
    /// supports labels.
    fn load_whole(&self, index: usize, target: &Target, before: &Before) -> Result<bool, Failed> {
        let control = &before.control;
        let how = match self.config.in_flight {
            InFlight::Continue { recompute } if before.findings.reports && before.labels => {
                Pause::Keep { recompute }
            }
            // The engine does not report versions, so nothing may be in flight: requests end with
            // their tokens so far and are continued afterwards.
            _ => Pause::Abort,
        };
        control.pause(how).map_err(|trouble| Failed {
            trouble,
            repaired: false,
            tainted: false,
        })?;
        if how == Pause::Abort {
            self.drain(index)?;
        }
        let labels = match control.load(&target.folder, &target.label, how) {
            Ok(labels) => labels,
            Err(trouble) => {
                let Some(good) = &before.good else {
                    return Err(Failed::from(trouble));
                };
                let again = control.load(&good.folder, &good.label, how);
                let repaired = again.and_then(|_| control.resume()).is_ok();
                return Err(Failed {
                    trouble,
                    repaired,
                    tainted: !repaired,
                });
            }
        };
        {
            let mut state = self.lock();
            state.engines[index].status = Status::Verifying;
        }
        control.resume()?;
        Ok(labels)
    }

    /// Waits until nothing is in flight at an engine that has aborted everything. The connection of
    /// a request that arrived after the abort, and waits there, is closed.
    fn drain(&self, index: usize) -> Result<(), Trouble> {
        let mut state = self.lock();
        for attempt in 0..2 {
            let until = Instant::now() + GRACE;
            while state.engines[index].active() > 0 && !state.stopping {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = Self::wait(&self.ended, state, left);
            }
            match (state.engines[index].active(), attempt) {
                (0, _) => return Ok(()),
                (_, 0) => state.engines[index].cut_all(false),
                _ => {}
            }
        }
        let count = state.engines[index].active();
        let reason = format!("{count} requests did not end after they were aborted");
        Err(Trouble::new(Kind::TimedOut, reason, "restart the engine"))
    }

    /// Compares the engine's log-probs of fixed texts with the policy's, and runs the other checks
    /// if they were not run before.
    fn verify(
        &self,
        target: &Target,
        before: &Before,
        served: &Served,
        labels: bool,
    ) -> Result<Findings, Trouble> {
        let model = match target.adapter {
            true => &target.label,
            false => &served.model,
        };
        let vocabulary = target.fingerprint.vocabulary;
        let ask = |question: &Question| {
            let order = question.order(model, target.adapter, &target.label, vocabulary);
            self.with_retries(|| {
                let limit = self.config.load_timeout;
                match protocol::ask(&before.control.client, before.protocol, &order, limit) {
                    (part, None) => Ok(part),
                    (_, Some(trouble)) => Err(trouble),
                }
            })
        };
        let tolerance = self.config.tolerance;
        let expected = &target.fingerprint;
        let compared = compare(&ask, before.protocol, expected, tolerance)?;
        let findings = match before.checked {
            true => before.findings,
            false => check_engine(&ask, before.protocol, expected, tolerance, &compared)?,
        };
        if target.adapter {
            return Ok(findings);
        }
        if let (true, Some(spans)) = (labels, &compared.spans)
            && let Some((found, _)) = spans.iter().find(|(label, _)| *label != target.label)
        {
            return Err(stale(found, &target.label));
        }
        let findings = Findings {
            reports: findings.reports && labels,
            ..findings
        };
        if self.config.in_flight == (InFlight::Continue { recompute: false }) && !findings.reports {
            let reason = "its answers do not report which weights sampled which tokens";
            let remedy = "InFlight::Continue { recompute: false } needs vLLM 0.33, or vllm-generate= with 0.32; otherwise set recompute";
            return Err(Trouble::new(Kind::Refused, reason, remedy));
        }
        if !findings.seeded {
            tracing::warn!(
                model,
                "the engine does not honour seeds: completions are not reproducible"
            );
        }
        Ok(findings)
    }

    /// Retries up to twice if the connection breaks or the engine is busy.
    fn with_retries(&self, ask: impl Fn() -> Result<Part, Trouble>) -> Result<Part, Trouble> {
        let mut result = ask();
        for _ in 0..2 {
            match &result {
                Err(trouble) if matches!(trouble.kind, Kind::Broken | Kind::Busy(_)) => {
                    self.sleep(Duration::from_millis(300));
                    result = ask();
                }
                _ => break,
            }
        }
        result
    }

    /// The versions whose folders are still in use.
    pub(super) fn versions_in_use(&self) -> BTreeSet<u64> {
        let state = self.lock();
        let engines = state.engines.iter();
        let adapters = engines
            .clone()
            .flat_map(|engine| engine.adapters.keys().copied());
        let targets = engines
            .filter_map(|engine| engine.target.as_ref())
            .map(|target| target.version);
        let current = state.current.iter().map(|target| target.version);
        adapters.chain(targets).chain(current).collect()
    }

    /// Converts a failure of an engine to an error.
    pub(super) fn error(&self, index: usize, request: &str, trouble: Trouble) -> Error {
        Error::Engine {
            engine: self.config.engines[index].to_string(),
            request: request.to_string(),
            reason: trouble.reason,
            remedy: trouble.remedy,
        }
    }
}
