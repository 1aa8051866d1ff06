//! What the blocks share in one forward pass.

use super::rotary::Rotary;
use crate::policy::AttentionMask;

/// What the blocks share in one forward pass.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub rotary: Rotary,
    /// Which keys may be seen.
    pub mask: AttentionMask,
    /// Which keys windowed layers may see, where that is fewer.
    pub windowed: Option<AttentionMask>,
}
