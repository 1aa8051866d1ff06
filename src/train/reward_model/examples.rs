//! Tokenised examples and their micro-batches.

use super::RewardModelConfig;
use super::data::{LabeledResponse, PreferencePair, RewardExamples};
use crate::policy::{PolicyModel, ValueHead};
use crate::prompt::Tokenizer;
use crate::reward::tokens_to_score;
use crate::{Error, Result};

/// A tokenised example.
#[derive(Debug)]
pub(super) enum Example {
    Pair {
        chosen: Vec<u32>,
        rejected: Vec<u32>,
        margin: f64,
    },
    Labeled {
        response: Vec<u32>,
        label: f64,
    },
}

impl Example {
    /// Returns the rows of the forward pass: the chosen response first.
    fn rows(&self) -> Vec<&[u32]> {
        match self {
            Self::Pair {
                chosen, rejected, ..
            } => vec![chosen, rejected],
            Self::Labeled { response, .. } => vec![response],
        }
    }

    /// Returns the length of the longest row.
    fn width(&self) -> usize {
        self.rows().iter().map(|row| row.len()).max().unwrap_or(0)
    }

    /// Returns the target of the loss.
    pub(super) fn target(&self) -> f64 {
        match self {
            Self::Pair { margin, .. } => *margin,
            Self::Labeled { label, .. } => *label,
        }
    }
}

/// Tokenises and checks all examples.
pub(super) fn read<M: PolicyModel>(
    examples: RewardExamples<'_>,
    model: &ValueHead<M>,
    tokenizer: &dyn Tokenizer,
    config: &RewardModelConfig,
) -> Result<Vec<Example>> {
    let (tokens, vocabulary) = (tokenizer.vocab_size(), model.trunk.vocab_size());
    if tokens > vocabulary {
        let expected = format!("at most the reward model's {vocabulary}");
        return Err(Error::config("tokenizer.vocab_size", tokens, expected));
    }
    let positions = model.trunk.max_positions();
    let row = |what: String, prompt: &str, response: &str| {
        let tokens = tokens_to_score(tokenizer, config.conversation, prompt, response, true)?;
        match tokens.len() {
            length if (1..=positions).contains(&length) => Ok(tokens),
            length => {
                let got = format!("{length} tokens");
                let expected = format!("1 to {positions}, the model's positions");
                Err(Error::shape(what, got, expected))
            }
        }
    };
    let examples: Vec<Example> = match examples {
        RewardExamples::Pairs(pairs) => {
            let read = |(index, pair): (usize, &PreferencePair)| {
                if !pair.margin.is_finite() {
                    let field = format!("pairs[{index}].margin");
                    return Err(Error::config(field, pair.margin, "a finite number"));
                }
                let row =
                    |name: &str, text| row(format!("pairs[{index}].{name}"), &pair.prompt, text);
                Ok(Example::Pair {
                    chosen: row("chosen", &pair.chosen)?,
                    rejected: row("rejected", &pair.rejected)?,
                    margin: pair.margin,
                })
            };
            pairs.iter().enumerate().map(read).collect::<Result<_>>()?
        }
        RewardExamples::Labeled(responses) => {
            let read = |(index, one): (usize, &LabeledResponse)| {
                if !(0.0..=1.0).contains(&one.label) {
                    let field = format!("responses[{index}].label");
                    return Err(Error::config(field, one.label, "a probability in [0, 1]"));
                }
                let what = format!("responses[{index}].response");
                Ok(Example::Labeled {
                    response: row(what, &one.prompt, &one.response)?,
                    label: one.label,
                })
            };
            responses
                .iter()
                .enumerate()
                .map(read)
                .collect::<Result<_>>()?
        }
    };
    match examples.is_empty() {
        true => Err(Error::config("examples", "none", "at least one")),
        false => Ok(examples),
    }
}

/// Divides the examples at `indices` into micro-batches of at most `most` tokens, padding included,
/// or of one example. Sorting by length keeps padding small.
pub(super) fn micro_batches(
    examples: &[Example],
    indices: &[usize],
    most: usize,
) -> Vec<Vec<usize>> {
    let mut sorted = indices.to_vec();
    sorted.sort_by_key(|&at| examples[at].width());
    let mut parts: Vec<Vec<usize>> = Vec::new();
    for at in sorted {
        // This is the widest example so far, and all have the same number of rows.
        let tokens = examples[at].width() * examples[at].rows().len();
        match parts.last_mut() {
            Some(part) if (part.len() + 1).saturating_mul(tokens) <= most => part.push(at),
            _ => parts.push(vec![at]),
        }
    }
    parts
}

/// Returns the rows of a micro-batch: the first of every example, then the second.
pub(super) fn rows<'a>(part: &[&'a Example]) -> Vec<&'a [u32]> {
    let rows: Vec<Vec<&[u32]>> = part.iter().map(|example| example.rows()).collect();
    let side = |side: usize| rows.iter().filter_map(move |rows| rows.get(side).copied());
    side(0).chain(side(1)).collect()
}
