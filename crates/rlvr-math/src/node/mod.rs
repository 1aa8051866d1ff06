//! Expressions as shared nodes in an arena, simplified exactly during construction, with bounded
//! work.
//!
//! | file | |
//! |---|---|
//! | `budget` | the limits of work and sizes of a comparison |
//! | `function` | functions, relations and large operators with a fixed meaning |
//! | `operations`, `notes` | the unevaluated operations of a text |
//! | `arena` | the nodes |
//! | `build`, `power`, `fold`, `matrix` | constructors that simplify |

pub(crate) mod arena;
pub(crate) mod budget;
pub(crate) mod build;
pub(crate) mod fold;
pub(crate) mod function;
pub(crate) mod matrix;
pub(crate) mod notes;
pub(crate) mod operations;
pub(crate) mod power;
