//! Division of a step among learners, and typed collective calls.

use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::config::TrainerConfig;
use super::{Alone, Learners, slice};
use crate::{Error, Result};

/// The learners of a run, and the number of shards of a step.
#[derive(Clone)]
pub(in crate::train) struct LearnerGroup {
    learners: Arc<dyn Learners>,
    shards: usize,
    /// Gradients are summed in an unspecified order.
    pub all_reduce: bool,
    /// Each learner holds a part of the optimizer's state.
    pub sharded_optimizer: bool,
}

impl LearnerGroup {
    /// Creates a group of one learner and one shard.
    pub fn one() -> Self {
        Self::alone(&TrainerConfig::default())
    }

    /// Creates a group of one learner with the shards of `config`.
    pub fn alone(config: &TrainerConfig) -> Self {
        Self {
            learners: Arc::new(Alone),
            shards: config.shards,
            all_reduce: config.all_reduce,
            sharded_optimizer: config.sharded_optimizer,
        }
    }

    /// Creates a group of several learners, whose number must divide the shards.
    ///
    /// # Errors
    /// Returns an error if it does not.
    pub fn new(learners: Arc<dyn Learners>, config: &TrainerConfig) -> Result<Self> {
        let size = learners.size();
        let shards = match config.all_reduce {
            true => size,
            false => config.shards,
        };
        if !shards.is_multiple_of(size) {
            return Err(Error::config(
                "shards",
                shards,
                format!(
                    "a multiple of the {size} learners, or all_reduce, whose order of summation is unspecified"
                ),
            ));
        }
        Ok(Self {
            learners,
            shards,
            ..Self::alone(config)
        })
    }

    pub fn learners(&self) -> &dyn Learners {
        self.learners.as_ref()
    }

    pub fn rank(&self) -> usize {
        self.learners.rank()
    }

    pub fn size(&self) -> usize {
        self.learners.size()
    }

