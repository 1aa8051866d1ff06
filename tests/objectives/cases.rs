//! Objectives on numbers small enough to compute by hand, validation, and the file format.

mod one_row;

mod correction;
mod custom;
mod file_format;
mod inputs;
mod kl;
mod losses;
mod reductions;
mod selection;
mod validation;
