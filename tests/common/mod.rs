//! Helpers that all test binaries share.

#![allow(dead_code)] // each binary uses a part

pub mod metric_table;
pub mod toy;

use std::sync::Once;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The methods that a policy with a field `inner` forwards to it: all but `forward`.
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

/// Panics unless `|got - want| <= atol + rtol |want|`.
pub fn assert_close(got: f64, want: f64, rtol: f64, atol: f64, what: &str) {
    let same = got == want || (got - want).abs() <= atol + rtol * want.abs();
    assert!(same, "{what}: got {got}, want {want}");
}

/// Prints a report even if the test passes: the test harness captures `println!`, but not writes to
/// the stream.
pub fn report(text: &str) {
    use std::io::Write;
    // A closed stream is ignored.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Waits until `done`; panics after a minute.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        let waited = start.elapsed();
        assert!(
            waited < Duration::from_secs(60),
            "waited a minute until {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Silences the panics of rewards. The default hook prints them, with backtraces if enabled, which
/// can take seconds of the reward's time limit.
pub fn quiet_reward_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some("rlvr-reward") {
                default(info);
            }
        }));
    });
}
