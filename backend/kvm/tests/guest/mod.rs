//! The guests of [`backend_conformance`] for tests of what only KVM has, and whether this machine
//! can run them.
//!
//! Where no KVM works, a test is skipped, with a line; with `REDOX_REQUIRE_KVM=1` it fails.

#![allow(dead_code)]

use backend_conformance::guest::{Guest, SPEC};
use backend_kvm::{Kvm, KvmVcpu, KvmVm, host_can_virtualize};
use hypervisor::vcpu::*;
use std::fmt::Display;
use std::io::{self, Write};

/// Says why a test does not test anything here, past the harness, in the form that
/// `cargo xtask test` counts.
pub fn skip(test: &str, why: &dyn Display) {
    let _ = writeln!(io::stdout(), "skipped: {test}: {why}");
}

/// KVM, if it works here.
pub fn kvm(test: &str) -> Option<Kvm> {
    let found = host_can_virtualize().and_then(|()| Kvm::open());
    match found {
        Ok(kvm) => Some(kvm),
        Err(why) if std::env::var_os("REDOX_REQUIRE_KVM").is_some() => {
            panic!("{test} needs KVM, and REDOX_REQUIRE_KVM is set: {why}")
        }
        Err(why) => {
            skip(test, &why);
            None
        }
    }
}

/// Fills and protects a VM, and makes its vCPU.
pub fn load(vm: KvmVm, code: &[u8]) -> (KvmVm, KvmVcpu) {
    Guest::load(vm, || (), code, |_| Ok(())).unwrap().into_parts()
}

pub fn vcpu(kvm: &Kvm, code: &[u8]) -> (KvmVm, KvmVcpu) {
    load(kvm.create_vm(SPEC).unwrap(), code)
}

/// The next exit of any vCPU. An answer is taken once.
pub fn next(vcpu: &mut impl BackendVcpu) -> VmExit {
    answer(vcpu, VmEntry::Continue)
}

/// The next exit, after an answer.
pub fn answer(vcpu: &mut impl BackendVcpu, mut entry: VmEntry) -> VmExit {
    loop {
        match vcpu.run(entry).unwrap() {
            VmExit::Interrupted => entry = VmEntry::Continue,
            exit => return exit,
        }
    }
}
