//! Interrupts, exceptions and NMIs into a guest, windows, priorities, deadlines.

use super::fixture::{Pc, state};
use crate::guest::{TEXT, out, same, text};
use crate::{Case, Host, Outcome, code};
use hypervisor::vcpu::machine::{Event, Exception, MachineBackend, MachineVcpu};
use hypervisor::vcpu::{BackendVcpu, BackendVm, VcpuState, VmEntry, VmExit, X86State};

pub(super) fn cases<B: MachineBackend>() -> [Case<B>; 12] {
    [
        ("an interrupt is not lost behind an exception", interrupt_and_exception),
        ("two vCPUs share their memory", super::registers::two_vcpus),
        ("instructions of the host's do not exist", super::registers::no_instructions),
        ("an interrupt comes when the guest lets it", interrupts),
        ("the shadow of STI is kept", shadow),
        ("a single step ends a halt", stepped_halt),
        ("exceptions are given with their codes", exceptions),
        ("an NMI is taken once at a time", nmis),
        ("an NMI waits behind an interrupt", nmi_and_interrupt),
        ("the task priority is seen on both sides", priority),
        ("a deadline ends a guest that never exits", deadline),
        ("a reset begins anew", reset),
    ]
}

const INTERRUPT: Event = Event::Interrupt { vector: 0x31 };

code!(lets_in:
    "mov edx, 0x500",
    "mov eax, 1", "out dx, eax",
    "sti",
    "mov eax, 2",
    "mov eax, 3",
    "out dx, eax",
    "cli",
    "mov eax, 4", "out dx, eax",
    "hlt",
);

fn interrupts<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, lets_in())?;
    pc.shows(1)?;
    same(&pc.vcpu.interruptible(), &false)?;
    pc.vcpu.request_window(true);
    pc.expect(VmExit::InterruptWindow)?;
    same(&pc.vcpu.interruptible(), &true)?;
    pc.vcpu.inject(INTERRUPT);
    same(&pc.vcpu.interruptible(), &false)?;
    // Its handler is in memory that the guest has not touched yet: its delivery is interrupted.
    let go = pc.takes(0x31, 0)?;
    pc.expect_after(go, out(0x500, 4, 3))?;
    same(&pc.vcpu.interruptible(), &true)?;
    pc.vcpu.inject(INTERRUPT);
    let go = pc.takes(0x31, 0)?;
    pc.expect_after(go, out(0x500, 4, 4))?;
    pc.vcpu.request_window(true);
    pc.vcpu.request_window(false);
    pc.expect(VmExit::Halt)
}

code!(stands_in_shadow:
    "mov ecx, 0x4b564dff",
    "sti",
    "rdmsr",
    "cli",
    "sti",
    "hlt",
    "hlt",
);

fn shadow<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, stands_in_shadow())?;
    // RDMSR is in the shadow; when it is done nothing is.
    pc.expect(VmExit::ReadMsr { index: 0x4b56_4dff })?;
    pc.expect_after(VmEntry::Data(0), VmExit::Halt)?;
    same(&pc.vcpu.interruptible(), &true)?;
    pc.vcpu.inject(INTERRUPT);
    let go = pc.takes(0x31, 0)?;
    pc.expect_after(go, VmExit::Halt)
}

code!(steps_over_halt:
    "mov edx, 0x500",
    "pushfq",
    "or dword ptr [rsp], 0x100",
    "popfq",
    "hlt",
    "pushfq",
    "and dword ptr [rsp], 0xfffffeff",
    "popfq",
    "mov eax, 5", "out dx, eax",
    "hlt",
);

fn stepped_halt<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, steps_over_halt())?;
    let mut go = VmEntry::Continue;
    // After the halt, PUSHF, AND, and the POPF that ends it.
    for _ in 0..4 {
        go = pc.takes_after(go, 1, 0)?;
    }
    pc.expect_after(go, out(0x500, 4, 5))?;
    pc.expect(VmExit::Halt)
}

