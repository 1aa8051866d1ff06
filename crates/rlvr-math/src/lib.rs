//! Finds the answer in a free-form response and says whether it equals a reference as mathematics.
//!
//! An [`Extractor`] looks for the answer by literal rules: a box, answer tags, "the answer is", `####`, the last formula. A
//! [`MathVerifier`] compares two texts and gives a [`Verdict`] with its reason. Neither runs anything, takes the time or
//! draws from a random source: the same texts have the same verdict, and the work per comparison is bounded.
//!
//! ```
//! use rlvr_math::{Extractor, MathVerifier};
//!
//! let response = "<think>Is it 0.25?</think> Adding up, the result is $\\boxed{0.5}$.";
//! let answer = Extractor::default().extract(response).unwrap();
//! assert_eq!(answer.text, "0.5");
//!
//! let verifier = MathVerifier::default();
//! assert!(verifier.compare(r"\frac{1}{2}", answer.all()).is_equal());
//! assert!(!verifier.compare(r"\frac{1}{4}", answer.all()).is_equal());
//! assert!(verifier.compare("(x-1)^2", "x^2 - 2x + 1").is_equal());
//! ```
//!
//! For a reward the question must not be its own answer: [`MathConfig::require_evaluated`] refuses `37+48` where the gold is 85.
//!
//! # Inside
//!
//! | folder | |
//! |---|---|
//! | `text` | boxes, formulas, sentences and numbers in running text |
//! | `node` | expressions as shared nodes, simplified exactly, and the budget of a comparison |
//! | `number` | values modulo primes and in balls |
//! | `calculus` | derivatives, integrals, limits, sums |
//! | `grammar` | from text to nodes |
//! | `compare` | the rules by which two nodes are equal |
//! | `extract` | the rules by which an answer is found |
//!
//! No folder imports from one further down, and no files import from each other in a circle.

mod calculus;
mod compare;
mod config;
mod error;
mod extract;
mod grammar;
mod node;
mod number;
mod tags;
mod text;

pub use compare::verdict::{Comparison, Verdict};
pub use compare::verifier::MathVerifier;
pub use config::MathConfig;
pub use error::{Error, Result};
pub use extract::{ExtractConfig, Extracted, Extractor, Rule, Thinking};
pub use tags::Tags;
pub use text::exact::exact_number;
