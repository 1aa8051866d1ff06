//! The tests of the public interface, in one binary.
//!
//! | module | what it checks |
//! |---|---|
//! | `agreement` | the verdicts on 787 golds and answers from other graders' test suites |
//! | `variants` | the verdicts on pairs written for this crate, and the conventions of `MathConfig` |
//! | `evaluated` | `MathConfig::require_evaluated` |
//! | `laws` | properties of the comparison on generated texts, and texts made to be expensive |
//! | `extraction` | the answers found in 144 responses, properties on generated texts, linear time |
//! | `structure` | the order of the modules in `src` |

mod agreement;
mod evaluated;
mod extraction;
mod laws;
mod structure;
mod variants;
