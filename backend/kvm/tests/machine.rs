//! The VM around the vCPU: lifetimes, doorbells, signals, the probe.

#![cfg(target_arch = "x86_64")]

mod guest;

use backend_conformance::code;
use backend_conformance::guest::{MEMORY, SPEC, out, state, unused};
use backend_kvm::{Kvm, host_can_virtualize};
use guest::{kvm, load, next, skip, vcpu};
use hypervisor::memory::{Gpa, Perms};
use hypervisor::vcpu::{Backend, BackendVcpu, BackendVm, VcpuState, VmEntry, VmExit, VmSpec};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

code!(two_words: "mov edx, 0x500", "out dx, eax", "mov eax, 5", "out dx, eax", "hlt");

#[test]
fn a_vcpu_outlives_its_vm() {
    let Some(kvm) = kvm("a_vcpu_outlives_its_vm") else { return };
    let (vm, mut vcpu) = vcpu(&kvm, two_words());
    assert_eq!(next(&mut vcpu), out(0x500, 4, 0));
    drop(vm);
    drop(kvm);
    let thread = std::thread::spawn(move || {
        assert_eq!(next(&mut vcpu), out(0x500, 4, 5));
        assert_eq!(next(&mut vcpu), VmExit::Halt);
    });
    thread.join().unwrap();
}

#[test]
fn there_is_one_vcpu_and_one_size_of_pages() {
    let Some(kvm) = kvm("there_is_one_vcpu_and_one_size_of_pages") else { return };
    let (mut vm, _vcpu) = vcpu(&kvm, two_words());
    assert!(vm.create_vcpu(VcpuState::X86(state()), unused()).is_err());
    assert!(vm.probe().is_err(), "the vCPU is in use");
    assert!(vm.protect(0x10..0x1000, Perms::READ).is_err());
    assert!(vm.protect(0..MEMORY + 0x1000, Perms::READ).is_err());
    assert!(vm.cycle_frequency().unwrap() > 1_000_000);
    assert!(kvm.create_vm(VmSpec { memory: 0 }).is_err());
    assert!(kvm.create_vm(VmSpec { memory: 4097 }).is_err());
}

code!(rings: "mov edx, 0x600", "out dx, eax", "mov eax, 9", "out dx, eax", "out dx, ax", "hlt");

#[test]
fn a_doorbell_rings_without_an_exit() {
    let Some(kvm) = kvm("a_doorbell_rings_without_an_exit") else { return };
    let vm = kvm.create_vm(SPEC).unwrap();
    let bell = vm.doorbell(0x600).unwrap().expect("this process may have eventfds");
    let (vm, mut vcpu) = load(vm, rings());
    let waiter = std::thread::spawn({
        let bell = Arc::clone(&bell);
        move || bell.wait()
    });
    // Whatever the value, as Solo5 does; but not at another width.
    assert_eq!(next(&mut vcpu), out(0x600, 2, 9));
    assert!(waiter.join().unwrap());
    assert_eq!(next(&mut vcpu), VmExit::Halt);
    bell.ring();
    assert!(bell.wait());
    assert!(vm.doorbell(0x600).is_err(), "the port is taken");
}

code!(spins: "2: jmp 2b");

extern "C" fn nothing(_: libc::c_int) {}

#[test]
fn a_signal_interrupts_a_guest_that_never_exits() {
    let Some(kvm) = kvm("a_signal_interrupts_a_guest_that_never_exits") else { return };
    // SAFETY: all zeros is a valid `sigaction`; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let (_vm, mut vcpu) = vcpu(&kvm, spins());
    // SAFETY: this thread, which lives until the other one has ended.
    let this = unsafe { libc::pthread_self() };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // SAFETY: the thread is alive, see above.
                unsafe { libc::pthread_kill(this, libc::SIGUSR1) };
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        assert_eq!(vcpu.run(VmEntry::Continue), Ok(VmExit::Interrupted));
        assert_eq!(vcpu.run(VmEntry::Continue), Ok(VmExit::Interrupted));
        done.store(true, Ordering::Relaxed);
    });
}

code!(shows_sse: "movd eax, xmm0", "mov edx, 0x500", "out dx, eax", "hlt");

#[test]
fn the_probe_passes_and_leaves_nothing_behind() {
    let Some(kvm) = kvm("the_probe_passes_and_leaves_nothing_behind") else { return };
    let vm = kvm.create_vm_probed(SPEC).unwrap();
    let mut bytes = vec![0u8; 0x10000];
    vm.memory().read_bytes(Gpa(0), &mut bytes).unwrap();
    assert!(bytes.iter().all(|&b| b == 0));
    let (_vm, mut vcpu) = load(vm, shows_sse());
    assert_eq!(next(&mut vcpu), out(0x500, 4, 0));
    assert_eq!(next(&mut vcpu), VmExit::Halt);
}

#[test]
fn a_software_only_kvm_does_not_pass() {
    let (Err(why), Ok(kvm)) = (host_can_virtualize(), Kvm::open()) else {
        return skip("a_software_only_kvm_does_not_pass", &"no such KVM here");
    };
    println!("{why}");
    let start = std::time::Instant::now();
    match kvm.create_vm(SPEC) {
        Ok(mut vm) => {
            let made = start.elapsed();
            let refused = vm.probe().expect_err("software cannot be that fast");
            println!("{refused}; VM {made:?}, probe {:?}", start.elapsed() - made);
        }
        Err(refused) => println!("{refused}"),
    }
}
