//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The decay of a learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// No decay.
    #[default]
    Constant,
    /// Linear decay to `floor` times the peak at update `updates`, constant afterwards.
    Linear {
        /// Updates until the floor, warm-up included.
        updates: u64,
        /// The final share of the peak, in [0, 1].
        floor: f64,
    },
    /// Cosine decay to `floor` times the peak at update `updates`, constant afterwards.
    Cosine {
        /// Updates until the floor, warm-up included.
        updates: u64,
        /// The final share of the peak, in [0, 1].
        floor: f64,
    },
}

/// A learning rate with a linear warm-up and a decay, as a pure function of the update.
///
/// ```
/// use rlvr::train::{Decay, Schedule};
///
/// let schedule = Schedule::constant(1e-5)
///     .with_warmup(10)
///     .with_decay(Decay::Cosine {
///         updates: 100,
///         floor: 0.1,
///     });
/// assert_eq!(schedule.rate(9), 1e-5);
/// assert!((schedule.rate(100) - 1e-6).abs() < 1e-12);
/// ```
#[doc(alias("lr_scheduler_type", "LrScheduler"))]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// The peak. Default 1e-6, which suits pretrained models.
    pub peak: f64,
    /// The number of warm-up updates: update `u`, counted from 0, uses `peak * (u + 1) / warmup`.
    /// Default 0.
    #[doc(alias = "warmup_steps")]
    pub warmup: u64,
    /// The decay after the warm-up. Default: constant.
    pub decay: Decay,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::constant(1e-6)
    }
}

impl Schedule {
    /// Creates a constant schedule.
    pub fn constant(peak: f64) -> Self {
        Self {
            peak,
            warmup: 0,
            decay: Decay::Constant,
        }
    }

    /// Sets the number of warm-up updates.
    pub fn with_warmup(self, warmup: u64) -> Self {
        Self { warmup, ..self }
    }

    /// Sets the decay.
    pub fn with_decay(self, decay: Decay) -> Self {
        Self { decay, ..self }
    }

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`], which names the field, its value and what is expected.
    pub fn validate(&self) -> Result<()> {
        if !(self.peak.is_finite() && self.peak > 0.0) {
            return Err(Error::config(
                "schedule.peak",
                self.peak,
                "a finite number above 0",
            ));
        }
        if let Decay::Linear { updates, floor } | Decay::Cosine { updates, floor } = self.decay {
            if updates <= self.warmup {
                return Err(Error::config(
                    "schedule.decay.updates",
                    updates,
                    format!("more than the {} updates of the warm-up", self.warmup),
                ));
            }
            if !(0.0..=1.0).contains(&floor) {
                return Err(Error::config(
                    "schedule.decay.floor",
                    floor,
                    "a share of the peak in [0, 1]",
                ));
            }
        }
        Ok(())
    }

    /// Returns the learning rate of update `update`, counted from 0.
    ///
    /// # Panics
    /// May panic if the schedule is invalid; see [`validate`](Self::validate).
    pub fn rate(&self, update: u64) -> f64 {
        if update < self.warmup {
            return self.peak * (update + 1) as f64 / self.warmup as f64;
        }
        let progress = |updates: u64| {
            let done = (update - self.warmup) as f64 / (updates - self.warmup).max(1) as f64;
            done.min(1.0)
        };
        self.peak
            * match self.decay {
                Decay::Constant => 1.0,
                Decay::Linear { updates, floor } => 1.0 - (1.0 - floor) * progress(updates),
                Decay::Cosine { updates, floor } => {
                    let cosine = (std::f64::consts::PI * progress(updates)).cos();
                    floor + (1.0 - floor) * 0.5 * (1.0 + cosine)
                }
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_warmup_and_decays() {
        let base = Schedule::constant(2.0).with_warmup(4);
        let rates = |s: Schedule, at: &[u64]| at.iter().map(|&u| s.rate(u)).collect::<Vec<_>>();
        assert_eq!(rates(base, &[0, 1, 3, 4, 999]), [0.5, 1.0, 2.0, 2.0, 2.0]);
        let linear = base.with_decay(Decay::Linear {
            updates: 14,
            floor: 0.5,
        });
        assert_eq!(rates(linear, &[3, 4, 9, 14, 99]), [2.0, 2.0, 1.5, 1.0, 1.0]);
        let cosine = base.with_decay(Decay::Cosine {
            updates: 14,
            floor: 0.0,
        });
        assert!((cosine.rate(9) - 1.0).abs() < 1e-12 && cosine.rate(99).abs() < 1e-12);
    }

    #[test]
    fn invalid_schedules_are_rejected() {
        let decay = Decay::Linear {
            updates: 5,
            floor: 0.1,
        };
        let late = Schedule::constant(1.0).with_warmup(5).with_decay(decay);
        assert!(
            late.validate()
                .unwrap_err()
                .to_string()
                .contains("schedule.decay.updates")
        );
        assert!(Schedule::constant(0.0).validate().is_err());
        assert!(Schedule::constant(f64::NAN).validate().is_err());
    }
}
