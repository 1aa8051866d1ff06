//! Rewards for the format and style of a completion, regardless of its content.

mod code_block;
#[cfg(feature = "language")]
mod language;
mod lines;
#[cfg(feature = "language")]
mod prose;
mod repetition;
mod steps;
mod strict;
mod tag_count;
mod think;

pub use code_block::CodeFormatReward;
#[cfg(feature = "language")]
pub use language::LanguageReward;
pub use lines::LineFormatReward;
pub use repetition::{RepetitionReward, RepetitionUnit};
pub use steps::ReasoningStepsReward;
pub use strict::FormatReward;
pub use tag_count::TagCountReward;
pub use think::ThinkFormatReward;

/// The score 1 for `true`, 0 for `false`.
fn verdict(yes: bool) -> Option<f64> {
    Some(if yes { 1.0 } else { 0.0 })
}

/// Returns the text after the last of `pieces`, each searched from the left after the previous one;
/// `None` if one is missing. This finds the pieces in every text that contains them in this order,
/// since an earlier match leaves more text after it.
fn behind<'a>(text: &'a str, pieces: &[&str]) -> Option<&'a str> {
    pieces.iter().try_fold(text, |rest, piece| {
        rest.split_once(piece).map(|(_, behind)| behind)
    })
}

/// Whether `piece` ends a line of `text`.
fn ends_a_line(text: &str, piece: &str) -> bool {
    let ends = |(at, _): (usize, &str)| {
        matches!(text.as_bytes().get(at + piece.len()), None | Some(b'\n'))
    };
    text.match_indices(piece).any(ends)
}
