//! The learning rate over the steps.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What happens to the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// It stays.
    #[default]
    Constant,
    /// It falls on a line to `floor` times its peak, at update `updates`, and stays there.
    Linear {
        /// Updates until the floor, warm-up included.
        updates: u64,
        /// The final share of the peak, in [0, 1].
        floor: f64,
    },
    /// It falls on half a cosine to `floor` times its peak, at update `updates`, and stays there.
    Cosine {
        /// Updates until the floor, warm-up included.
        updates: u64,
        /// The final share of the peak, in [0, 1].
        floor: f64,
    },
}

/// A learning rate with a linear warm-up and a decay; a pure function of the update.
#[doc(alias("lr_scheduler_type", "LrScheduler"))]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// The peak. Default 1e-6, as for pretrained models.
    pub peak: f64,
    /// Updates until the peak: update u (from 0) of the warm-up runs at `peak * (u + 1) / warmup`. Default 0.
    #[doc(alias = "warmup_steps")]
    pub warmup: u64,
    /// What follows. Default: constant.
    pub decay: Decay,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::constant(1e-6)
    }
}

impl Schedule {
    /// The same rate for ever.
    pub fn constant(peak: f64) -> Self {
        Self {
            peak,
            warmup: 0,
            decay: Decay::Constant,
        }
    }

    /// The same with a warm-up.
    pub fn with_warmup(self, warmup: u64) -> Self {
        Self { warmup, ..self }
    }

    /// The same with a decay.
    pub fn with_decay(self, decay: Decay) -> Self {
        Self { decay, ..self }
    }

    /// Rejects invalid settings, naming field, value and range.
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

    /// The rate of update `update`, counted from 0.
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
    fn rates_at_the_corners() {
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
    fn schedules_that_cannot_be_meant_are_refused() {
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
