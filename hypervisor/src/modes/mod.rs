//! The modes: what kind of machine a guest sees.

pub mod hvt;
pub mod type1;
pub mod virtio;
