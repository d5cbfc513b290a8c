//! Enters the guest's handler of an exception (Intel SDM vol. 3 §6.14, AMD APM vol. 2 §8.9).

use super::cpu::{Cpu, Regs, Vector};
use hypervisor::memory::{Gpa, GuestMemory};

/// The guest has no handler that works, not even for the double fault: the CPU would shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TripleFault;

/// An interrupt gate's kind and an interrupt or trap gate's, in the gate's type field.
const INTERRUPT_GATE: u64 = 0xe;
const TRAP_GATE: u64 = 0xf;
/// Trap flag, cleared on entry so that the handler itself is not stepped through.
const TF: u64 = 1 << 8;
/// Offset of IST1 in a 64-bit TSS (Intel SDM vol. 3 §7.7).
const TSS_IST1: u64 = 0x24;

/// Pushes the frame and jumps to the handler; tries the double-fault handler where that fails.
///
/// # Errors
/// [`TripleFault`] if there is no usable handler for either.
pub fn deliver(
    vector: Vector,
    cpu: &mut Cpu,
    regs: &mut Regs,
    memory: &GuestMemory,
) -> Result<(), TripleFault> {
    enter(vector, cpu, regs, memory)
        .or_else(|| enter(unusable(vector)?, cpu, regs, memory))
        .or_else(|| enter(Vector::DF, cpu, regs, memory))
        .ok_or(TripleFault)
}

/// What the CPU raises where a vector has no usable gate: a #GP that names it, unless the vector
/// is one of those that make a double fault of a second one (Intel SDM vol. 3 §6.15, #DF).
fn unusable(vector: Vector) -> Option<Vector> {
    const IDT: u32 = 2;
    let contributory = matches!(vector.number, 0 | 8 | 10..=14);
    (!contributory).then(|| Vector::gp(u32::from(vector.number) * 8 + IDT))
}

struct Gate {
    handler: u64,
    selector: u16,
    ist: u64,
    kind: u64,
}

fn gate(number: u8, cpu: &Cpu, memory: &GuestMemory) -> Option<Gate> {
    let offset = u64::from(number) * 16;
    if offset + 15 > u64::from(cpu.idt.limit) {
        return None;
    }
    let at = cpu.idt.base.checked_add(offset)?;
    let low: u64 = memory.read_obj(Gpa(at)).ok()?;
    let high: u64 = memory.read_obj(Gpa(at.checked_add(8)?)).ok()?;
    let present = low >> 47 & 1 == 1;
    let gate = Gate {
        handler: low & 0xffff | low >> 48 << 16 | high << 32,
        selector: u16::try_from(low >> 16 & 0xffff).ok()?,
        ist: low >> 32 & 7,
        kind: low >> 40 & 0x1f,
    };
    (present && matches!(gate.kind, INTERRUPT_GATE | TRAP_GATE)).then_some(gate)
}

fn stack(gate: &Gate, cpu: &Cpu, regs: &Regs, memory: &GuestMemory) -> Option<u64> {
    let top = match gate.ist {
        0 => regs.gpr[Regs::RSP],
        ist => {
            let offset = TSS_IST1 + (ist - 1) * 8;
            if offset + 7 > u64::from(cpu.tss.limit) {
                return None;
            }
            memory.read_obj(Gpa(cpu.tss.base.checked_add(offset)?)).ok()?
        }
    };
    Some(top & !15)
}

fn enter(vector: Vector, cpu: &mut Cpu, regs: &mut Regs, memory: &GuestMemory) -> Option<()> {
    let gate = gate(vector.number, cpu, memory)?;
    let code = cpu.descriptor(gate.selector, memory)?;
    let long_mode_code = code >> 40 & 0x98 == 0x98 && code >> 53 & 1 == 1;
    if !long_mode_code {
        return None;
    }
    let ss = u64::from(cpu.data[2]);
    let frame = [
        u64::from(vector.error.unwrap_or(0)),
        regs.rip,
        u64::from(cpu.cs),
        cpu.flags(regs),
        regs.gpr[Regs::RSP],
        ss,
    ];
    let frame = if vector.error.is_some() { &frame[..] } else { &frame[1..] };
    let rsp = stack(&gate, cpu, regs, memory)?.checked_sub(frame.len() as u64 * 8)?;
    memory.write_bytes(Gpa(rsp), zerocopy::IntoBytes::as_bytes(frame)).ok()?;
    regs.gpr[Regs::RSP] = rsp;
    regs.rip = gate.handler;
    regs.rflags &= !TF;
    cpu.cs = gate.selector;
    if gate.kind == INTERRUPT_GATE {
        cpu.interrupts = false;
    }
    Some(())
}
