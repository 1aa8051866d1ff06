//! Counted work: the reason why a verdict does not depend on the machine.

use crate::config::MathConfig;
use std::cell::Cell;

/// Why reading or comparing ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A limit of the configuration.
    Limit(&'static str),
    /// The text is no mathematics.
    Syntax(&'static str),
}

pub(crate) type Res<T> = std::result::Result<T, Stop>;

/// The work that is left of one comparison. Every loop over untrusted sizes spends before it works.
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

    /// Takes `steps` of the fuel, or stops.
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

    /// Spends what an operation on numbers of `bits` costs (quadratic in words), and refuses numbers beyond the limit.
    pub fn spend_bits(&self, bits: usize) -> Res<()> {
        if bits > self.max_bits {
            return Err(Stop::Limit("digits"));
        }
        let words = (bits / 64) as u64 + 1;
        self.spend(1 + words * words / 16)
    }
}
