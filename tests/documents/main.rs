//! Tests of the documents and of the source tree.

#[path = "../common/mod.rs"]
mod common;

mod documented_commands;
mod metric_names;
mod migration;
mod short_programs;
mod source_tree;
