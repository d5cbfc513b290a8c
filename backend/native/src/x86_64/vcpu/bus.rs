//! What an instruction that the backend finishes sees: the guest's memory through its own page
//! tables, and devices by their answers.

#![allow(unsafe_code)]

use crate::Platform;
use crate::x86_64::decode::{Mode, Op};
use crate::x86_64::emulate::{Bus, Spot, Stop};
use crate::x86_64::memory::{Access, PAGE};
use crate::x86_64::regs::truncate;
use crate::x86_64::space::{Paging, linear};
use crate::x86_64::vendor::Vendor;
use crate::x86_64::vm::{Kind, Vm};
use hypervisor::memory::{Gpa, Perms};

/// Reads of devices by one instruction: CMPS has two.
pub(super) const READS: usize = 2;

/// The bus of one instruction.
pub(super) struct GuestBus<'a, P: Platform, V: Vendor<P>> {
    pub vm: &'a Vm<P, V>,
    pub v: &'a V,
    pub mode: Mode,
    /// The access that has left the guest: its translation is known.
    pub known: Option<Known>,
    /// What devices have answered so far.
    pub answers: &'a [u64],
    pub asked: usize,
    /// What the instruction writes to a device.
    pub written: Option<(Gpa, u8, u64)>,
}

/// The access that has left the guest, which the processor has checked and translated. Another
/// operand of the same instruction may lie at the same place of another page, so the translation is
/// used only for the operand that it was made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    gpa: u64,
    /// What the operand is accessed for, where the instruction has another one. A string
    /// instruction that moves reads one operand and writes the other.
    access: Option<Access>,
    /// Its linear address, once that has been found out.
    linear: Option<u64>,
}

impl Known {
    /// The translation that an exit tells of an instruction's operand; `None` where it cannot be
    /// known which operand it was.
    pub fn of(op: Op, gpa: u64, access: Access) -> Option<Self> {
        let access = match op {
            Op::Movs => Some(access),
            // Both operands are read.
            Op::Cmps => return None,
            _ => None,
        };
        Some(Self { gpa, access, linear: None })
    }

    /// Where it is, if it is this access.
    fn translation(&mut self, linear: u64, access: Access) -> Option<u64> {
        let is_it = self.access.is_none_or(|known| known == access)
            && self.gpa % PAGE == linear % PAGE
            && *self.linear.get_or_insert(linear) == linear;
        is_it.then_some(self.gpa)
    }
}

/// Where an access goes.
enum Target {
    Ram(u64),
    /// RAM on two pages.
    Split(u64, u64),
    /// A device, or memory that only looks like one to a write.
    Device(u64),
}

impl<P: Platform, V: Vendor<P>> GuestBus<'_, P, V> {
    fn target(&mut self, at: Spot, size: u8, access: Access) -> Result<Target, Stop> {
        let linear = linear(self.v, self.mode, at.segment, at.offset, size)?;
        let crosses = linear % PAGE + u64::from(size) > PAGE;
        let known = self.known.as_mut().filter(|_| !crosses);
        let first = match known.and_then(|known| known.translation(linear, access)) {
            Some(gpa) => gpa,
            None => self.translate(linear, access)?,
        };
        if !crosses {
            return Ok(if self.is_ram(first, access)? {
                Target::Ram(first)
            } else {
                Target::Device(first)
            });
        }
        let second = self.translate((linear & !(PAGE - 1)).wrapping_add(PAGE), access)?;
        match (self.is_ram(first, access)?, self.is_ram(second, access)?) {
            (true, true) => Ok(Target::Split(first, second)),
            (false, false) if (first & !(PAGE - 1)) + PAGE == second => Ok(Target::Device(first)),
            _ => Err(Stop::Unsupported),
        }
    }

    fn translate(&self, linear: u64, access: Access) -> Result<u64, Stop> {
        Ok(Paging::of(self.v).translate(self.vm.backing.memory(), linear, access)?)
    }

    /// Whether an access reaches RAM; an error where the guest may not access it so.
    fn is_ram(&self, gpa: u64, access: Access) -> Result<bool, Stop> {
        let Some(perms) = self.vm.backing.perms(gpa) else { return Ok(false) };
        let needs = if access == Access::Write { Perms::WRITE } else { Perms::READ };
        if perms.contains(needs) {
            return Ok(true);
        }
        // A machine's ROM takes writes as a device does.
        if self.vm.kind == Kind::Machine && access == Access::Write {
            return Ok(false);
        }
        Err(Stop::Denied(Gpa(gpa)))
    }

    fn read_ram(&self, parts: &[(u64, usize)]) -> Result<u64, Stop> {
        let mut raw = [0u8; 8];
        let mut rest = &mut raw[..];
        for (gpa, len) in parts {
            let (part, after) = rest.split_at_mut(*len);
            let read = self.vm.backing.memory().read_bytes(Gpa(*gpa), part);
            read.map_err(|_| Stop::Unsupported)?;
            rest = after;
        }
        Ok(u64::from_le_bytes(raw))
    }

    fn write_ram(&self, parts: &[(u64, usize)], value: u64) -> Result<(), Stop> {
        let raw = value.to_le_bytes();
        let mut rest = &raw[..];
        for (gpa, len) in parts {
            let (part, after) = rest.split_at(*len);
            let written = self.vm.backing.memory().write_bytes(Gpa(*gpa), part);
            written.map_err(|_| Stop::Unsupported)?;
            rest = after;
        }
        Ok(())
    }
}

/// An access of `size` bytes, in its one or two parts.
fn parts(target: &Target, size: u8) -> ([(u64, usize); 2], usize) {
    let size = usize::from(size);
    match *target {
        Target::Split(first, second) => {
            let here = usize::try_from(PAGE - first % PAGE).unwrap_or(0).min(size);
            ([(first, here), (second, size - here)], 2)
        }
        Target::Ram(gpa) | Target::Device(gpa) => ([(gpa, size), (0, 0)], 1),
    }
}

impl<P: Platform, V: Vendor<P>> Bus for GuestBus<'_, P, V> {
    fn read(&mut self, at: Spot, size: u8, write: bool) -> Result<u64, Stop> {
        // What will be written has to be readable and writable; a ROM is read as memory.
        let target = self.target(at, size, Access::Read)?;
        if write {
            self.target(at, size, Access::Write)?;
        }
        if let Target::Device(gpa) = target {
            let index = self.asked;
            self.asked += 1;
            let answer = self.answers.get(index).map(|value| truncate(*value, size));
            return answer.ok_or(Stop::Ask { gpa: Gpa(gpa), size });
        }
        let (parts, count) = parts(&target, size);
        self.read_ram(&parts[..count])
    }

    fn write(&mut self, at: Spot, size: u8, value: u64) -> Result<(), Stop> {
        let target = self.target(at, size, Access::Write)?;
        if let Target::Device(gpa) = target {
            self.written = Some((Gpa(gpa), size, value));
            return Ok(());
        }
        let (parts, count) = parts(&target, size);
        self.write_ram(&parts[..count], value)
    }
}
