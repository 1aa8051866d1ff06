//! Objectives on numbers small enough to be worked out by hand, the combinations that are refused, and the file format.

mod common;

#[path = "objectives/cases/one_row.rs"]
mod one_row;

#[path = "objectives/cases/correction.rs"]
mod correction;
#[path = "objectives/cases/custom.rs"]
mod custom;
#[path = "objectives/cases/file_format.rs"]
mod file_format;
#[path = "objectives/cases/inputs.rs"]
mod inputs;
#[path = "objectives/cases/kl.rs"]
mod kl;
#[path = "objectives/cases/losses.rs"]
mod losses;
#[path = "objectives/cases/reductions.rs"]
mod reductions;
#[path = "objectives/cases/refusals.rs"]
mod refusals;
#[path = "objectives/cases/selection.rs"]
mod selection;
