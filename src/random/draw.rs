//! Uniform integers and shuffles whose values are stable across releases, computed from the
//! generator's 64-bit words.
//!
//! `rand` may change how `random_range` and its shuffles consume a generator in any minor release.
//! The problems of a seed are part of a published run, so this crate has its own functions for
//! them.

use rand::Rng;

/// Returns an unbiased uniform integer in `0..bound`; `bound` is at least 1.
///
/// It is the high word of a 128-bit product, redrawn in the few cases that would favor some values
/// (Lemire, "Fast random integer generation in an interval", 2019).
pub(crate) fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    debug_assert!(bound > 0, "the interval is empty");
    let mut product = u128::from(rng.next_u64()) * u128::from(bound);
    if (product as u64) < bound {
        // 2^64 mod bound: the number of low words in the incomplete round.
        let incomplete = bound.wrapping_neg() % bound;
        while (product as u64) < incomplete {
            product = u128::from(rng.next_u64()) * u128::from(bound);
        }
    }
    (product >> 64) as u64
}

/// Shuffles `items` uniformly (Fisher-Yates, from the last position down).
pub(crate) fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::super::generator;
    use super::*;

    #[test]
    fn draws_are_uniform_within_five_standard_deviations() {
        let mut rng = generator(&[0]);
        let mut counts = [0f64; 6];
        let draws = 60_000;
        for _ in 0..draws {
            counts[below(&mut rng, 6) as usize] += 1.0;
        }
        let sigma = (f64::from(draws) * (1.0 / 6.0) * (5.0 / 6.0)).sqrt();
        for count in counts {
            assert!((count - 10_000.0).abs() < 5.0 * sigma, "{counts:?}");
        }
    }

    #[test]
    fn a_large_bound_is_unbiased() {
        // Without the redraw, every third value below this bound would be twice as likely as the
        // others.
        let bound = (1u64 << 63) + (1 << 62);
        let mut rng = generator(&[1]);
        let mut low = 0;
        for _ in 0..3_000 {
            let value = below(&mut rng, bound);
            assert!(value < bound);
            low += u32::from(value.is_multiple_of(3));
        }
        assert!(
            (870..1130).contains(&low),
            "{low} of 3000 are divisible by three"
        );
    }

    #[test]
    fn every_order_of_three_is_equally_likely() {
        let mut rng = generator(&[2]);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6_000 {
            let mut items = [0, 1, 2];
            shuffle(&mut rng, &mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Five standard deviations of a binomial(6000, 1/6) are 144.
        assert!(
            counts.values().all(|count| (856..1144).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn values_are_stable_across_releases() {
        let mut rng = generator(&[0]);
        let drawn: Vec<u64> = (0..8).map(|_| below(&mut rng, 100)).collect();
        assert_eq!(drawn, [50, 63, 19, 98, 31, 44, 20, 32]);
        let mut items: Vec<u8> = (0..8).collect();
        shuffle(&mut rng, &mut items);
        assert_eq!(items, [0, 3, 4, 7, 2, 5, 6, 1]);
    }
}
