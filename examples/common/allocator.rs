//! The allocator of the examples and benchmarks.
//!
//! A training step allocates what the step before it has freed. mimalloc gives freed memory back to
//! the system after a second, which then clears every page before it is used again: up to a third
//! of a step's processor time. [`keep_memory`] makes it keep the memory. The environment variable
//! `MIMALLOC_PURGE_DELAY=-1` does the same.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps freed memory for the next step, from now on.
pub fn keep_memory() {
    /// `mi_option_purge_delay`, in milliseconds; -1 is never.
    const PURGE_DELAY: c_int = 15;
    const NEVER: c_long = -1;
    // SAFETY: sets a number that mimalloc reads atomically.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, NEVER) };
}
