//! Conversations: what answers the policy, and how the two take turns.

pub mod tools;
