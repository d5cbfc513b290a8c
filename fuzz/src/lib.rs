//! What the fuzz targets share: guest memory, a host that checks its callers, a whole machine whose
//! guest is a queue, and a way to make addresses and numbers that are more often near an edge than
//! random ones are.

pub mod host;
pub mod machine;
pub mod ram;
pub mod values;
