//! placeholder
mod kind;
pub use kind::{ModeKind, UnknownMode};
