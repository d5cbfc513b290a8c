//! Placeholder until the first tool lands.

fn main() {}
