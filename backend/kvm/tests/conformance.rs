//! The suite that every backend has to pass ([`backend_conformance`]), on KVM.

#![cfg(target_arch = "x86_64")]

mod guest;

#[test]
fn small_guests_make_the_exits_that_they_should() {
    let Some(kvm) = guest::kvm("small_guests_make_the_exits_that_they_should") else { return };
    let good = backend_conformance::run(&kvm, &mut |name, outcome| println!("{name}: {outcome:?}"));
    assert!(good, "see above");
}
