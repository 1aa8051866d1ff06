//! A seeded split of a problem set into training and held-out problems without common prompts.

use std::collections::{HashMap, HashSet};

use super::Problem;
use crate::random::generator;
use crate::random::shuffle;
use crate::{Error, Result};

/// The word of the split in a generator's address.
const SPLIT: u64 = u64::from_be_bytes(*b"pr.split");

/// A problem set in two parts, from [`split`].
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The problems for training, in their original order.
    pub train: Vec<Problem>,
    /// The problems for evaluation, in their original order.
    pub held_out: Vec<Problem>,
}

/// Splits `problems` at random, as a pure function of their order and `seed`.
///
/// `held_out` is a number of *distinct prompts*. Problems with equal prompts are always in the same
/// part. If a held-out prompt occurs twice, both problems are held out, and [`Split::held_out`] has
/// more than `held_out` entries. Prompts are compared as text: `1+2=` and `2+1=` are distinct.
///
/// ```
/// use rlvr::prompt::{Arithmetic, split};
///
/// let parts = split(Arithmetic::default().problems(100, 0)?, 20, 0)?;
/// assert_eq!((parts.train.len(), parts.held_out.len()), (80, 20));
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// # Errors
/// Returns [`Error::Config`] if there are fewer than two distinct prompts, if `held_out` is 0, or
/// if it leaves no prompt for training.
pub fn split(problems: Vec<Problem>, held_out: usize, seed: u64) -> Result<Split> {
    let mut number_of: HashMap<&str, usize> = HashMap::new();
    // The number of each problem's prompt, in order of first appearance.
    let numbers: Vec<usize> = problems
        .iter()
        .map(|problem| {
            let next = number_of.len();
            *number_of.entry(&problem.prompt).or_insert(next)
        })
        .collect();
    let distinct = number_of.len();
    if distinct < 2 {
        return Err(Error::config(
            "problems",
            format!("{distinct} distinct prompts"),
            "at least 2, one for each part",
        ));
    }
    if !(1..distinct).contains(&held_out) {
        let last = distinct - 1;
        return Err(Error::config(
            "held_out",
            held_out,
            format!(
                "1..={last}: the set has {distinct} distinct prompts, and training needs at least one"
            ),
        ));
    }

    let mut order: Vec<usize> = (0..distinct).collect();
    shuffle(&mut generator(&[seed, SPLIT]), &mut order);
    let chosen: HashSet<usize> = order.into_iter().take(held_out).collect();

    let mut parts = Split {
        train: Vec::new(),
        held_out: Vec::new(),
    };
    for (problem, number) in problems.into_iter().zip(numbers) {
        let side = if chosen.contains(&number) {
            &mut parts.held_out
        } else {
            &mut parts.train
        };
        side.push(problem);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(prompts: &[&str]) -> Vec<Problem> {
        prompts
            .iter()
            .enumerate()
            .map(|(i, prompt)| Problem::new(*prompt, i.to_string()))
            .collect()
    }

    #[test]
    fn held_out_counts_outside_their_range_are_errors() {
        for wrong in [0, 3, 4] {
            let error = split(asked(&["a", "b", "c", "a"]), wrong, 0)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("invalid `held_out`: {wrong}; expected 1..=2")),
                "{error}"
            );
        }
        let error = split(asked(&["a", "a"]), 1, 0).unwrap_err().to_string();
        assert!(error.contains("1 distinct prompts"), "{error}");
        assert!(split(Vec::new(), 1, 0).is_err());
    }

    #[test]
    fn the_split_of_seed_0_is_stable_across_releases() {
        let parts = split(asked(&["a", "b", "c", "d", "a", "e", "f", "b"]), 3, 0).unwrap();
        let answers = |side: &[Problem]| side.iter().map(|p| p.answer.clone()).collect::<Vec<_>>();
        assert_eq!(answers(&parts.held_out), ["0", "3", "4", "6"]);
        assert_eq!(answers(&parts.train), ["1", "2", "5", "7"]);
    }

    #[test]
    fn seeds_hold_out_different_problems() {
        let problems: Vec<Problem> = (0..64).map(|i| Problem::new(i.to_string(), "")).collect();
        let one = split(problems.clone(), 32, 1).unwrap();
        let two = split(problems, 32, 2).unwrap();
        assert_ne!(one.held_out, two.held_out);
    }

    proptest! {
        #[test]
        fn a_split_is_a_partition_by_prompts(
            prompts in prop::collection::vec("[a-d]{1,2}", 2..40), share in 0.0f64..1.0, seed: u64,
        ) {
            let problems = asked(&prompts.iter().map(String::as_str).collect::<Vec<_>>());
            let distinct = prompts.iter().collect::<HashSet<_>>().len();
            prop_assume!(distinct > 1);
            let held_out = 1 + (share * (distinct - 1) as f64) as usize;
            let held_out = held_out.min(distinct - 1);
            let parts = split(problems.clone(), held_out, seed).unwrap();

            let sides = |side: &[Problem]| side.iter().map(|p| p.prompt.clone()).collect::<HashSet<_>>();
            prop_assert!(sides(&parts.train).is_disjoint(&sides(&parts.held_out)));
            prop_assert_eq!(sides(&parts.held_out).len(), held_out);

            // Answers are the original positions. The parts together have all of them, and each
            // part keeps their order.
            let positions = |side: &[Problem]| side.iter().map(|p| p.answer.parse().unwrap()).collect::<Vec<usize>>();
            prop_assert!(positions(&parts.train).is_sorted() && positions(&parts.held_out).is_sorted());
            let mut all = [parts.train.clone(), parts.held_out.clone()].concat();
            all.sort_by_key(|p| p.answer.parse::<usize>().unwrap());
            prop_assert_eq!(&all, &problems);
            prop_assert_eq!(parts, split(problems, held_out, seed).unwrap());
        }
    }
}
