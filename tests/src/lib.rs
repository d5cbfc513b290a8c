//! tests: see docs/design.md.