fn exceptions<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, lets_in())?;
    pc.shows(1)?;
    let raise = |vcpu: &mut <B::Vm as BackendVm>::Vcpu, vector, error_code| {
        vcpu.raise(Exception { vector, error_code })
    };
    // Nothing comes of what 64-bit code cannot meet: #BR, #OF, an NMI, a code too many.
    for (vector, error_code) in [(5, None), (4, None), (2, None), (0, Some(0)), (13, None)] {
        same(&raise(&mut pc.vcpu, vector, error_code).is_err(), &true)?;
    }
    raise(&mut pc.vcpu, 14, Some(2)).map_err(|e| e.text)?;
    let go = pc.takes(14 | 2 << 8, 0)?;
    pc.expect_after(go, out(0x500, 4, 3))?;
    raise(&mut pc.vcpu, 0, None).map_err(|e| e.text)?;
    let go = pc.takes(0, 0)?;
    pc.expect_after(go, out(0x500, 4, 4))
}

fn nmis<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, lets_in())?;
    pc.shows(1)?;
    pc.vcpu.inject(Event::Nmi);
    let go = pc.takes(2, 0)?;
    // Two more while it is served are one more.
    pc.vcpu.inject(Event::Nmi);
    pc.vcpu.inject(Event::Nmi);
    let go = pc.takes_after(go, 2, 0)?;
    pc.expect_after(go, out(0x500, 4, 3))?;
    pc.expect(out(0x500, 4, 4))?;
    // Of three that come before one is taken, two are.
    for _ in 0..3 {
        pc.vcpu.inject(Event::Nmi);
    }
    let go = pc.takes(2, 0)?;
    let go = pc.takes_after(go, 2, 0)?;
    pc.expect_after(go, VmExit::Halt)
}

fn nmi_and_interrupt<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, lets_in())?;
    pc.shows(1)?;
    pc.vcpu.request_window(true);
    pc.expect(VmExit::InterruptWindow)?;
    pc.vcpu.inject(INTERRUPT);
    pc.vcpu.inject(Event::Nmi);
    // The interrupt's handler is entered, and interrupted before its first instruction.
    let go = pc.takes(2, 0)?;
    let go = pc.takes_after(go, 0x31, 0)?;
    pc.expect_after(go, out(0x500, 4, 3))
}

code!(reads_refused:
    "mov ecx, 0x4b564dff",
    "mov edx, 0x500",
    "sti",
    "nop",
    "rdmsr",
    "out dx, eax",
    "hlt",
);

fn interrupt_and_exception<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, reads_refused())?;
    pc.expect(VmExit::ReadMsr { index: 0x4b56_4dff })?;
    pc.vcpu.inject(INTERRUPT);
    let go = pc.takes_after(VmEntry::Refuse, 13, 2)?;
    let go = pc.takes_after(go, 0x31, 0)?;
    pc.expect_after(go, out(0x500, 4, 0))
}

code!(priorities:
    "mov edx, 0x500",
    "mov eax, 9", "mov cr8, rax",
    "out dx, eax",
    "mov rax, cr8", "out dx, eax",
    "mov eax, 3", "mov cr8, rax",
    "hlt",
);

fn priority<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, priorities())?;
    pc.shows(9)?;
    same(&pc.vcpu.task_priority(), &0x90)?;
    pc.vcpu.set_task_priority(0x50);
    pc.shows(5)?;
    // What waited may come now.
    pc.expect(VmExit::InterruptWindow)?;
    same(&pc.vcpu.task_priority(), &0x30)?;
    pc.expect(VmExit::Halt)
}

code!(spins: "2: jmp 2b");

fn deadline<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, spins())?;
    for _ in 0..3 {
        pc.vcpu.set_deadline(Some(1));
        let exit = pc.vcpu.run(VmEntry::Continue).map_err(text)?;
        same(&exit, &VmExit::Interrupted)?;
        (backend.interrupted)();
    }
    pc.vcpu.set_deadline(None);
    Ok(())
}

fn reset<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, lets_in())?;
    for _ in 0..3 {
        pc.shows(1)?;
        pc.vcpu.inject(Event::Nmi);
        let before = pc.vcpu.cycles();
        let state = X86State { rip: TEXT, ..state() };
        pc.vcpu.reset(&VcpuState::X86(state)).map_err(text)?;
        same(&(pc.vcpu.cycles() >= before), &true)?;
    }
    pc.shows(1)?;
    pc.shows(3)
}
