//! The limits of a comparison. Work is counted rather than timed, so that the verdict is the same
//! on every machine.

use crate::config::MathConfig;
use std::cell::Cell;

/// The reason why parsing or comparing ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It exceeds a limit of the configuration.
    Limit(&'static str),
    /// The text cannot be parsed as mathematics.
    Syntax(&'static str),
}

pub(crate) type Res<T> = std::result::Result<T, Stop>;

/// The remaining work of a comparison. Every loop over an untrusted size spends fuel before it
/// works.
#[derive(Debug)]
pub(crate) struct Budget {
    fuel: Cell<u64>,
    pub max_bits: usize,
    pub max_nodes: usize,
    pub max_depth: usize,
}

impl Budget {
    pub fn new(config: &MathConfig) -> Self {
        Self {
            fuel: Cell::new(config.fuel),
            max_bits: config.max_bits,
            max_nodes: config.max_nodes,
            max_depth: config.max_depth,
        }
    }

    /// Spends `steps` of the fuel, or returns an error.
    pub fn spend(&self, steps: u64) -> Res<()> {
        match self.fuel.get().checked_sub(steps) {
            Some(left) => {
                self.fuel.set(left);
                Ok(())
            }
            None => {
                self.fuel.set(0);
                Err(Stop::Limit("work"))
            }
        }
    }

    /// Spends the cost of an operation on numbers of `bits`, which is quadratic in words. An error
    /// if the numbers exceed the limit.
    pub fn spend_bits(&self, bits: usize) -> Res<()> {
        if bits > self.max_bits {
            return Err(Stop::Limit("digits"));
        }
        let words = (bits / 64) as u64 + 1;
        self.spend(1 + words * words / 16)
    }
}
