//! The answer in a text that is an answer already, or a sentence around one: what data sets give as the reference.

use std::borrow::Cow;

use super::formulas::formulas;
use super::{boxed, line};

/// What is in the box (in the list of boxes, in a box that was cut off), else what follows "the answer is", else all of it.
///
/// Unlike in a response no last number is looked for: "all real numbers but 3" is not 3.
pub(crate) fn reference(text: &str) -> Cow<'_, str> {
    if let Some(boxes) = boxed::last_box(text) {
        return boxes.list.map_or(Cow::Borrowed(boxes.last), Cow::Owned);
    }
    if let Some(rest) = boxed::unclosed_box(text) {
        return Cow::Borrowed(rest);
    }
    match line::answer_line(text, &formulas(text)) {
        Some(answer) => Cow::Owned(answer),
        None => Cow::Borrowed(text.trim()),
    }
}
