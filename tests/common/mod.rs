//! What several test files share.
#![allow(dead_code)]

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value;

/// What a policy that wraps another in its field `inner` passes on: everything but `forward`.
#[macro_export]
macro_rules! passed_on_to_inner {
    () => {
        type Cache = rlvr::policy::KvCache;

        fn empty_cache(&self, rows: usize) -> rlvr::policy::KvCache {
            self.inner.empty_cache(rows)
        }

        fn unembedding(&self) -> burn::tensor::Tensor<2> {
            self.inner.unembedding()
        }

        fn vocab_size(&self) -> usize {
            self.inner.vocab_size()
        }

        fn max_positions(&self) -> usize {
            self.inner.max_positions()
        }

        fn device(&self) -> burn::tensor::Device {
            self.inner.device()
        }
    };
}

/// Every CPU backend of this build, by name.
#[allow(clippy::vec_init_then_push)] // which of the pushes exist depends on the features
pub fn devices() -> Vec<(&'static str, Device)> {
    let mut devices = Vec::new();
    #[cfg(feature = "flex")]
    devices.push(("flex", Device::flex()));
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)]
    devices.push(("ndarray", Device::ndarray()));
    assert!(!devices.is_empty(), "build the tests with flex or ndarray");
    devices
}

/// A float matrix on `device`.
pub fn matrix(rows: &[Vec<f64>], device: &Device) -> Tensor<2> {
    let shape = [rows.len(), rows[0].len()];
    let flat: Vec<f32> = rows.iter().flatten().map(|&x| x as f32).collect();
    Tensor::from_data(TensorData::new(flat, shape), device)
}

/// An id matrix on `device`.
pub fn ids(rows: &[Vec<i32>], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    let flat: Vec<i32> = rows.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, shape), device)
}

/// The numbers of a tensor, row by row.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let numbers = tensor.try_into_vec_as::<f32>().unwrap();
    numbers.into_iter().map(f64::from).collect()
}

/// The lines of a golden file.
pub fn golden(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A number of a golden file; strings spell what JSON cannot.
pub fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("nan") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        Some(other) => panic!("no number: {other}"),
        None => value.as_f64().unwrap(),
    }
}

/// A matrix of a golden file, or `None` for null.
pub fn rows(value: &Value) -> Option<Vec<Vec<f64>>> {
    let rows = value.as_array()?;
    Some(
        rows.iter()
            .map(|row| row.as_array().unwrap().iter().map(number).collect())
            .collect(),
    )
}

/// Fails unless `|got - want| <= atol + rtol |want|`.
pub fn assert_close(got: f64, want: f64, rtol: f64, atol: f64, what: &str) {
    let same = got == want || (got - want).abs() <= atol + rtol * want.abs();
    assert!(same, "{what}: got {got}, want {want}");
}

/// Prints a report even where the test passes: the harness keeps what `println!` says, not what is written to the stream itself.
pub fn report(text: &str) {
    use std::io::Write;
    // A closed stream is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{text}");
}
