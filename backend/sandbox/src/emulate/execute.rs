//! Carries out one trapping instruction.

use super::cpu::{Cpu, Regs, Table, Vector};
use super::decode::{Insn, MAX_LEN, Op, Operand, decode};
use hypervisor::memory::{Gpa, GuestMemory, Perms};

/// What came of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is done; RIP is after it.
    Done,
    /// It raises this exception; RIP is where the handler has to return to.
    Raise(Vector),
    /// It is port I/O; RIP is after it. For a read, `size` bytes of RAX are the answer's.
    Io {
        /// Port.
        port: u16,
        /// Width in bytes.
        size: u8,
        /// The value, if it is a write.
        write: Option<u32>,
    },
    /// The guest waits for an interrupt.
    Halt,
    /// A privileged instruction that is not carried out here, by name.
    Unsupported(&'static str),
}

/// Model-specific registers that a guest may use (Intel SDM vol. 4, table 2-2).
const MSR_EFER: u32 = 0xc000_0080;
const MSR_FS_BASE: u32 = 0xc000_0100;
const MSR_GS_BASE: u32 = 0xc000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// CR0 bits that 64-bit code cannot clear: PE and PG.
const CR0_FIXED: u64 = 1 << 31 | 1;
/// CR4.PAE, without which there is no long mode, and LA57, which cannot change in it.
const CR4_FIXED: u64 = 1 << 5 | 1 << 12;
/// Bits of CR0 and CR4 that no processor of today has.
const CR_RESERVED: u64 = !0 << 32;

/// Carries out the instruction at RIP, which has raised #GP or #UD on the real CPU.
pub fn step(cpu: &mut Cpu, regs: &mut Regs, memory: &GuestMemory) -> Step {
    let Some(insn) = fetch(regs, memory) else { return Step::Raise(Vector::gp(0)) };
    let next = regs.rip.wrapping_add(u64::from(insn.len.get()));
    match run(cpu, regs, memory, &insn, next) {
        Ok(Flow::Next(step)) => {
            regs.rip = next;
            step
        }
        Ok(Flow::Jumped) => Step::Done,
        Ok(Flow::Stay(step)) => step,
        Err(vector) => Step::Raise(vector),
    }
}

enum Flow {
    /// The instruction is complete.
    Next(Step),
    /// It has set RIP itself.
    Jumped,
    /// RIP stays at it.
    Stay(Step),
}

/// Reads as many instruction bytes as guest memory has from RIP on.
fn fetch(regs: &Regs, memory: &GuestMemory) -> Option<Insn> {
    let mut bytes = [0; MAX_LEN];
    for len in (1..=MAX_LEN).rev() {
        if let Ok(slice) = memory.slice(Gpa(regs.rip), len as u64, Perms::READ) {
            slice.copy_to(&mut bytes);
            return decode(&bytes[..len]);
        }
    }
    None
}

fn run(
    cpu: &mut Cpu,
    regs: &mut Regs,
    memory: &GuestMemory,
    insn: &Insn,
    next: u64,
) -> Result<Flow, Vector> {
    match insn.op {
        Op::PortIo { size, write, port } => {
            return Ok(Flow::Next(port_io(regs, size, write, port)));
        }
        // It would be a hypercall.
        Op::StringIo { size: 4, write: true } => {
            return Ok(Flow::Stay(Step::Unsupported("outsd")));
        }
        Op::StringIo { size, write } => {
            // Nothing of ours is reached by other string I/O: the service refuses the port.
            let port = low16(regs.gpr[Regs::RDX]);
            return Ok(Flow::Stay(Step::Io { port, size, write: write.then_some(0) }));
        }
        Op::Hlt => return Ok(Flow::Next(Step::Halt)),
        Op::Unsupported(name) => return Ok(Flow::Stay(Step::Unsupported(name))),
        Op::Int(n) => {
            regs.rip = next;
            return Ok(Flow::Stay(Step::Raise(Vector { number: n, error: None })));
        }
        Op::Iretq => return iretq(cpu, regs, memory).map(|()| Flow::Jumped),
        Op::LretQ(drop) => return lretq(cpu, regs, memory, drop).map(|()| Flow::Jumped),
        Op::MovToCr(cr) => {
            let value = operand_register(insn, regs);
            if let Some(step) = set_cr(cpu, cr, value)? {
                return Ok(Flow::Stay(step));
            }
        }
        Op::MovFromCr(cr) => {
            let value = get_cr(cpu, cr)?;
            set_operand_register(insn, regs, value);
        }
        Op::Lgdt => cpu.gdt = load_table(insn, regs, memory, next)?,
        Op::Lidt => cpu.idt = load_table(insn, regs, memory, next)?,
        Op::Ltr => ltr(cpu, selector(insn, regs, memory, next)?, memory)?,
        Op::MovToSegment(number) => {
            let selector = selector(insn, regs, memory, next)?;
            load_segment(cpu, number, selector, memory)?;
        }
        Op::Wrmsr => wrmsr(cpu, regs)?,
        Op::Rdmsr => rdmsr(cpu, regs)?,
        Op::Cli => cpu.interrupts = false,
        Op::Sti => cpu.interrupts = true,
        Op::Swapgs => core::mem::swap(&mut cpu.kernel_gs_base, &mut regs.gs_base),
        Op::Xsetbv => return Ok(Flow::Stay(Step::Unsupported("xsetbv"))),
        Op::Nothing => {}
    }
    Ok(Flow::Next(Step::Done))
}

