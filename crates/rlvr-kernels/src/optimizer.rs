//! One update of AdamW (arXiv 1711.05101), and sums over gradients.

use rayon::prelude::*;

use crate::parallel::Spare;
use crate::simd::{sum2, vectorised};

/// Floats that one thread takes at a time.
const BLOCK: usize = 16 * 1024;

/// The numbers of one update, the same for all parameters.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// The learning rate.
    pub learning_rate: f32,
    /// What weights are multiplied by first: 1 less the learning rate times the decay.
    pub keep: f32,
    /// What the gradient is multiplied by first.
    pub scale: f32,
    /// `1 - beta^t` of both decays.
    pub corrections: [f32; 2],
}

impl AdamW {
    /// The moved weights; the moments are moved in place.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn step(
        &self,
        weight: &[f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) -> Vec<f32> {
        let lengths = [gradient.len(), first.len(), second.len()];
        assert_eq!(lengths, [weight.len(); 3], "gradient and moments");
        let mut moved: Vec<f32> = Vec::with_capacity(weight.len());
        let parts = moved.spare_capacity_mut()[..weight.len()].par_chunks_mut(BLOCK);
        let inputs = weight.par_chunks(BLOCK).zip(gradient.par_chunks(BLOCK));
        let moments = first
            .par_chunks_mut(BLOCK)
            .zip(second.par_chunks_mut(BLOCK));
        parts
            .zip(inputs)
            .zip(moments)
            .for_each(|((moved, inputs), moments)| {
                vectorised(
                    #[inline(always)]
                    || self.block(moved, inputs, moments),
                );
            });
        // SAFETY: every block was written, and the blocks cover the vector.
        unsafe { moved.set_len(weight.len()) };
        moved
    }

    #[inline(always)]
    fn block(
        &self,
        moved: &mut Spare,
        (weight, gradient): (&[f32], &[f32]),
        (first, second): (&mut [f32], &mut [f32]),
    ) {
        let inputs = weight.iter().zip(gradient);
        let moments = first.iter_mut().zip(second);
        for ((moved, (&weight, &gradient)), (first, second)) in
            moved.iter_mut().zip(inputs).zip(moments)
        {
            let gradient = gradient * self.scale;
            *first = *first * self.beta_1 + gradient * (1.0 - self.beta_1);
            *second = *second * self.beta_2 + gradient * gradient * (1.0 - self.beta_2);
            let root = (*second / self.corrections[1]).sqrt();
            let direction = *first / self.corrections[0] / (root + self.epsilon);
            moved.write(weight * self.keep - direction * self.learning_rate);
        }
    }
}

/// The sum of squares of `values`: sums of blocks in f32, their sum in f64.
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

/// `to += factor * from`.
///
/// # Panics
/// If the lengths differ.
pub fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    assert_eq!(to.len(), from.len(), "a sum of two");
    let parts = to.par_chunks_mut(BLOCK).zip(from.par_chunks(BLOCK));
    parts.for_each(|(to, from)| {
        vectorised(
            #[inline(always)]
            || crate::simd::add_scaled(to, factor, from),
        )
    });
}
