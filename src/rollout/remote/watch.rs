//! Supervision of engines: a dead engine leaves the rotation, and a recovered one returns with the
//! current weights.

use std::sync::{Arc, TryLockError};
use std::time::{Duration, Instant};

use super::control::Control;
use super::flight::{Shared, stale};
use super::http::{Kind, Trouble};
use super::state::{Engine, Status};
use super::weights::Target;

/// How often engines are checked.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The longest wait between two attempts to reload an engine.
const LONGEST: Duration = Duration::from_secs(60);
/// The number of consecutive health checks that may time out.
const LATE: u32 = 3;

impl Shared {
    /// Waits, but not beyond shutdown. Returns whether shutdown has begun.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.stopping || left.is_zero() {
                return state.stopping;
            }
            state = Self::wait(&self.wake, state, left);
        }
    }

    /// How often engines are checked.
    pub(super) fn heartbeat(&self) -> Duration {
        HEARTBEAT
            .min(self.config.retry_for / 4)
            .max(Duration::from_millis(20))
    }

    /// Supervises an engine until shutdown: takes it out of rotation when it dies, and brings it
    /// back when it recovers.
    pub(super) fn supervise(&self, index: usize) {
        let (mut late, mut wait, mut again) = (0, self.heartbeat(), Instant::now());
        while !self.sleep(self.heartbeat()) {
            let (status, control, current) = {
                let state = self.lock();
                let engine = &state.engines[index];
                (engine.status, engine.control.clone(), state.current.clone())
            };
            match status {
                Status::Ready => {
                    (wait, again) = (self.heartbeat(), Instant::now());
                    late = match self.look(index, &control) {
                        Err(trouble) if trouble.kind == Kind::TimedOut && late + 1 < LATE => {
                            late + 1
                        }
                        Err(trouble) => {
                            self.remove(index, &trouble);
                            0
                        }
                        Ok(()) => 0,
                    };
                    self.unload(index, &control);
                }
                Status::Out => {
                    if let Some(target) = current
                        && Instant::now() >= again
                        && control.health().is_ok()
                    {
                        let brought = match self.loading.try_lock() {
                            Ok(_held) => self.load_current(index, &target),
                            Err(TryLockError::Poisoned(_held)) => self.load_current(index, &target),
                            Err(TryLockError::WouldBlock) => Ok(()),
                        };
                        wait = match brought {
                            Ok(()) => self.heartbeat(),
                            Err(_) => (wait * 2).min(LONGEST),
                        };
                        again = Instant::now() + wait;
                    }
                    self.fail_if_unavailable();
                }
                Status::Loading | Status::Verifying => {}
            }
        }
    }

    /// Calls [`load_and_verify`](Self::load_and_verify) if the engine still needs it.
    fn load_current(&self, index: usize, target: &Arc<Target>) -> Result<(), Trouble> {
        let needed = {
            let state = self.lock();
            let same = state
                .current
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, target));
            same && state.engines[index].status == Status::Out
        };
        match needed {
            true => self.load_and_verify(index, target),
            false => Ok(()),
        }
    }

    /// Returns an error unless a ready engine is healthy and has this run's weights.
    fn look(&self, index: usize, control: &Control) -> Result<(), Trouble> {
        control.health()?;
        let expected = {
            let state = self.lock();
            let engine = &state.engines[index];
            let target = engine.target.clone();
            target.filter(|target| engine.labels && !target.adapter)
        };
        let Some(expected) = expected else {
            return Ok(());
        };
        match control.label()? {
            Some(label) if self.labels.version(&label).is_some() => Ok(()),
            label => Err(stale(
                &label.unwrap_or_else(|| "none".into()),
                &expected.label,
            )),
        }
    }

    /// Takes a ready engine out of rotation.
    fn remove(&self, index: usize, trouble: &Trouble) {
        let mut state = self.lock();
        if state.engines[index].status == Status::Ready {
            let stale = trouble.kind == Kind::Stale;
            state.take_out(index, trouble, true, stale);
            self.wake.notify_all();
        }
    }

    /// Unloads adapters that no request in flight uses.
    fn unload(&self, index: usize, control: &Control) {
        let old: Vec<(u64, String)> = {
            let state = self.lock();
            let engine = &state.engines[index];
            let Some(target) = &engine.target else {
                return;
            };
            let used = |version: &u64| *version == target.version || engine.uses(*version);
            let all = engine.adapters.iter().filter(|(version, _)| !used(version));
            all.map(|(version, name)| (*version, name.clone()))
                .collect()
        };
        for (version, name) in old {
            // An adapter that is already gone counts as unloaded.
            let gone = match control.unload_adapter(&name) {
                Ok(()) => true,
                Err(trouble) => !trouble.is_of_transport(),
            };
            if gone {
                self.lock().engines[index].adapters.remove(&version);
            }
        }
    }

    /// Fails all requests if no engine has been available for too long.
    fn fail_if_unavailable(&self) {
        let mut state = self.lock();
        let none = !state.engines.iter().any(Engine::in_rotation);
        let long = state
            .none_since
            .is_some_and(|since| since.elapsed() >= self.config.retry_for);
        if none && long && state.dead.is_none() {
            let seconds = self.config.retry_for.as_secs_f64();
            let reason = format!(
                "no engine has been available for {seconds:.0} s ({})",
                state.reasons()
            );
            let trouble = Trouble::new(
                Kind::Away,
                reason,
                "restart the engines, or raise retry_for",
            );
            state.fail_all(&trouble);
            state.dead = Some(trouble);
            self.wake.notify_all();
        }
    }
}
