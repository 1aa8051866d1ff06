//! Metrics of a reward model's scores.

/// The bins of the calibration error.
const BINS: usize = 10;

/// The metrics of a reward model. With `p = sigmoid(chosen - rejected)` for pairs, and
/// `p = sigmoid(score)` for labels:
///
/// | | pairs | labels `y` |
/// |---|---|---|
/// | loss | mean of `-log sigmoid(chosen - rejected - margin)` | mean of `-y log p - (1 - y) log(1 - p)` |
/// | accuracy | share of the pairs with `chosen > rejected` | share of the responses with `p > 1/2` where `y > 1/2` |
/// | margin | mean of `chosen - rejected` | mean score where `y > 1/2`, less that where `y < 1/2` |
/// | calibration error | of the confidence `max(p, 1 - p)` as the probability of being right | of `p` as the probability of being good |
/// | Brier score | mean of `(1 - p)^2` | mean of `(p - y)^2` |
///
/// A tie counts as half right, so an uninformative model has an accuracy of one half. The
/// calibration error is the expected one over 10 bins of equal width,
/// `sum over bins of n_b / n |mean p - mean outcome|` (Guo et al., arXiv 1706.04599, equation 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RewardModelMetrics {
    /// The number of pairs or labelled responses.
    pub examples: usize,
    /// Mean loss, without the centering term.
    pub loss: f64,
    /// Accuracy, in [0, 1].
    pub accuracy: f64,
    /// Mean difference between the scores of good and bad responses; `None` if there are only good
    /// or only bad ones.
    pub margin: Option<f64>,
    /// Expected calibration error, in [0, 1]; lower is better.
    pub calibration_error: f64,
    /// Brier score, in [0, 1]; lower is better, and 1/4 is that of `p = 1/2`.
    pub brier: f64,
}

/// The scores of one example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scored {
    Pair {
        chosen: f64,
        rejected: f64,
        margin: f64,
    },
    Labeled {
        score: f64,
        label: f64,
    },
}

impl RewardModelMetrics {
    /// Computes the metrics of at least one example.
    pub(super) fn of(all: &[Scored]) -> Self {
        let mut bins = [(0.0, 0.0); BINS];
        let (mut loss, mut right, mut brier) = (0.0, 0.0, 0.0);
        // Sums and counts of scores: good responses, then bad ones.
        let mut sides = [(0.0, 0usize); 2];
        let mut add_to_side = |good: bool, score: f64| {
            let side = &mut sides[usize::from(!good)];
            *side = (side.0 + score, side.1 + 1);
        };
        for one in all {
            let (claimed, outcome) = match *one {
                Scored::Pair {
                    chosen,
                    rejected,
                    margin,
                } => {
                    let difference = chosen - rejected;
                    let probability = sigmoid(difference);
                    let is_right = step(difference);
                    loss += softplus(margin - difference);
                    right += is_right;
                    brier += (1.0 - probability).powi(2);
                    add_to_side(true, chosen);
                    add_to_side(false, rejected);
                    (probability.max(1.0 - probability), is_right)
                }
                Scored::Labeled { score, label } => {
                    let probability = sigmoid(score);
                    let good = step(label - 0.5);
                    let agreement = (step(score) - good).abs();
                    loss += (1.0 - label) * score + softplus(-score);
                    right += 1.0 - agreement;
                    brier += (probability - label).powi(2);
                    if good != 0.5 {
                        add_to_side(good == 1.0, score);
                    }
                    (probability, label)
                }
            };
            let bin = ((claimed * BINS as f64) as usize).min(BINS - 1);
            bins[bin] = (bins[bin].0 + claimed, bins[bin].1 + outcome);
        }
        let count = all.len() as f64;
        // A bin's share times the difference of its means is the difference of its sums divided by
        // the total count.
        let gaps: f64 = bins
            .iter()
            .map(|(claimed, found)| (claimed - found).abs())
            .sum();
        let mean = |(sum, count): (f64, usize)| (count > 0).then(|| sum / count as f64);
        Self {
            examples: all.len(),
            loss: loss / count,
            accuracy: right / count,
            margin: mean(sides[0])
                .zip(mean(sides[1]))
                .map(|(good, bad)| good - bad),
            calibration_error: gaps / count,
            brier: brier / count,
        }
    }
}

/// 1 above 0, 0 below, 1/2 at 0.
fn step(x: f64) -> f64 {
    match x.partial_cmp(&0.0) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Less) => 0.0,
        _ => 0.5,
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `log(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;

    fn pair(chosen: f64, rejected: f64) -> Scored {
        Scored::Pair {
            chosen,
            rejected,
            margin: 0.0,
        }
    }

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "{got} instead of {want}");
    }

    #[test]
    fn metrics_of_pairs_agree_with_hand_computation() {
        // Odds of 3 : 1 and of 1 : 3, and a tie.
        let ln3 = 3f64.ln();
        let found = RewardModelMetrics::of(&[pair(ln3, 0.0), pair(1.0, 1.0 + ln3), pair(2.0, 2.0)]);
        assert_eq!((found.examples, found.accuracy), (3, 0.5));
        close(
            found.loss,
            ((4f64 / 3.0).ln() + 4f64.ln() + 2f64.ln()) / 3.0,
        );
        close(found.margin.unwrap(), 0.0);
        close(found.brier, (1.0 / 16.0 + 9.0 / 16.0 + 0.25) / 3.0);
        // The bin of 0.75 predicts 1.5 right answers and has 1; the bin of 0.5 is exact.
        close(found.calibration_error, 0.5 / 3.0);
        let with_margin = RewardModelMetrics::of(&[Scored::Pair {
            chosen: 1.0,
            rejected: 0.0,
            margin: 1.0,
        }]);
        close(with_margin.loss, 2f64.ln());
        assert_eq!(with_margin.accuracy, 1.0);
    }

    #[test]
    fn metrics_of_labels_agree_with_hand_computation() {
        let labeled = |score, label| Scored::Labeled { score, label };
        let ln3 = 3f64.ln();
        let found = RewardModelMetrics::of(&[
            labeled(ln3, 1.0),
            labeled(ln3, 0.0),
            labeled(-ln3, 0.0),
            labeled(-1e3, 0.0),
            labeled(0.0, 0.5),
        ]);
        close(found.accuracy, 4.0 / 5.0);
        let loss = 2.0 * (4f64 / 3.0).ln() + 4f64.ln() + 2f64.ln();
        close(found.loss, loss / 5.0);
        close(found.margin.unwrap(), ln3 - (0.0 - 1e3) / 3.0);
        close(found.brier, (2.0 / 16.0 + 9.0 / 16.0) / 5.0);
        close(found.calibration_error, (0.5 + 0.25) / 5.0);
        assert_eq!(RewardModelMetrics::of(&[labeled(1.0, 1.0)]).margin, None);
    }
}
