//! Answers in running text: boxes, formulas, sentences, numbers. Literal scans in linear time.
//!
//! | file | finds |
//! |---|---|
//! | `boxes` | the last `\boxed{...}`, and the boxes that make a list with it |
//! | `formulas` | what stands between `$`, in `\(..\)`, `\[..\]` and environments |
//! | `digits`, `number`, `exact` | numbers: in groups of three, in running text, as a whole text |
//! | `tokens`, `expression` | words and mathematics outside of the formulas; the first and the last expression |
//! | `line` | what follows "the answer is" |
//! | `source` | the expression in what a data set calls its answer |

pub(crate) mod boxes;
pub(crate) mod digits;
pub(crate) mod exact;
pub(crate) mod expression;
pub(crate) mod formulas;
pub(crate) mod line;
pub(crate) mod number;
pub(crate) mod source;
pub(crate) mod tokens;
