//! backend/kvm: see docs/design.md.
