//! The parser: from text to nodes, without recursion over nested brackets.
//!
//! | step | files |
//! |---|---|
//! | words of mathematics | `vocabulary`, `unit` |
//! | tokens and groups | `lexer`, `command`, `token`, `numeral` |
//! | lists, relations, set operations | `sequence` |
//! | sums, products, powers | `term`, `cursor` |
//! | functions, numbers and names, large operators | `function`, `operand`, `operator` |
//! | the readings of an ambiguous text | `reading` |

pub(crate) mod command;
pub(crate) mod cursor;
pub(crate) mod function;
pub(crate) mod lexer;
pub(crate) mod numeral;
pub(crate) mod operand;
pub(crate) mod operator;
pub(crate) mod reading;
pub(crate) mod sequence;
pub(crate) mod term;
pub(crate) mod token;
pub(crate) mod unit;
pub(crate) mod vocabulary;
