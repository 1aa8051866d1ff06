//! The inputs that all blocks share in one forward pass.

use super::cuts::Cuts;
use super::rotary::Rotary;
use crate::policy::AttentionMask;

/// The inputs that all blocks share in one forward pass.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub rotary: Rotary,
    /// The attention mask.
    pub mask: AttentionMask,
    /// The attention mask of windowed layers, if it differs.
    pub windowed: Option<AttentionMask>,
    /// Where the gradient tape is cut at attention, if it is.
    pub cuts: Option<Cuts>,
}
