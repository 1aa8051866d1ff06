//! Answers in running text: boxes, formulas, sentences and numbers, found by literal scans in
//! linear time.
//!
//! | file | finds |
//! |---|---|
//! | `boxes` | the last `\boxed{...}`, and the boxes that form a list with it |
//! | `formulas` | formulas between `$`, in `\(..\)`, `\[..\]` and environments |
//! | `digits`, `number`, `exact` | groups of digits; numbers in running text; texts that are a number |
//! | `tokens`, `expression` | words and mathematics outside of formulas; the first and the last expression |
//! | `line` | the text after "the answer is" |
//! | `source` | the expression in an answer or gold |

pub(crate) mod boxes;
pub(crate) mod digits;
pub(crate) mod exact;
pub(crate) mod expression;
pub(crate) mod formulas;
pub(crate) mod line;
pub(crate) mod number;
pub(crate) mod source;
pub(crate) mod tokens;
