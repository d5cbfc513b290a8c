//! backend/sandbox: see docs/design.md.
