//! What must hold for every composition of an objective: the whole product of its parts is either refused with a reason or is the
//! formula of the papers, value and gradient; and splitting, padding and reordering the rollouts of a step changes nothing.

mod common;

#[path = "objectives/batch.rs"]
mod batch;
#[path = "objectives/covering.rs"]
mod covering;
#[path = "objectives/formula.rs"]
mod formula;
#[path = "objectives/parts.rs"]
mod parts;

#[path = "objectives/invariance.rs"]
mod invariance;
#[path = "objectives/kinks.rs"]
mod kinks;
#[path = "objectives/product.rs"]
mod product;
#[path = "objectives/special.rs"]
mod special;
