//! Exits of a scripted processor, answered as the seam promises; and no panic, whatever a guest
//! has in its registers, memory and page tables.

mod strings;

use super::*;
use crate::testing::{Board, board};
use crate::x86_64::decode::Seg;
use crate::x86_64::fake::Fake;
use crate::x86_64::memory::Access;
use crate::x86_64::vendor::{Injection, Port, Reason};
use crate::x86_64::vm::{Kind, VmHandle};
use alloc::sync::Arc;
use hypervisor::memory::{Gpa, Gva, Perms};
use hypervisor::vcpu::machine::CpuidEntry;
use hypervisor::vcpu::{Segment, X86State};
use hypervisor::vm::Cause;
use proptest::prelude::*;
use std::vec::Vec;

const CODE: u64 = 0x3000;
const ROM: u64 = 0x8000;

struct Rig {
    vcpu: Vcpu<Board, Fake>,
    cpu: Cpu,
    vm: VmHandle<Board, Fake>,
}

/// A guest with this code and no paging: addresses are as they are.
fn rig(kind: Kind, code: &[u8]) -> Rig {
    let ranges: Vec<_> = core::iter::once(0..0x10_0000).collect();
    let mut vm = VmHandle::new(board(), &Arc::default(), kind, &ranges, None).unwrap();
    vm.memory.write_bytes(Gpa(CODE), code).unwrap();
    vm.protect(ROM..ROM + 0x1000, Perms::READ).unwrap();
    let segment = |attributes| Segment { selector: 8, base: 0, limit: !0, attributes };
    let state = X86State {
        rip: CODE,
        rflags: 2,
        cr0: 1,
        cs: segment(0xc9b),
        data: segment(0xc93),
        ..X86State::default()
    };
    let row = |leaf, registers| CpuidEntry { leaf, subleaf: None, registers };
    let cpuid = Cpuid::new(&[row(1, [1, 2, 3, 4]), row(0x8000_0001, [0, 0, 0, 1 << 29])]);
    let vcpu = Vcpu::new(&vm.vm, cpuid, &VcpuState::X86(state)).unwrap();
    // SAFETY: all zeros is how a CPU's data begins.
    Rig { vcpu, cpu: unsafe { core::mem::zeroed() }, vm }
}

impl Rig {
    fn exit(&mut self, reason: Reason) -> Option<VmExit> {
        self.outcome(reason).unwrap()
    }

    /// As [`Vcpu::run`] does it.
    fn outcome(&mut self, reason: Reason) -> Result<Option<VmExit>, BackendError> {
        match self.vcpu.quick(reason) {
            Some(exit) => Ok(Some(exit)),
            None => self.vcpu.answer(reason, &mut self.cpu),
        }
    }

    /// What the guest would be given at the next entry.
    fn given(&mut self) -> Option<Injection> {
        self.vcpu.events.before_entry(&mut self.vcpu.v, || {});
        self.vcpu.v.next_injection.take()
    }

    fn gpr(&mut self, number: usize) -> &mut u64 {
        &mut self.vcpu.core.gprs.0[number]
    }
}

fn device(gpa: u64, access: Access) -> Reason {
    Reason::Memory { gpa, access, walk: false }
}

#[test]
fn a_port_access_goes_on_after_it() {
    let mut rig = rig(Kind::Machine, &[0xec]);
    *rig.gpr(0) = u64::MAX;
    let port = Port { port: 0x60, size: 1, input: true, string: false, next: Some(CODE + 1) };
    let asked = VmExit::Io { port: 0x60, size: 1, write: None };
    assert_eq!(rig.exit(Reason::Port(port)), Some(asked));
    assert_eq!(rig.vcpu.settle(VmEntry::Data(0x1_23)), Ok(None));
    assert_eq!((*rig.gpr(0), rig.vcpu.v.state.rip), (u64::MAX - 0xff + 0x23, CODE + 1));
}

#[test]
fn cpuid_is_answered_here() {
    let mut rig = rig(Kind::Machine, &[0x0f, 0xa2]);
    *rig.gpr(0) = 0xffff_ffff_0000_0001;
    assert_eq!(rig.exit(Reason::Cpuid), None);
    assert_eq!([*rig.gpr(0), *rig.gpr(3), *rig.gpr(1), *rig.gpr(2)], [1, 2, 3, 4]);
    assert_eq!(rig.vcpu.v.state.rip, CODE + 2);
}

#[test]
fn what_is_answered_here_is_counted_by_cause_and_nothing_else() {
    let mut rig = rig(Kind::Machine, &[0x0f, 0xa2, 0x0f, 0xa2, 0xf4]);
    assert_eq!(rig.vcpu.take_answered(), None);
    for reason in [Reason::Cpuid, Reason::Cpuid, device(0x5000, Access::Read)] {
        assert_eq!(rig.exit(reason), None);
    }
    assert_eq!(rig.exit(Reason::Halt), Some(VmExit::Halt));
    assert_eq!(rig.exit(Reason::Undefined), None);
    let exits = rig.vcpu.take_answered().unwrap();
    let of = [Cause::Cpuid, Cause::PageFault, Cause::Other, Cause::Halt].map(|c| exits.of(c));
    assert_eq!((of, exits.total()), ([2, 1, 1, 0], 4));
    assert_eq!(rig.vcpu.take_answered(), None);
}

