//! A guest's memory as its processor sees it: RAM, what may be done with it, and the second-level
//! page tables that say so.

mod format;
mod ram;
mod tables;

pub(crate) use format::{Format, Npt};
pub(crate) use ram::{Access, Backing, Found};
pub use tables::tables_below_root;
pub(crate) use tables::{END, Leaf, Tables};

/// A page.
pub(crate) const PAGE: u64 = 4096;
