//! Extracts the answer from a free-form response and compares it with a reference answer as
//! mathematics.
//!
//! An [`Extractor`] finds the answer by literal rules: a box, answer tags, "the answer is", `####`,
//! the last formula. A [`MathVerifier`] compares two texts and returns a [`Verdict`] with a reason.
//! Both are deterministic: they run no code of the texts, have no timeouts and use no random
//! source. The work of a comparison is bounded.
//!
//! ```
//! use rlvr_math::{Extractor, MathVerifier};
//!
//! let response =
//!     "<think>Is it 0.25?</think> Adding up, the result is $\\boxed{0.5}$.";
//! let answer = Extractor::default().extract(response).unwrap();
//! assert_eq!(answer.text, "0.5");
//!
//! let verifier = MathVerifier::default();
//! assert!(verifier.compare(r"\frac{1}{2}", answer.all()).is_equal());
//! assert!(!verifier.compare(r"\frac{1}{4}", answer.all()).is_equal());
//! assert!(verifier.compare("(x-1)^2", "x^2 - 2x + 1").is_equal());
//! ```
//!
//! A reward should not accept the question as its own answer: with
//! [`MathConfig::require_evaluated`], `37+48` does not equal a gold of 85.
//!
//! # Modules
//!
//! | folder | |
//! |---|---|
//! | `text` | boxes, formulas, sentences and numbers in running text |
//! | `node` | expressions as shared, exactly simplified nodes, and the budget of a comparison |
//! | `number` | values modulo primes and in ball arithmetic |
//! | `calculus` | derivatives, integrals, limits, sums |
//! | `grammar` | the parser: from text to nodes |
//! | `compare` | the rules of equality |
//! | `extract` | the rules of extraction |
//!
//! No folder imports from one further down, and there are no import cycles.

#![warn(missing_docs)]

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