#[test]
fn an_unknown_register_is_asked_for_only_in_machines() {
    for (kind, told) in [(Kind::Machine, true), (Kind::Unikernel, false)] {
        let mut rig = rig(kind, &[0x0f, 0x32]);
        *rig.gpr(1) = 0x1b;
        let exit = rig.exit(Reason::ReadMsr);
        assert_eq!(exit, told.then_some(VmExit::ReadMsr { index: 0x1b }));
        if told {
            assert_eq!(rig.vcpu.settle(VmEntry::Refuse), Ok(None));
        }
        assert_eq!(rig.given(), Some(Injection::GP));
        assert_eq!(rig.vcpu.v.state.rip, CODE, "at the instruction");
    }
}

#[test]
fn a_restart_puts_the_counter_back_in_step_and_a_reset_does_not() {
    const TSC_ADJUST: u64 = 0x3b;
    let mut rig = rig(Kind::Machine, &[0x0f, 0x30]);
    let begun = rig.vm.vm.tsc_offset;
    *rig.gpr(1) = TSC_ADJUST;
    *rig.gpr(0) = 1000;
    assert_eq!(rig.exit(Reason::WriteMsr), None);
    let state = VcpuState::X86(X86State::default());
    rig.vcpu.reset(&state);
    assert_eq!(rig.vcpu.v.tsc_offset, begun.wrapping_add(1000));
    rig.vcpu.restart(&state);
    assert_eq!(rig.vcpu.v.tsc_offset, begun);
    // The adjustment is forgotten, too: another one moves the counter from where it began.
    *rig.gpr(1) = TSC_ADJUST;
    *rig.gpr(0) = 7;
    assert_eq!(rig.exit(Reason::WriteMsr), None);
    assert_eq!(rig.vcpu.v.tsc_offset, begun.wrapping_add(7));
}

#[test]
fn memory_that_may_not_be_written_is_a_fault_or_a_device() {
    // mov [0x8004], eax
    let code = [0xa3, 4, 0x80, 0, 0];
    let mut machine = rig(Kind::Machine, &code);
    *machine.gpr(0) = 9;
    let exit = machine.exit(device(ROM + 4, Access::Write));
    assert_eq!(exit, Some(VmExit::Mmio { gpa: Gpa(ROM + 4), size: 4, write: Some(9) }));
    assert_eq!(machine.vcpu.v.state.rip, CODE + 5);
    let mut unikernel = rig(Kind::Unikernel, &code);
    let exit = unikernel.exit(device(ROM + 4, Access::Write));
    let address = Some(Gpa(ROM + 4));
    assert_eq!(exit, Some(VmExit::MemoryFault { rip: Gva(CODE), address }));
    assert_eq!(unikernel.exit(device(ROM + 4, Access::Read)), None, "mapped");
    let exit = unikernel.exit(device(0x20_0000, Access::Execute));
    assert!(matches!(exit, Some(VmExit::MemoryFault { .. })));
}

#[test]
fn a_trap_flag_is_kept_for_instructions_that_are_finished_here() {
    let mut rig = rig(Kind::Machine, &[0xf4]);
    rig.vcpu.v.state.rflags |= 1 << 8;
    rig.vcpu.v.shadow = true;
    assert_eq!(rig.exit(Reason::Halt), None, "the trap ends the halt");
    assert_eq!(rig.given(), Some(Injection::DB));
    assert!(!rig.vcpu.v.shadow && rig.vcpu.v.dr6 & 1 << 14 != 0);
}

#[test]
fn a_halt_is_not_told_before_what_ends_it() {
    use hypervisor::vcpu::machine::Event;
    let mut rig = rig(Kind::Machine, &[0xf4]);
    let at_halt = |rig: &mut Rig| {
        rig.vcpu.v.state.rip = CODE;
        rig.exit(Reason::Halt)
    };
    assert_eq!(at_halt(&mut rig), Some(VmExit::Halt));
    // An NMI that has to wait for the end of STI's shadow, which is the halt itself.
    rig.vcpu.v.shadow = true;
    rig.vcpu.inject(Event::Nmi);
    assert_eq!(rig.given(), None);
    assert_eq!(at_halt(&mut rig), None);
    assert_eq!(rig.given(), Some(Injection::NMI));
    assert_eq!(rig.vcpu.v.state.rflags & 1 << 8, 0);
    // In its handler a second one ends nothing.
    rig.vcpu.inject(Event::Nmi);
    assert_eq!(at_halt(&mut rig), Some(VmExit::Halt));
}

