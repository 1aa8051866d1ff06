//! The gate of SwiGLU (arXiv 2002.05202).

use crate::parallel;
use crate::simd::exp;

/// Values per block.
const BLOCK: usize = 1024;

/// Computes `silu(gate) * up` elementwise, with `silu(x) = x / (1 + e^-x)`.
///
/// # Panics
/// Panics if the lengths differ.
pub fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), up.len(), "lengths of gate and up");
    parallel::blocks(
        gate.len(),
        BLOCK,
        #[inline(always)]
        |range, out| {
            for ((out, &gate), &up) in out.iter_mut().zip(&gate[range.clone()]).zip(&up[range]) {
                out.write(gate / (1.0 + exp(-gate)) * up);
            }
        },
    )
}

/// Returns the gradients of `gate` and `up` in [`swiglu`], given the gradient `to_out` of its
/// result.
///
/// # Panics
/// Panics if the lengths differ.
pub fn swiglu_backward(gate: &[f32], up: &[f32], to_out: &[f32]) -> (Vec<f32>, Vec<f32>) {
    assert_eq!(gate.len(), up.len(), "lengths of gate and up");
    assert_eq!(gate.len(), to_out.len(), "length of the gradient");
    parallel::blocks2(
        gate.len(),
        BLOCK,
        #[inline(always)]
        |range, to_gate, to_up| {
            let inputs = gate[range.clone()]
                .iter()
                .zip(&up[range.clone()])
                .zip(&to_out[range]);
            for ((to_gate, to_up), ((&gate, &up), &to_out)) in
                to_gate.iter_mut().zip(to_up).zip(inputs)
            {
                let sigmoid = 1.0 / (1.0 + exp(-gate));
                let silu = gate * sigmoid;
                to_gate.write(to_out * up * (sigmoid + silu * (1.0 - sigmoid)));
                to_up.write(to_out * silu);
            }
        },
    )
}