    /// Returns whether this learner calls observers and writes files.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    pub fn several(&self) -> bool {
        self.size() > 1
    }

    /// Returns the number of parts of a step.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Returns the shards that this learner computes.
    pub fn own_shards(&self) -> Range<usize> {
        slice(self.shards, self.rank(), self.size())
    }

    /// Returns this learner's consecutive blocks of `count` items. The blocks of all learners, by
    /// rank, are in order, and do not depend on the number of learners.
    pub fn own_blocks(&self, count: usize) -> impl Iterator<Item = Range<usize>> {
        let shards = self.shards;
        let blocks = self.own_shards().map(move |at| slice(count, at, shards));
        blocks.filter(|block| !block.is_empty())
    }

    /// Returns the micro-batch size for `count` rows, at most `most`. With several shards, each has
    /// the same number of micro-batches of about the same size.
    pub fn rows_together(&self, count: usize, most: usize) -> usize {
        match self.shards {
            1 => most,
            shards => {
                let each = count.div_ceil(shards * most).max(1);
                count.div_ceil(shards * each).max(1)
            }
        }
    }

    /// Returns `mine` of every learner, by rank. `what` names the call in errors. An error of one
    /// learner is an error on all of them.
    ///
    /// # Errors
    /// Returns this learner's error, that of another learner, or an error if a learner does not
    /// answer.
    pub fn gather_bytes(&self, what: &str, mine: Result<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        if !self.several() {
            return mine.map(|bytes| vec![bytes]);
        }
        // The name of the call, a zero byte, then 1 and the bytes, or 0 and the error message.
        let (good, content) = match &mine {
            Ok(bytes) => (1, bytes.as_slice()),
            Err(error) => (0, &*error.to_string().into_bytes()),
        };
        let mut message = Vec::with_capacity(what.len() + 2 + content.len());
        message.extend(what.bytes().chain([0, good]));
        message.extend(content);
        let gathered = self.learners.gather(message);
        mine?;
        let mut all = Vec::with_capacity(self.size());
        for (rank, message) in gathered?.into_iter().enumerate() {
            let rest = message.strip_prefix(what.as_bytes());
            match rest {
                Some([0, 1, content @ ..]) => all.push(content.to_vec()),
                Some([0, 0, reason @ ..]) => {
                    return Err(Error::learner(rank, String::from_utf8_lossy(reason)));
                }
                _ => {
                    let there = message.split(|&byte| byte == 0).next().unwrap_or_default();
                    let there = String::from_utf8_lossy(&there[..there.len().min(80)]).into_owned();
                    let reason = format!(
                        "it is at `{there}` while learner {} is at `{what}`",
                        self.rank()
                    );
                    return Err(Error::learner(rank, reason));
                }
            }
        }
        Ok(all)
    }

    /// [`gather_bytes`](Self::gather_bytes) for serializable values, which must not contain NaN or
    /// infinities.
    ///
    /// # Errors
    /// Returns the errors of [`gather_bytes`](Self::gather_bytes).
    pub fn gather<T: Serialize + DeserializeOwned>(
        &self,
        what: &str,
        mine: Result<T>,
    ) -> Result<Vec<T>> {
        if !self.several() {
            return mine.map(|value| vec![value]);
        }
        let broken = |reason: serde_json::Error| {
            Error::shape(
                format!("message of a learner about `{what}`"),
                reason,
                "a message of the same program",
            )
        };
        let bytes = mine.and_then(|value| serde_json::to_vec(&value).map_err(broken));
        let all = self.gather_bytes(what, bytes)?;
        let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(broken);
        all.into_iter().map(read).collect()
    }

    /// [`gather_bytes`](Self::gather_bytes) for numbers, NaN and infinities included.
    ///
    /// # Errors
    /// Returns the errors of [`gather_bytes`](Self::gather_bytes).
    pub fn gather_numbers(&self, what: &str, mine: Result<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
        if !self.several() {
            return mine.map(|numbers| vec![numbers]);
        }
        let bytes = mine.map(|numbers| numbers.iter().flat_map(|x| x.to_le_bytes()).collect());
        let all = self.gather_bytes(what, bytes)?;
        let read = |bytes: Vec<u8>| {
            let words = bytes.as_chunks::<8>().0.iter();
            words.map(|word| f64::from_le_bytes(*word)).collect()
        };
        Ok(all.into_iter().map(read).collect())
    }

    /// Returns an error on all learners if one of them has failed.
    ///
    /// # Errors
    /// Returns the errors of [`gather_bytes`](Self::gather_bytes).
    pub fn agree(&self, what: &str, mine: Result<()>) -> Result<()> {
        self.gather_bytes(what, mine.map(|()| Vec::new()))?;
        Ok(())
    }

    /// Returns whether `mine` is true on any learner.
    ///
    /// # Errors
    /// Returns the errors of [`gather_bytes`](Self::gather_bytes).
    pub fn any(&self, what: &str, mine: bool) -> Result<bool> {
        let all = self.gather_bytes(what, Ok(vec![u8::from(mine)]))?;
        Ok(all.contains(&vec![1]))
    }

    /// Returns an error unless `mine` is the same number on all learners; `what` names it in the
    /// error.
    ///
    /// # Errors
    /// Returns an error if the numbers differ, and the errors of
    /// [`gather_bytes`](Self::gather_bytes).
    pub fn check_same(&self, what: &str, mine: Result<u64>) -> Result<()> {
        let all = self.gather_bytes(what, mine.map(|number| number.to_le_bytes().to_vec()))?;
        match all.iter().position(|theirs| *theirs != all[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::learner(
                rank,
                format!(
                    "its {what} differ from learner 0's; expected the same program, configuration and processor model on all learners"
                ),
            )),
        }
    }
}