#[test]
fn xsetbv_does_not_exist_before_osxsave() {
    let mut rig = rig(Kind::Machine, &[0x0f, 0x01, 0xd1]);
    assert_eq!(rig.exit(Reason::WriteXcr), None);
    assert_eq!(rig.given(), Some(Injection::UD));
    rig.vcpu.v.state.cr4 = 1 << 18;
    assert_eq!(rig.exit(Reason::WriteXcr), None);
    assert_eq!(rig.given(), Some(Injection::GP), "this machine has no components");
}

#[test]
fn an_event_that_was_interrupted_is_given_again() {
    let mut rig = rig(Kind::Machine, &[0x90]);
    rig.vcpu.v.interrupted = Some(Injection::UD);
    rig.vcpu.events.after_exit(&mut rig.vcpu.v);
    assert!(!rig.vcpu.interruptible());
    // Its delivery touched a device: nobody can finish that.
    assert!(matches!(rig.exit(device(0x20_0000, Access::Write)), Some(VmExit::MemoryFault { .. })));
    assert_eq!(rig.given(), Some(Injection::UD));
    assert_eq!(rig.given(), None);
}

#[test]
fn an_interrupt_is_not_lost_behind_an_exception() {
    let mut rig = rig(Kind::Machine, &[0x0f, 0x32]);
    rig.vcpu.v.state.rflags |= 1 << 9;
    assert_eq!(rig.exit(Reason::ReadMsr), Some(VmExit::ReadMsr { index: 0 }));
    rig.vcpu.inject(hypervisor::vcpu::machine::Event::Interrupt { vector: 0x31 });
    assert_eq!(rig.vcpu.settle(VmEntry::Refuse), Ok(None));
    assert_eq!(rig.given(), Some(Injection::GP));
    // In the handler interrupts are off.
    rig.vcpu.v.state.rflags &= !(1 << 9);
    assert_eq!(rig.given(), None);
    assert!(rig.vcpu.v.window && !rig.vcpu.interruptible());
    rig.vcpu.v.state.rflags |= 1 << 9;
    assert_eq!(rig.exit(Reason::Window), None, "nobody had asked");
    assert_eq!(rig.given().map(|event| event.vector), Some(0x31));
    assert!(!rig.vcpu.v.window && rig.vcpu.interruptible());
}

fn reason() -> impl Strategy<Value = Reason> {
    let port =
        (any::<u16>(), prop::sample::select(std::vec![1u8, 2, 4]), any::<bool>(), any::<bool>());
    let access = prop::sample::select(std::vec![Access::Read, Access::Write, Access::Execute]);
    prop_oneof![
        port.prop_map(|(port, size, input, string)| {
            Reason::Port(Port { port, size, input, string, next: Some(CODE) })
        }),
        (prop_oneof![any::<u64>(), 0u64..0x20_0000], access, any::<bool>())
            .prop_map(|(gpa, access, walk)| Reason::Memory { gpa, access, walk }),
        prop::sample::select(std::vec![
            Reason::Cpuid,
            Reason::ReadMsr,
            Reason::Halt,
            Reason::Hypercall,
            Reason::WriteCr4,
            Reason::WriteCr8,
            Reason::Skip,
            Reason::Undefined,
            Reason::Counter,
            Reason::Window,
            Reason::NmiEnd,
            Reason::Exception(Injection::DB),
            Reason::Exception(Injection::with_code(17, 0)),
            Reason::Shutdown,
        ]),
    ]
}

proptest! {
    #[test]
    fn nothing_that_a_guest_does_makes_it_panic(
        reasons in prop::collection::vec(reason(), 1..12),
        code in prop::collection::vec(any::<u8>(), 1..40),
        gprs in prop::array::uniform16(prop_oneof![any::<u64>(), 0u64..0x11_0000]),
        registers in prop::array::uniform5(any::<u64>()),
        attributes: u16,
        rip in prop_oneof![Just(CODE), any::<u64>(), 0xf_fff0u64..0x10_0010],
        unikernel: bool,
        answer: u64,
    ) {
        let kind = if unikernel { Kind::Unikernel } else { Kind::Machine };
        let mut rig = rig(kind, &code);
        rig.vcpu.core.gprs.0 = gprs;
        let state = &mut rig.vcpu.v.state;
        [state.cr0, state.cr3, state.cr4, state.efer, state.rflags] = registers;
        state.cr3 &= 0xf_ffff;
        state.rip = rip;
        state.cs.attributes = attributes;
        for reason in reasons {
            if rig.outcome(reason).is_ok() {
                let _ = rig.vcpu.settle(VmEntry::Data(answer));
            }
            let _ = rig.given();
            let _ = rig.vcpu.interruptible();
        }
        prop_assert!(rig.vm.memory.end().0 == 0x10_0000);
        let _ = rig.vcpu.v.segment(Seg::Cs);
    }
}
