//! The suite that every backend has to pass ([`backend_conformance`]), on KVM.

#![cfg(target_arch = "x86_64")]

mod guest;

#[test]
fn small_guests_make_the_exits_that_they_should() {
    let Some(kvm) = guest::kvm("small_guests_make_the_exits_that_they_should") else { return };
    let host = backend_conformance::Host { backend: &kvm, interrupted: || () };
    let mut tell = |name: &str, outcome: &_| println!("{name}: {outcome:?}");
    let good = backend_conformance::run(&host, &mut tell);
    let machines = backend_conformance::machine::run(&host, &mut tell);
    assert!(good && machines, "see above");
}
