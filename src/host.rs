//! The border between host memory and the device: the few copies in either direction.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{Error, Result};

/// Runs `work` on `model`: for a CPU, on a thread of rayon's pool. Elsewhere, each parallel loop in it would wait for such a thread to wake up,
/// and wake up this one in the end. (The model is given by value, as a shared reference to one cannot be sent to another thread.)
pub(crate) fn on_pool<M: Send, R: Send>(
    device: &Device,
    model: M,
    work: impl FnOnce(M) -> R + Send,
) -> R {
    match is_cpu(device) {
        true => rayon::scope(move |_| work(model)),
        false => work(model),
    }
}

/// The floats of a tensor, row-major; `what` names it in the error.
pub(crate) fn floats<const D: usize>(tensor: Tensor<D>, what: &str) -> Result<Vec<f32>> {
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|reason| Error::device(what, reason))
}

/// A float matrix from ragged rows, padded on the right with zeros to `width`.
pub(crate) fn float_rows<T: Copy + Into<f64>>(
    rows: &[impl AsRef<[T]>],
    width: usize,
    device: &Device,
) -> Tensor<2> {
    let mut flat = vec![0f32; rows.len() * width];
    for (row, target) in rows.iter().zip(flat.chunks_exact_mut(width.max(1))) {
        for (value, slot) in row.as_ref().iter().zip(target) {
            *slot = (*value).into() as f32;
        }
    }
    Tensor::from_data(TensorData::new(flat, [rows.len(), width]), device)
}

/// Indices as a device tensor.
pub(crate) fn indices(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

/// Whether operations on `device` are computed by the threads of this process, as they are called.
pub(crate) fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return true;
    }
    let _ = device;
    false
}

/// The most memory that this process has held so far, in bytes, where the system tells.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}
