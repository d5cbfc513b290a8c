//! host/linux: see docs/design.md.
