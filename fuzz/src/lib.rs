//! What the fuzz targets share: guest memory, a host that checks its callers, and a way to make
//! addresses and numbers that are more often near an edge than random ones are.

pub mod host;
pub mod ram;
pub mod values;
