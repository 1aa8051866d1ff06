//! The update of AdamW (arXiv 1711.05101), and sums over gradients.

use rayon::prelude::*;

use crate::parallel::Spare;
use crate::simd::{sum2, vectorised};

/// Floats per block.
const BLOCK: usize = 16 * 1024;

/// The hyperparameters of one update of AdamW (arXiv 1711.05101).
///
/// With `g = scale * gradient`:
///
/// ```text
/// m      = beta_1 m + (1 - beta_1) g
/// v      = beta_2 v + (1 - beta_2) g^2
/// weight = keep * weight - learning_rate * (m / c_1) / (sqrt(v / c_2) + epsilon)
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// The decay of the first moment.
    pub beta_1: f32,
    /// The decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// The learning rate.
    pub learning_rate: f32,
    /// The factor of the weights: `1 - learning_rate * weight_decay`.
    pub keep: f32,
    /// The factor of the gradient, for clipping.
    pub scale: f32,
    /// The bias corrections `c_1 = 1 - beta_1^t` and `c_2 = 1 - beta_2^t`.
    pub corrections: [f32; 2],
}

impl AdamW {
    /// Returns the new weights and updates the moments `first` and `second` in place.
    ///
    /// # Panics
    /// Panics if the lengths differ.
    pub fn step(
        &self,
        weight: &[f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) -> Vec<f32> {
        let lengths = [gradient.len(), first.len(), second.len()];
        assert_eq!(
            lengths,
            [weight.len(); 3],
            "lengths of gradient and moments"
        );
        let mut new: Vec<f32> = Vec::with_capacity(weight.len());
        let parts = new.spare_capacity_mut()[..weight.len()].par_chunks_mut(BLOCK);
        let inputs = weight.par_chunks(BLOCK).zip(gradient.par_chunks(BLOCK));
        let moments = first
            .par_chunks_mut(BLOCK)
            .zip(second.par_chunks_mut(BLOCK));
        parts
            .zip(inputs)
            .zip(moments)
            .for_each(|((new, inputs), moments)| {
                vectorised(
                    #[inline(always)]
                    || self.block(new, inputs, moments),
                );
            });
        // SAFETY: every block has been written, and the blocks cover the vector.
        unsafe { new.set_len(weight.len()) };
        new
    }

    #[inline(always)]
    fn block(
        &self,
        new: &mut Spare,
        (weight, gradient): (&[f32], &[f32]),
        (first, second): (&mut [f32], &mut [f32]),
    ) {
        let inputs = weight.iter().zip(gradient);
        let moments = first.iter_mut().zip(second);
        for ((new, (&weight, &gradient)), (first, second)) in
            new.iter_mut().zip(inputs).zip(moments)
        {
            let gradient = gradient * self.scale;
            *first = *first * self.beta_1 + gradient * (1.0 - self.beta_1);
            *second = *second * self.beta_2 + gradient * gradient * (1.0 - self.beta_2);
            let root = (*second / self.corrections[1]).sqrt();
            let direction = *first / self.corrections[0] / (root + self.epsilon);
            new.write(weight * self.keep - direction * self.learning_rate);
        }
    }
}

/// Returns the sum of squares of `values`. Blocks are summed in f32, and their sums in f64.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let block = |values: &[f32]| {
        let sum = |values| {
            sum2(
                values,
                values,
                #[inline(always)]
                |a, b, sum| a.mul_add(b, sum),
            )
        };
        f64::from(vectorised(
            #[inline(always)]
            || sum(values),
        ))
    };
    let sums: Vec<f64> = values.par_chunks(BLOCK).map(block).collect();
    sums.into_iter().sum()
}

/// Computes `to += factor * from`.
///
/// # Panics
/// Panics if the lengths differ.
pub fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    assert_eq!(to.len(), from.len(), "lengths of the two slices");
    let parts = to.par_chunks_mut(BLOCK).zip(from.par_chunks(BLOCK));
    parts.for_each(|(to, from)| {
        vectorised(
            #[inline(always)]
            || crate::simd::add_scaled(to, factor, from),
        )
    });
}
