//! A guest of a few hand-written instructions, and whether this machine can run it.
//!
//! Where no KVM works, a test is skipped, with a line; with `REDOX_REQUIRE_KVM=1` it fails. The
//! guest's first 4 MiB are mapped where they are; it has 2 MiB of memory, so the rest are devices.
//! Its text is at [`TEXT`], protected as a tender would.

#![allow(dead_code)]

use backend_kvm::{Kvm, KvmVcpu, KvmVm, host_can_virtualize};
use hypervisor::memory::{Gpa, GuestMemory, Perms};
use hypervisor::vcpu::*;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;

pub const MEMORY: u64 = 0x20_0000;
pub const TEXT: u64 = 0x10_0000;
pub const DATA: u64 = 0x11_0000;
/// An address without memory.
pub const DEVICE: u64 = MEMORY + 0x10;
const STACK: u64 = 0x18_0000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PD: u64 = 0x4000;

/// Assembles a function that returns the bytes of its instructions.
#[macro_export]
macro_rules! guest {
    ($name:ident: $($line:literal),+ $(,)?) => {
        core::arch::global_asm!(
            ".pushsection .rodata.guests, \"a\"",
            concat!(".globl guest_", stringify!($name)),
            concat!(".globl guest_end_", stringify!($name)),
            concat!("guest_", stringify!($name), ":"),
            $($line,)+
            concat!("guest_end_", stringify!($name), ":"),
            ".popsection",
        );

        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("guest_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("guest_end_", stringify!($name))]
                static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: the start and the end of one piece of read-only data.
            unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
        }
    };
}

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

pub struct Unused;

impl ExitHandler for Unused {
    fn handle(&self, _: VmExit, _: &GuestMemory) -> Answer {
        Answer::End(Ending::Interrupted)
    }
}

pub fn spec() -> VmSpec {
    VmSpec { memory: MEMORY }
}

/// Fills and protects a VM, and makes its vCPU.
pub fn load(vm: &mut KvmVm, code: &[u8]) -> KvmVcpu {
    let memory = vm.memory();
    memory.write_obj(Gpa(PML4), &(PDPT | 3)).unwrap();
    memory.write_obj(Gpa(PDPT), &(PD | 3)).unwrap();
    memory.write_obj(Gpa(PD), &0x83u64).unwrap();
    memory.write_obj(Gpa(PD + 8), &(MEMORY | 0x83)).unwrap();
    memory.write_bytes(Gpa(TEXT), code).unwrap();
    vm.protect(TEXT..TEXT + 0x2000, Perms::READ | Perms::EXEC).unwrap();
    vm.protect(TEXT + 0x2000..TEXT + 0x3000, Perms::empty()).unwrap();
    vm.create_vcpu(state(), Arc::new(Unused)).unwrap()
}

pub fn vcpu(kvm: &Kvm, code: &[u8]) -> (KvmVm, KvmVcpu) {
    let mut vm = kvm.create_vm(spec()).unwrap();
    let vcpu = load(&mut vm, code);
    (vm, vcpu)
}

pub fn state() -> VcpuState {
    let segment = |selector, attributes| Segment { selector, base: 0, limit: !0, attributes };
    VcpuState::X86(X86State {
        rip: TEXT,
        rsp: STACK,
        rdi: DATA,
        rflags: 2,
        cr0: 0x8001_0023,
        cr3: PML4,
        cr4: 0x620,
        efer: 0x500,
        cs: segment(8, 0xa9b),
        data: segment(16, 0xc93),
        tr: Segment { limit: 0, ..segment(0, 0x8b) },
        gdt: (0x1000, 23),
        ..X86State::default()
    })
}

/// The next exit.
pub fn next(vcpu: &mut KvmVcpu) -> VmExit {
    answer(vcpu, VmEntry::Continue)
}

/// The next exit, after an answer.
pub fn answer(vcpu: &mut KvmVcpu, entry: VmEntry) -> VmExit {
    answer_of(vcpu, entry)
}

/// The same of any vCPU. An answer is taken once.
pub fn answer_of(vcpu: &mut impl BackendVcpu, mut entry: VmEntry) -> VmExit {
    loop {
        match vcpu.run(entry).unwrap() {
            VmExit::Interrupted => entry = VmEntry::Continue,
            exit => return exit,
        }
    }
}

pub fn out(port: u16, size: u8, value: u32) -> VmExit {
    VmExit::Io { port, size, write: Some(value) }
}
