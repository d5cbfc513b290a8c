//! The suite that every backend has to pass ([`backend_conformance`]), on KVM.

#![cfg(target_arch = "x86_64")]

mod guest;

use backend_conformance::Host;
use backend_kvm::pc::KvmPcs;

#[test]
fn small_guests_make_the_exits_that_they_should() {
    let Some(kvm) = guest::kvm("small_guests_make_the_exits_that_they_should") else { return };
    let host = Host { backend: &kvm, interrupted: || () };
    let mut tell = |name: &str, outcome: &_| println!("{name}: {outcome:?}");
    let good = backend_conformance::run(&host, &mut tell);
    let pcs = KvmPcs::new(kvm).unwrap();
    let host = Host { backend: &pcs, interrupted: || () };
    assert!(backend_conformance::machine::run(&host, &mut tell) && good, "see above");
}
