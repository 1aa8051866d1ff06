//! Points of a curve: filtering, smoothing, thinning, and ranges.

use std::ops::Range;

use crate::train::observer::StepRecord;

/// A step and the value there.
pub(super) type Point = (u64, f64);

/// The largest number of points of a line, above the number of pixel columns.
const MOST: usize = 1200;

/// Values are clamped to this size, so that sums and differences stay accurate.
const LARGEST: f64 = 1e12;

/// Larger steps would overflow the arithmetic of the ticks.
const LAST_STEP: u64 = 1_000_000_000_000_000;

/// Clamps `step` to the range of an axis.
pub(super) fn on_axis(step: u64) -> u64 {
    step.min(LAST_STEP)
}

/// Returns the finite values of the metric `name`, in the order of `records`, times `scale`.
pub(super) fn points(records: &[StepRecord], name: &str, scale: f64) -> Vec<Point> {
    let point = |record: &StepRecord| {
        let value = (record.finite(name)? * scale).clamp(-LARGEST, LARGEST);
        Some((on_axis(record.step), value))
    };
    records.iter().filter_map(point).collect()
}

/// Returns the window of a centred mean over `count` points: about a fifteenth, odd, at least 5; 1
/// (no smoothing) for fewer than 10 points.
pub(super) fn window(count: usize) -> usize {
    match count {
        0..=9 => 1,
        _ => (count / 15).max(5) | 1,
    }
}

/// Returns the centred mean over `window` points, with shorter windows at both ends.
pub(super) fn centred_mean(points: &[Point], window: usize) -> Vec<Point> {
    let half = window / 2;
    let mean = |(i, &(step, _)): (usize, &Point)| {
        let around = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
        let sum: f64 = around.iter().map(|&(_, value)| value).sum();
        (step, sum / around.len() as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

/// Returns at most [`MOST`] of the points, including the first and the last. The lowest and the
/// highest point of each interval are kept, so outliers stay visible.
pub(super) fn thinned(points: &[Point]) -> Vec<Point> {
    let (Some(&first), Some(&last)) = (points.first(), points.last()) else {
        return Vec::new();
    };
    if points.len() <= MOST {
        return points.to_vec();
    }
    let inner = &points[1..points.len() - 1];
    let stretch = inner.len().div_ceil(MOST / 2 - 1);
    let mut kept = vec![first];
    for stretch in inner.chunks(stretch) {
        let by_value = |&a: &usize, &b: &usize| stretch[a].1.total_cmp(&stretch[b].1);
        let (low, high) = (
            (0..stretch.len()).min_by(by_value).unwrap_or_default(),
            (0..stretch.len()).max_by(by_value).unwrap_or_default(),
        );
        kept.push(stretch[low.min(high)]);
        if low != high {
            kept.push(stretch[low.max(high)]);
        }
    }
    kept.push(last);
    kept
}

/// Returns a range of all values with a margin on both sides; `0..1` without values. It is not
/// negative if no value is.
pub(super) fn value_range(points: &[Point]) -> Range<f64> {
    let values = || points.iter().map(|&(_, value)| value);
    let (low, high) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(f64::NEG_INFINITY, f64::max),
    );
    if low > high {
        return 0.0..1.0;
    }
    // A constant needs a range that is wide enough to distinguish ticks in floating point.
    let least = low.abs().max(high.abs()) * 1e-6;
    let margin = if high - low > least {
        0.08 * (high - low)
    } else {
        (0.1 * high.abs()).max(0.5)
    };
    let bottom = low - margin;
    let bottom = if low >= 0.0 { bottom.max(0.0) } else { bottom };
    bottom..high + margin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f64]) -> Vec<Point> {
        (1..).zip(values.iter().copied()).collect()
    }

    #[test]
    fn only_finite_values_are_drawn() {
        let records: Vec<StepRecord> = [0.5, f64::NAN, f64::INFINITY, 1e300]
            .iter()
            .zip(1..)
            .map(|(&value, step)| StepRecord::new(step).with("a", value))
            .chain([
                StepRecord::new(5),
                StepRecord::new(u64::MAX).with("a", 0.25),
            ])
            .collect();
        let expected = [(1, 50.0), (4, LARGEST), (LAST_STEP, 25.0)];
        assert_eq!(points(&records, "a", 100.0), expected);
    }

    #[test]
    fn the_mean_is_centred_with_shorter_windows_at_the_ends() {
        let mean = centred_mean(&line(&[1.0, 2.0, 6.0, 4.0]), 3);
        assert_eq!(mean, line(&[1.5, 3.0, 4.0, 5.0]));
        let same = line(&[1.0, 5.0]);
        assert_eq!(centred_mean(&same, 1), same);
        let windows = [0, 9, 10, 150, 165, 5000].map(window);
        assert_eq!(windows, [1, 1, 5, 11, 11, 333]);
    }

    #[test]
    fn thinning_keeps_both_ends_and_outliers() {
        let mut values = vec![0.0; 5000];
        (values[1234], values[4321]) = (9.0, -7.0);
        let long = line(&values);
        let short = thinned(&long);
        assert!(short.len() <= MOST, "{}", short.len());
        assert_eq!((short[0], short[short.len() - 1]), (long[0], long[4999]));
        assert!(short.contains(&(1235, 9.0)) && short.contains(&(4322, -7.0)));
        assert!(short.is_sorted_by_key(|&(step, _)| step));
        assert_eq!(thinned(&long[..MOST]), long[..MOST]);
        assert_eq!(thinned(&[]), []);
    }

    #[test]
    fn ranges_have_margins() {
        assert_eq!(value_range(&[]), 0.0..1.0);
        assert_eq!(value_range(&line(&[2.0, 2.0])), 1.5..2.5);
        assert_eq!(value_range(&line(&[0.0])), 0.0..0.5);
        assert_eq!(value_range(&line(&[-100.0])), -110.0..-90.0);
        assert_eq!(value_range(&line(&[1.0, 2.0])), 0.92..2.08);
        assert_eq!(value_range(&line(&[0.1, 10.1])), 0.0..10.9);
        // Values that differ in one bit count as constant.
        assert_eq!(value_range(&line(&[1.0, 1.0 + f64::EPSILON])).start, 0.5);
    }
}
