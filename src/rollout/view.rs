//! Indexed access to the rollouts of a buffer, and their division into micro-batches.

use crate::types::{Rollout, RolloutBuffer, RolloutGroup};

/// An index of a buffer's rollouts and their groups, in the order of [`RolloutBuffer::rollouts`].
///
/// Create it once per buffer and make any number of [`RolloutBatch`](super::RolloutBatch)es from
/// it.
#[derive(Clone, Debug)]
pub struct RolloutView<'a> {
    groups: &'a [RolloutGroup],
    rollouts: Vec<&'a Rollout>,
    group_ids: Vec<usize>,
}

impl<'a> RolloutView<'a> {
    /// Indexes the rollouts of `buffer`.
    pub fn new(buffer: &'a RolloutBuffer) -> Self {
        Self {
            groups: &buffer.groups,
            rollouts: buffer.rollouts().collect(),
            group_ids: buffer.group_ids(),
        }
    }

    /// The rollouts.
    pub fn rollouts(&self) -> &[&'a Rollout] {
        &self.rollouts
    }

    /// The group of every rollout, as an index into [`RolloutBuffer::groups`].
    pub fn group_ids(&self) -> &[usize] {
        &self.group_ids
    }

    /// The prompt tokens of rollout `index`.
    pub(super) fn prompt(&self, index: usize) -> &'a [u32] {
        &self.groups[self.group_ids[index]].prompt_tokens
    }

    /// The number of groups.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }
}

/// Divides `rows`, indices of rollouts, into micro-batches.
///
/// A micro-batch has at most `max_rows` rollouts and at most `max_tokens` tokens, padding included:
/// the number of rollouts times the sum of the longest prompt and the longest completion. A rollout
/// that alone exceeds `max_tokens` becomes a micro-batch by itself. Rollouts are sorted by
/// completion length to reduce padding; among equal lengths, rollouts of a group, which share a
/// prompt, stay together. Every rollout is in exactly one micro-batch, and the order of `rows` does
/// not matter.
pub(crate) fn micro_batches(
    view: &RolloutView<'_>,
    rows: &[usize],
    max_rows: usize,
    max_tokens: Option<usize>,
) -> Vec<Vec<usize>> {
    let completion = |row: usize| view.rollouts[row].tokens.len();
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|&row| (completion(row), view.group_ids[row], row));
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut longest_prompt = 0;
    for row in sorted {
        let prompt = view.prompt(row).len();
        // Rollouts are sorted, so this completion is the longest so far.
        let width = longest_prompt.max(prompt) + completion(row);
        let fits = |part: &Vec<usize>| {
            let tokens = (part.len() + 1).saturating_mul(width);
            part.len() < max_rows && max_tokens.is_none_or(|most| tokens <= most)
        };
        match parts.last_mut().filter(|part| fits(part)) {
            Some(part) => {
                part.push(row);
                longest_prompt = longest_prompt.max(prompt);
            }
            None => {
                parts.push(vec![row]);
                longest_prompt = prompt;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Problem;

    /// A buffer of groups with these prompt and completion lengths.
    fn buffer(groups: &[(usize, Vec<usize>)]) -> RolloutBuffer {
        let group = |(prompt, completions): &(usize, Vec<usize>)| {
            let rollout = |&len: &usize| Rollout::new(vec![2; len], vec![-0.1; len], "");
            let rollouts = completions.iter().map(rollout).collect();
            RolloutGroup::new(Problem::new("", ""), vec![3; *prompt], rollouts)
        };
        RolloutBuffer {
            groups: groups.iter().map(group).collect(),
        }
    }

    /// The tokens of a part, padding included.
    fn padded(view: &RolloutView<'_>, part: &[usize]) -> usize {
        let prompt = part.iter().map(|&row| view.prompt(row).len()).max();
        let completion = part
            .iter()
            .map(|&row| view.rollouts()[row].tokens.len())
            .max();
        part.len() * (prompt.unwrap() + completion.unwrap())
    }

    #[test]
    fn rollouts_of_similar_length_are_forwarded_together() {
        let buffer = buffer(&[(2, vec![9, 1, 5]), (3, vec![1, 8])]);
        let view = RolloutView::new(&buffer);
        let all = [4, 3, 2, 1, 0];
        assert_eq!(
            micro_batches(&view, &all, 2, None),
            [vec![1, 3], vec![2, 4], vec![0]]
        );
        // 2 * (3 + 1) = 8 tokens fit together; 7 tokens fit only alone, and 11 exceed the limit.
        assert_eq!(
            micro_batches(&view, &all, 64, Some(10)),
            [vec![1, 3], vec![2], vec![4], vec![0]]
        );
        assert_eq!(micro_batches(&view, &all, 64, None).len(), 1);
        assert!(micro_batches(&view, &[], 64, Some(10)).is_empty());
    }

    #[test]
    fn sorting_by_length_reduces_padding() {
        // Every 16th completion is long, as in a step with a few truncated completions.
        let lengths = |group: usize| (0..16).map(move |i| if i == group { 2000 } else { 100 + i });
        let groups: Vec<_> = (0..16)
            .map(|group| (50, lengths(group).collect()))
            .collect();
        let buffer = buffer(&groups);
        let view = RolloutView::new(&buffer);
        let all: Vec<usize> = (0..256).collect();
        let cost =
            |parts: &[Vec<usize>]| parts.iter().map(|part| padded(&view, part)).sum::<usize>();
        let in_order: Vec<Vec<usize>> = all.chunks(16).map(<[usize]>::to_vec).collect();
        let sorted = micro_batches(&view, &all, 16, None);
        assert!(cost(&sorted) * 7 < cost(&in_order));
    }

    proptest! {
        #[test]
        fn micro_batches_respect_the_limits_and_cover_every_rollout(
            groups in prop::collection::vec(
                (1usize..30, prop::collection::vec(1usize..60, 0..8)), 1..8),
            max_rows in 1usize..12,
            max_tokens in prop::option::of(1usize..400),
            dropped in 0usize..3,
        ) {
            let buffer = buffer(&groups);
            let view = RolloutView::new(&buffer);
            let rows: Vec<usize> = (0..buffer.len()).skip(dropped).collect();
            let parts = micro_batches(&view, &rows, max_rows, max_tokens);
            for part in &parts {
                prop_assert!((1..=max_rows).contains(&part.len()));
                let most = max_tokens.unwrap_or(usize::MAX);
                prop_assert!(part.len() == 1 || padded(&view, part) <= most);
            }
            let mut seen = parts.concat();
            // A micro-batch ends only when the next rollout does not fit.
            for pair in parts.windows(2) {
                let more = [pair[0].as_slice(), &pair[1][..1]].concat();
                prop_assert!(
                    more.len() > max_rows || max_tokens.is_some_and(|most| padded(&view, &more) > most)
                );
            }
            let lengths: Vec<usize> =
                seen.iter().map(|&row| view.rollouts()[row].tokens.len()).collect();
            prop_assert!(lengths.is_sorted());
            seen.sort_unstable();
            prop_assert_eq!(seen, rows.clone());
            let reversed: Vec<usize> = rows.into_iter().rev().collect();
            prop_assert_eq!(micro_batches(&view, &reversed, max_rows, max_tokens), parts);
        }
    }
}
