//! Laws of every composition of an objective: it is invalid for a stated reason, or it has the
//! value and the gradient of the formula; splitting, padding and reordering a step changes nothing.

mod batch;
mod covering;
mod formula;
mod parts;

mod invariance;
mod kinks;
mod product;
mod special;
