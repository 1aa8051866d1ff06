//! Expressions as shared nodes in an arena, simplified exactly while they are built, within counted work.
//!
//! | file | |
//! |---|---|
//! | `budget` | the work and the sizes that a comparison may use |
//! | `function` | the functions, relations and large operators that have a fixed meaning |
//! | `operations`, `notes` | what a written expression leaves to be carried out |
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
