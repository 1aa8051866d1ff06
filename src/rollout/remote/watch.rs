//! How engines are watched: a dead one leaves, one that lives again comes back with the current weights.

use std::sync::{Arc, TryLockError};
use std::time::{Duration, Instant};

use super::control::Control;
use super::flight::{Shared, stale};
use super::http::{Kind, Trouble};
use super::state::{Engine, Standing};
use super::weights::Target;

/// How often engines are looked at.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The longest wait between two attempts to bring an engine back that refuses.
const LONGEST: Duration = Duration::from_secs(60);
/// How many times in a row an engine may be late with its health.
const LATE: u32 = 3;

impl Shared {
    /// Waits, but not beyond the end. Says whether that has come.
    pub(super) fn nap(&self, time: Duration) -> bool {
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

    /// How often engines are looked at.
    pub(super) fn heartbeat(&self) -> Duration {
        HEARTBEAT
            .min(self.config.retry_for / 4)
            .max(Duration::from_millis(20))
    }

    /// Watches an engine until the end: takes it out when it dies, brings it back when it lives again.
    pub(super) fn supervise(&self, index: usize) {
        let (mut late, mut wait, mut again) = (0, self.heartbeat(), Instant::now());
        while !self.nap(self.heartbeat()) {
            let (standing, control, current) = {
                let state = self.lock();
                let engine = &state.engines[index];
                (
                    engine.standing,
                    engine.control.clone(),
                    state.current.clone(),
                )
            };
            match standing {
                Standing::Ready => {
                    (wait, again) = (self.heartbeat(), Instant::now());
                    late = match self.look(index, &control) {
                        Err(trouble) if trouble.kind == Kind::TimedOut && late + 1 < LATE => {
                            late + 1
                        }
                        Err(trouble) => {
                            self.lose(index, &trouble);
                            0
                        }
                        Ok(()) => 0,
                    };
                    self.unload(index, &control);
                }
                Standing::Out => {
                    if let Some(target) = current
                        && Instant::now() >= again
                        && control.health().is_ok()
                    {
                        let brought = match self.loading.try_lock() {
                            Ok(_held) => self.bring_current(index, &target),
                            Err(TryLockError::Poisoned(_held)) => {
                                self.bring_current(index, &target)
                            }
                            Err(TryLockError::WouldBlock) => Ok(()),
                        };
                        wait = match brought {
                            Ok(()) => self.heartbeat(),
                            Err(_) => (wait * 2).min(LONGEST),
                        };
                        again = Instant::now() + wait;
                    }
                    self.give_up();
                }
                Standing::Loading | Standing::Verifying => {}
            }
        }
    }

    /// As [`bring`](Self::bring), if the engine still needs it.
    fn bring_current(&self, index: usize, target: &Arc<Target>) -> Result<(), Trouble> {
        let needed = {
            let state = self.lock();
            let same = state
                .current
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, target));
            same && state.engines[index].standing == Standing::Out
        };
        match needed {
            true => self.bring(index, target),
            false => Ok(()),
        }
    }

    /// Returns an error unless a ready engine is healthy and has the weights that it was given.
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
                &label.unwrap_or_else(|| "nothing".into()),
                &expected.label,
            )),
        }
    }

    /// Takes a ready engine out.
    fn lose(&self, index: usize, trouble: &Trouble) {
        let mut state = self.lock();
        if state.engines[index].standing == Standing::Ready {
            let stale = trouble.kind == Kind::Stale;
            state.take_out(index, trouble, true, stale);
            self.wake.notify_all();
        }
    }

    /// Unloads adapters of versions that nothing in flight uses.
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
            // An adapter that is not there any more is as good.
            let gone = match control.unload_adapter(&name) {
                Ok(()) => true,
                Err(trouble) => !trouble.is_of_transport(),
            };
            if gone {
                self.lock().engines[index].adapters.remove(&version);
            }
        }
    }

    /// Answers everything with errors if there has been no engine for too long.
    fn give_up(&self) {
        let mut state = self.lock();
        let none = !state.engines.iter().any(Engine::in_rotation);
        let long = state
            .none_since
            .is_some_and(|since| since.elapsed() >= self.config.retry_for);
        if none && long && state.dead.is_none() {
            let seconds = self.config.retry_for.as_secs_f64();
            let reason = format!(
                "no engine is left since {seconds:.0} s ({})",
                state.reasons()
            );
            let trouble = Trouble::new(
                Kind::Away,
                reason,
                "start the engines again, or raise retry_for",
            );
            state.fail_all(&trouble);
            state.dead = Some(trouble);
            self.wake.notify_all();
        }
    }
}