#[expect(clippy::cast_possible_truncation, reason = "the low part is what is meant")]
const fn low16(value: u64) -> u16 {
    value as u16
}

#[expect(clippy::cast_possible_truncation, reason = "the low part is what is meant")]
const fn low32(value: u64) -> u32 {
    value as u32
}

fn port_io(regs: &Regs, size: u8, write: bool, port: Option<u8>) -> Step {
    let port = port.map_or(low16(regs.gpr[Regs::RDX]), u16::from);
    let mask = u32::MAX >> (32 - 8 * u32::from(size));
    let value = low32(regs.gpr[Regs::RAX]) & mask;
    Step::Io { port, size, write: write.then_some(value) }
}

fn operand_register(insn: &Insn, regs: &Regs) -> u64 {
    match insn.operand {
        Some(Operand::Register(r)) => regs.gpr[usize::from(r & 15)],
        _ => 0,
    }
}

fn set_operand_register(insn: &Insn, regs: &mut Regs, value: u64) {
    if let Some(Operand::Register(r)) = insn.operand {
        regs.gpr[usize::from(r & 15)] = value;
    }
}

fn read<const N: usize>(
    insn: &Insn,
    regs: &Regs,
    memory: &GuestMemory,
    next: u64,
) -> Result<[u8; N], Vector> {
    let address = insn.operand.and_then(|o| o.address(regs, next)).ok_or(Vector::UD)?;
    let mut bytes = [0; N];
    memory.read_bytes(Gpa(address), &mut bytes).map_err(|_| Vector::gp(0))?;
    Ok(bytes)
}

fn load_table(insn: &Insn, regs: &Regs, memory: &GuestMemory, next: u64) -> Result<Table, Vector> {
    let [l0, l1, base @ ..] = read::<10>(insn, regs, memory, next)?;
    Ok(Table { limit: u16::from_le_bytes([l0, l1]), base: u64::from_le_bytes(base) })
}

fn selector(insn: &Insn, regs: &Regs, memory: &GuestMemory, next: u64) -> Result<u16, Vector> {
    match insn.operand {
        Some(Operand::Register(_)) => Ok(low16(operand_register(insn, regs))),
        _ => Ok(u16::from_le_bytes(read::<2>(insn, regs, memory, next)?)),
    }
}

fn access(descriptor: u64) -> u64 {
    descriptor >> 40 & 0xff
}

/// Loads the task register with an available 64-bit TSS (Intel SDM vol. 3 §7.2.3).
fn ltr(cpu: &mut Cpu, selector: u16, memory: &GuestMemory) -> Result<(), Vector> {
    let gp = Vector::gp(u32::from(selector & !7));
    let low = cpu.descriptor(selector, memory).ok_or(gp)?;
    let high = cpu.descriptor(selector.checked_add(8).ok_or(gp)?, memory).ok_or(gp)?;
    if access(low) & 0x9f != 0x89 {
        return Err(gp);
    }
    let base = low >> 16 & 0xff_ffff | low >> 56 << 24 | high << 32;
    cpu.tss = Table { base, limit: low16(low) };
    cpu.tr = selector;
    Ok(())
}

/// Loads ES, SS, DS, FS or GS with a data segment of ring 0 or, except SS, a null selector.
fn load_segment(
    cpu: &mut Cpu,
    number: u8,
    selector: u16,
    memory: &GuestMemory,
) -> Result<(), Vector> {
    const CS: u8 = 1;
    let slot = cpu.data.get(usize::from(number)).filter(|_| number != CS).map(|_| number);
    let slot = slot.ok_or(Vector::UD)?;
    if selector & !3 != 0 {
        let gp = Vector::gp(u32::from(selector & !7));
        let descriptor = cpu.descriptor(selector, memory).ok_or(gp)?;
        let present_data_or_readable_code =
            access(descriptor) & 0x90 == 0x90 && access(descriptor) & 0x0a != 0x08;
        if !present_data_or_readable_code {
            return Err(gp);
        }
    }
    cpu.data[usize::from(slot)] = selector;
    Ok(())
}