/// Returns which of `count` learners gets item `index` of a sorted list. The ranks are traversed up
/// and down in turn, so that large items are spread evenly.
pub(in crate::train) fn dealt_to(index: usize, count: usize) -> usize {
    let (round, place) = (index / count, index % count);
    match round % 2 {
        0 => place,
        _ => count - 1 - place,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Threads;
    use super::*;
    use std::time::Duration;

    #[test]
    fn shards_have_equal_numbers_of_micro_batches() {
        let rows = |shards, count, most| {
            let config = TrainerConfig {
                shards,
                ..TrainerConfig::default()
            };
            LearnerGroup::alone(&config).rows_together(count, most)
        };
        assert_eq!(rows(1, 200, 64), 64);
        assert_eq!(rows(2, 192, 64), 48);
        assert_eq!(rows(4, 10, 64), 3);
        assert_eq!(rows(4, 2, 64), 1);
        assert_eq!(rows(4, 0, 64), 1);
    }

    #[test]
    fn items_are_dealt_up_and_down_the_ranks() {
        let to = |count| {
            (0..7)
                .map(|index| dealt_to(index, count))
                .collect::<Vec<_>>()
        };
        assert_eq!(to(3), [0, 1, 2, 2, 1, 0, 0]);
        assert_eq!(to(1), [0; 7]);
    }

    /// The result of `work` on each of `size` learners, or the text of its error.
    fn each<T: Send + 'static>(
        size: usize,
        config: TrainerConfig,
        work: impl Fn(&LearnerGroup) -> Result<T> + Copy + Send + 'static,
    ) -> Vec<std::result::Result<T, String>> {
        let all = Threads::new(size, Duration::from_secs(20));
        let handles = all.into_iter().map(|learner| {
            let config = config.clone();
            std::thread::spawn(move || {
                let group = LearnerGroup::new(Arc::new(learner), &config)?;
                work(&group)
            })
        });
        let handles: Vec<_> = handles.collect();
        let text = |result: Result<T>| result.map_err(|error| error.to_string());
        handles
            .into_iter()
            .map(|handle| text(handle.join().unwrap()))
            .collect()
    }

    fn shards(shards: usize) -> TrainerConfig {
        TrainerConfig {
            shards,
            ..TrainerConfig::default()
        }
    }

    #[test]
    fn blocks_are_the_same_for_every_number_of_learners_and_in_order() {
        for count in [0, 1, 3, 8, 13] {
            let blocks = |size| {
                let found = each(size, shards(4), move |group| {
                    Ok(group.own_blocks(count).collect::<Vec<_>>())
                });
                found
                    .into_iter()
                    .flat_map(|blocks| blocks.unwrap())
                    .collect::<Vec<_>>()
            };
            assert_eq!(blocks(1), blocks(2));
            assert_eq!(blocks(1), blocks(4));
            let all: Vec<usize> = blocks(4).into_iter().flatten().collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_of_one_learner_is_an_error_on_all() {
        let results = each(
            3,
            TrainerConfig {
                all_reduce: true,
                ..shards(1)
            },
            |group| {
                let mine = match group.rank() {
                    1 => Err(Error::config("disk", "full", "space")),
                    rank => Ok(rank as u64),
                };
                group.gather("numbers", mine)
            },
        );
        let own = "invalid `disk`: full; expected space";
        for (rank, result) in results.iter().enumerate() {
            let error = result.as_ref().unwrap_err();
            match rank {
                1 => assert_eq!(error, own),
                _ => assert_eq!(*error, format!("learner 1: {own}")),
            }
        }
    }

    #[test]
    fn mismatched_calls_are_an_error_on_all_learners() {
        let results = each(2, shards(2), |group| match group.rank() {
            0 => group.agree("rollouts", Ok(())),
            _ => group.agree("checkpoint", Ok(())),
        });
        assert_eq!(
            results[0].as_ref().unwrap_err(),
            "learner 1: it is at `checkpoint` while learner 0 is at `rollouts`"
        );
        assert!(results[1].as_ref().unwrap_err().contains("`rollouts`"));
    }

    #[test]
    fn gathered_values_are_unchanged() {
        let results = each(2, shards(2), |group| {
            let rank = group.rank() as f64;
            let numbers =
                group.gather_numbers("n", Ok(vec![f64::NAN, -rank, f64::NEG_INFINITY]))?;
            let bits = |numbers: &Vec<f64>| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let numbers: Vec<_> = numbers.iter().map(bits).collect();
            let words = group.gather("w", Ok((group.rank(), "a\0b".to_string())))?;
            let any = group.any("a", group.rank() == 1)?;
            let none = group.any("b", false)?;
            let same = group.check_same("weights", Ok(7)).is_ok();
            let other = group
                .check_same("weights", Ok(group.rank() as u64))
                .is_err();
            Ok((numbers, words, [any, !none, same, other]))
        });
        let (numbers, words, truths) = results[0].clone().unwrap();
        assert_eq!(
            results[1].clone().unwrap(),
            (numbers.clone(), words.clone(), truths)
        );
        assert_eq!(numbers[0][1], (-0.0f64).to_bits());
        assert_eq!(words, [(0, "a\0b".to_string()), (1, "a\0b".to_string())]);
        assert_eq!(truths, [true; 4]);
    }

    #[test]
    fn the_number_of_learners_must_divide_the_shards() {
        let results = each(3, shards(4), |_| Ok(()));
        let error = results[0].as_ref().unwrap_err();
        assert!(
            error.contains("shards") && error.contains("3 learners"),
            "{error}"
        );
    }
}
