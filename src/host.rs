//! Copies between host memory and the device.

use burn::tensor::{Device, Int, Tensor, TensorData, Transaction};

use crate::{Error, Result};

/// Runs `work` on `model`, on a thread of rayon's pool if `device` is a CPU. From a thread outside
/// the pool, each parallel loop in `work` would have to wake up a thread of the pool and be woken
/// up by it. (`model` is passed by value because a shared reference to it is not `Send`.)
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

/// Reads the values of a tensor in row-major order; `what` names it in the error.
pub(crate) fn floats<const D: usize>(tensor: Tensor<D>, what: &str) -> Result<Vec<f32>> {
    count::read(tensor.shape().num_elements() * tensor.dtype().size());
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|reason| Error::device(what, reason))
}

/// Reads integers and floats in row-major order, waiting for the device once; `what` names them in
/// the error.
pub(crate) fn ints_and_floats<const I: usize, const F: usize>(
    ints: Tensor<I, Int>,
    floats: Tensor<F>,
    what: &str,
) -> Result<(Vec<u32>, Vec<f32>)> {
    let size = |elements: usize, dtype: burn::tensor::DType| elements * dtype.size();
    count::read(
        size(ints.shape().num_elements(), ints.dtype())
            + size(floats.shape().num_elements(), floats.dtype()),
    );
    let both = Transaction::default().register(ints).register(floats);
    let data = both
        .try_execute()
        .map_err(|reason| Error::device(what, reason))?;
    match data.as_slice() {
        [ints, floats] => Ok((ints.iter::<u32>().collect(), floats.iter::<f32>().collect())),
        _ => Err(Error::device(
            what,
            "the device returned another number of tensors",
        )),
    }
}

/// Counts of reads from the device by the current thread, for tests. Each of them waits for the
/// device.
pub(crate) mod count {
    #[cfg(test)]
    thread_local! {
        static READS: std::cell::Cell<[usize; 2]> = const { std::cell::Cell::new([0; 2]) };
    }

    /// Counts a read of `bytes` bytes.
    pub(super) fn read(bytes: usize) {
        #[cfg(test)]
        READS.set({
            let [reads, sum] = READS.get();
            [reads + 1, sum + bytes]
        });
        let _ = bytes;
    }

    /// Runs `work` and returns its result, the number of reads and the bytes read.
    #[cfg(test)]
    pub(crate) fn reads<R>(work: impl FnOnce() -> R) -> (R, [usize; 2]) {
        let [reads, bytes] = READS.get();
        let result = work();
        let after = READS.get();
        (result, [after[0] - reads, after[1] - bytes])
    }
}

/// Creates a tensor of shape `[rows, width]` from ragged rows, padded on the right with zeros.
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

/// Creates a tensor of shape `[values]` from indices.
pub(crate) fn indices(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

/// Returns true if the threads of this process compute the operations on `device`, synchronously.
pub(crate) fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return true;
    }
    let _ = device;
    false
}

/// Returns the peak resident memory of this process in bytes, or `None` if the system does not
/// report it.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}
