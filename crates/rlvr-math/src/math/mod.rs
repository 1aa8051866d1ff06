//! Equality of mathematical answers.
//!
//! [`MathVerifier::compare`] takes two texts, a gold answer and an answer, and gives a [`Verdict`] with its reason. A text is
//! read in steps, a file for each:
//!
//! | step | files |
//! |---|---|
//! | find the expression: boxes, dollars, sentences | `source` |
//! | letters of a choice, answers in words | `choice`, `text` |
//! | tokens and groups, without recursion | `lexer`, `token`, `vocabulary`, `numeral`, `unit` |
//! | lists, relations, sums, functions | `grammar`, `term`, `calculus`, `matrix` |
//! | several readings of one text | `reading` |
//! | exact simplification into an arena of shared nodes | `node`, `build`, `fold` |
//!
//! and compared by the rule of its kind:
//!
//! | kind | rule in |
//! |---|---|
//! | which rule applies | `compare` |
//! | expressions: exact, modulo primes, in balls | `expression`, `modular`, `evaluate`, `complex`, `real`, `wide` |
//! | decimals | `rounding` |
//! | percent, degrees, ratios, bases, times | `tagged` |
//! | units | `unit` |
//! | lists, sets, tuples, matrices | `collection` |
//! | intervals, inequalities | `interval` |
//! | equations, assignments | `relation` |
//!
//! "Different" is proven or a matter of kind; "equal" is exact, or probabilistic as `expression` says; what neither could show
//! within the limits of [`MathConfig`] is "undecided". Work is counted (`budget`), never timed.

mod budget;
mod build;
mod calculus;
mod choice;
mod collection;
mod command;
mod compare;
mod complex;
mod config;
mod evaluate;
mod expression;
mod fold;
mod function;
mod grammar;
mod inequality;
mod interval;
mod lexer;
mod limit;
mod matrix;
mod modular;
mod node;
mod numeral;
mod operand;
mod operations;
mod operator;
mod points;
mod power;
mod reading;
mod real;
mod relation;
mod rounding;
mod series;
mod source;
mod tagged;
mod term;
mod text;
mod token;
mod unit;
mod verdict;
mod verifier;
mod vocabulary;
mod wide;

pub use config::MathConfig;
pub use verdict::{Comparison, Verdict};
pub use verifier::MathVerifier;
