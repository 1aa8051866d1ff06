//! Device-hours, dollars and ranges.

use std::iter::Sum;
use std::ops::{Add, Mul};

use serde::{Deserialize, Serialize};

/// A cost, unrounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Devices times hours.
    pub device_hours: f64,
    /// Device-hours times price.
    pub dollars: f64,
}

impl Cost {
    /// Computes the cost of `devices` for `hours`, at a `price` in dollars per device-hour.
    pub fn new(devices: f64, hours: f64, price: f64) -> Self {
        let device_hours = devices * hours;
        Self {
            device_hours,
            dollars: device_hours * price,
        }
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            device_hours: self.device_hours + other.device_hours,
            dollars: self.dollars + other.dollars,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// A range of a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Mul<f64> for Range {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self {
            low: self.low * factor,
            high: self.high * factor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_several_stages_are_added_without_rounding() {
        let stages = [(512.0, 198.0), (5000.0, 1.0), (512.0, 80.0)];
        let total: Cost = stages
            .map(|(n, hours)| Cost::new(n, hours, 2.0))
            .into_iter()
            .sum();
        assert_eq!((total.device_hours, total.dollars), (147_336.0, 294_672.0));
    }
}
