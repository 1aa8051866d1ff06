//! Specifications and prices of devices.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The specification and price of a device.
///
/// The built-in devices are as of November 2026. Compute and bandwidth are from data sheets (for
/// bf16 the dense figure; data sheets print the one with sparsity, twice as large); prices are
/// on-demand rental prices of spring 2026.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// The name, in lower case.
    pub name: String,
    /// Dense matrix products, in TFLOP/s: bf16 on a GPU, f32 on a CPU.
    pub tflops: f64,
    /// Memory bandwidth, in GB/s.
    pub bandwidth: f64,
    /// Memory, in GB (10^9 bytes).
    pub memory: f64,
    /// Bandwidth to the other devices of the node, in GB/s, both directions together.
    pub link: f64,
    /// Bandwidth to other nodes, in GB/s per device and direction. 50 is one NIC of 400 Gb/s per
    /// device.
    pub network: f64,
    /// Devices per node.
    pub per_node: usize,
    /// Price in dollars per hour, lowest and highest; `None` if unknown.
    pub price: Option<[f64; 2]>,
    /// Whether `tflops` and `bandwidth` are peaks. Otherwise they are measured in training and
    /// generation, and no utilisation is reported.
    pub is_peak: bool,
}

/// Name, bf16 TFLOP/s, GB/s, GB, link, lowest and highest price (0: none known).
const TABLE: [(&str, f64, f64, f64, f64, f64, f64); 9] = [
    // DeepSeek-R1's own rate, 2025.
    ("h800", 989.0, 3350.0, 80.0, 400.0, 2.0, 2.0),
    ("h100", 989.0, 3350.0, 80.0, 900.0, 2.5, 3.5),
    ("h200", 989.0, 4800.0, 141.0, 900.0, 3.5, 4.54),
    ("b200", 2250.0, 8000.0, 180.0, 1800.0, 4.99, 6.03),
    ("a100", 312.0, 2040.0, 80.0, 600.0, 1.1, 1.5),
    ("a800", 312.0, 2040.0, 80.0, 400.0, 0.0, 0.0),
    ("h20", 148.0, 4000.0, 96.0, 900.0, 0.0, 0.0),
    ("rtx4090", 165.0, 1008.0, 24.0, 32.0, 0.34, 0.6),
    ("mi300x", 1307.0, 5300.0, 192.0, 896.0, 1.5, 1.99),
];

impl Hardware {
    /// Returns all built-in devices.
    pub fn all() -> Vec<Self> {
        let gpus = TABLE.iter().map(
            |&(name, tflops, bandwidth, memory, link, lowest, highest)| Self {
                name: name.into(),
                tflops,
                bandwidth,
                memory,
                link,
                network: match name {
                    "rtx4090" => 1.25,
                    _ => 50.0,
                },
                per_node: 8,
                price: (highest > 0.0).then_some([lowest, highest]),
                is_peak: true,
            },
        );
        // Two cores at 2.8 GHz with AVX-512: measured with SmolLM2-135M in training and in
        // generation (benches/RESULTS.md).
        let cpu = Self {
            name: "cpu-2-cores".into(),
            tflops: 0.1,
            bandwidth: 6.9,
            memory: 16.0,
            link: 0.7,
            network: 0.125,
            per_node: 1,
            price: None,
            is_peak: false,
        };
        gpus.chain([cpu]).collect()
    }

    /// Returns the built-in device called `name`, ignoring case.
    ///
    /// # Errors
    /// [`Error::Config`] listing the names if there is no such device.
    pub fn named(name: &str) -> Result<Self> {
        let wanted = name.to_lowercase();
        let all = Self::all();
        let names: Vec<&str> = all.iter().map(|row| row.name.as_str()).collect();
        let expected = format!("one of {}", names.join(", "));
        let found = all.iter().find(|row| row.name == wanted).cloned();
        found.ok_or_else(|| Error::config("hardware", name, expected))
    }

    /// Rejects invalid figures.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and its range.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("hardware.tflops", self.tflops),
            ("hardware.bandwidth", self.bandwidth),
            ("hardware.memory", self.memory),
            ("hardware.link", self.link),
            ("hardware.network", self.network),
            ("hardware.per_node", self.per_node as f64),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::config(field, value, "a finite number above 0"));
            }
        }
        match self.price {
            Some([low, high]) if !(low >= 0.0 && low <= high && high.is_finite()) => {
                let value = format!("{low} to {high}");
                let expected = "two finite numbers of dollars, the lower first";
                Err(Error::config("hardware.price", value, expected))
            }
            _ => Ok(()),
        }
    }

    /// Returns FLOP/s.
    pub(super) fn flops(&self) -> f64 {
        1e12 * self.tflops
    }

    /// Returns bytes per second.
    pub(super) fn bytes_per_second(&self) -> f64 {
        1e9 * self.bandwidth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_valid_and_found_by_its_name() {
        for row in Hardware::all() {
            row.validate().unwrap();
            assert_eq!(Hardware::named(&row.name.to_uppercase()).unwrap(), row);
        }
        let unknown = Hardware::named("tpu").unwrap_err().to_string();
        assert!(unknown.contains("h800, h100"), "{unknown}");
    }
}
