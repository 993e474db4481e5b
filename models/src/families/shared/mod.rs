//! Parts that several families have in common.

pub(super) mod lerobot;
pub(super) mod lerobot_stats;
pub(super) mod pi0;
