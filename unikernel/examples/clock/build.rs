//! Links as a unikernel.

fn main() {
    unikernel_build::link();
}