fn load_cs(cpu: &mut Cpu, selector: u64, memory: &GuestMemory) -> Result<(), Vector> {
    let selector = low16(selector);
    let gp = Vector::gp(u32::from(selector & !7));
    let descriptor = cpu.descriptor(selector, memory).ok_or(gp)?;
    let long_mode = descriptor >> 53 & 1 == 1;
    if access(descriptor) & 0x98 != 0x98 || !long_mode || selector & 3 != 0 {
        return Err(gp);
    }
    cpu.cs = selector;
    Ok(())
}

fn pop(regs: &Regs, memory: &GuestMemory, slot: u64) -> Result<u64, Vector> {
    let address = regs.gpr[Regs::RSP].wrapping_add(slot * 8);
    memory.read_obj(Gpa(address)).map_err(|_| Vector { number: 12, error: Some(0) })
}

fn lretq(cpu: &mut Cpu, regs: &mut Regs, memory: &GuestMemory, drop: u16) -> Result<(), Vector> {
    let (rip, cs) = (pop(regs, memory, 0)?, pop(regs, memory, 1)?);
    load_cs(cpu, cs, memory)?;
    regs.rip = rip;
    regs.gpr[Regs::RSP] = regs.gpr[Regs::RSP].wrapping_add(16 + u64::from(drop));
    Ok(())
}

fn iretq(cpu: &mut Cpu, regs: &mut Regs, memory: &GuestMemory) -> Result<(), Vector> {
    let frame = [0, 1, 2, 3, 4].map(|slot| pop(regs, memory, slot));
    let [rip, cs, flags, rsp, ss] = frame;
    let (rip, cs, flags, rsp, ss) = (rip?, cs?, flags?, rsp?, ss?);
    load_cs(cpu, cs, memory)?;
    load_segment(cpu, 2, low16(ss), memory)?;
    cpu.set_flags(regs, flags);
    regs.rip = rip;
    regs.gpr[Regs::RSP] = rsp;
    Ok(())
}

fn get_cr(cpu: &Cpu, cr: u8) -> Result<u64, Vector> {
    match cr {
        0 => Ok(cpu.cr0),
        2 => Ok(cpu.cr2),
        3 => Ok(cpu.cr3),
        4 => Ok(cpu.cr4),
        8 => Ok(0),
        _ => Err(Vector::UD),
    }
}

/// AMD APM vol. 2 §3.1.1 and §3.1.3; what would leave paged 64-bit mode is #GP there.
fn set_cr(cpu: &mut Cpu, cr: u8, value: u64) -> Result<Option<Step>, Vector> {
    match cr {
        0 | 4 if value & CR_RESERVED != 0 => return Err(Vector::gp(0)),
        0 if (value ^ cpu.cr0) & CR0_FIXED != 0 => return Err(Vector::gp(0)),
        0 => cpu.cr0 = value,
        2 => cpu.cr2 = value,
        // Loading the same root again only flushes the TLB.
        3 if value == cpu.cr3 => {}
        3 => return Ok(Some(Step::Unsupported("mov to CR3: page tables of the guest's own"))),
        4 if (value ^ cpu.cr4) & CR4_FIXED != 0 => return Err(Vector::gp(0)),
        4 => cpu.cr4 = value,
        8 => {}
        _ => return Err(Vector::UD),
    }
    Ok(None)
}

fn wrmsr(cpu: &mut Cpu, regs: &mut Regs) -> Result<(), Vector> {
    let value = regs.gpr[Regs::RAX] & 0xffff_ffff | regs.gpr[Regs::RDX] << 32;
    let canonical = (value.cast_signed() << 16 >> 16).cast_unsigned() == value;
    match low32(regs.gpr[Regs::RCX]) {
        MSR_FS_BASE if canonical => regs.fs_base = value,
        MSR_GS_BASE if canonical => regs.gs_base = value,
        MSR_KERNEL_GS_BASE if canonical => cpu.kernel_gs_base = value,
        MSR_EFER if value == cpu.efer => {}
        _ => return Err(Vector::gp(0)),
    }
    Ok(())
}

fn rdmsr(cpu: &Cpu, regs: &mut Regs) -> Result<(), Vector> {
    let value = match low32(regs.gpr[Regs::RCX]) {
        MSR_FS_BASE => regs.fs_base,
        MSR_GS_BASE => regs.gs_base,
        MSR_KERNEL_GS_BASE => cpu.kernel_gs_base,
        MSR_EFER => cpu.efer,
        _ => return Err(Vector::gp(0)),
    };
    regs.gpr[Regs::RAX] = value & 0xffff_ffff;
    regs.gpr[Regs::RDX] = value >> 32;
    Ok(())
}
