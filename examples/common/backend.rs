//! Which of the compiled backends an example runs on.

use burn::tensor::Device;
use clap::ValueEnum;

/// The backends that this build has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// CPU, pure Rust
    #[cfg(feature = "flex")]
    Flex,
    /// CPU, ndarray
    #[cfg(feature = "ndarray")]
    Ndarray,
    /// An NVIDIA GPU: the first, or of several learners on a machine each its own
    #[cfg(feature = "cuda")]
    Cuda,
    /// The default WebGPU device
    #[cfg(feature = "wgpu")]
    Wgpu,
}

impl Default for Backend {
    fn default() -> Self {
        // The CPU first: a build with a GPU feature also runs on machines without one.
        let compiled = Self::value_variants();
        *compiled.first().expect(
            "build this example with at least one of the features flex, ndarray, cuda, wgpu",
        )
    }
}

impl Backend {
    /// The device, of several GPUs the one of this number; [`Device::autodiff`] is for training.
    pub fn device(self, number: usize) -> Device {
        let _ = number; // a CPU is one device
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Device::flex(),
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            Self::Ndarray => Device::ndarray(),
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::cuda(number),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        }
    }
}
