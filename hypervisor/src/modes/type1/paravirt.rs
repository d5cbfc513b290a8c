//! KVM's paravirtual interface, which Linux and others know (Linux `Documentation/virt/kvm/x86`:
//! `cpuid.rst`, `msr.rst`, `hypercalls.rst`): the clock, ends of interrupts by a flag in memory,
//! inter-processor interrupts by one call, and waking a processor that waits for a lock.
//!
//! Where the backend has the local APICs it has this too, and says so in its own rows; they are
//! passed on. Everything here is for the core's local APICs.

use super::apic::{
    ApicBus, Delivery, Destination, Instant, Interrupt, LocalApic, Refused, Requests,
};
use crate::memory::{Gpa, GuestMemory};
use crate::vcpu::machine::CpuidEntry;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use zerocopy::{Immutable, IntoBytes};

/// Frequency of the local APIC's timer in kHz.
const APIC_KHZ: u32 = super::apic::FREQUENCY_KHZ;
const BASE: u32 = 0x4000_0000;
const FEATURES: u32 = BASE + 1;
const FREQUENCIES: u32 = BASE + 0x10;

bitflags::bitflags! {
    /// Leaf 0x40000001's EAX.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u32 {
        /// The clock, by its first MSRs.
        const CLOCK_OLD = 1 << 0;
        /// No delays after port accesses are needed.
        const NO_IO_DELAY = 1 << 1;
        /// The clock.
        const CLOCK = 1 << 3;
        /// End of interrupt by a flag in memory.
        const EOI = 1 << 6;
        /// A processor that halts waiting for a lock can be woken.
        const UNHALT = 1 << 7;
        /// Inter-processor interrupts by hypercall.
        const SEND_IPI = 1 << 11;
        /// Interrupt messages can carry 15 bits of an APIC ID.
        const WIDE_MESSAGES = 1 << 15;
        /// All processors' clocks agree.
        const STABLE = 1 << 24;
    }
}

/// What the core gives.
const OWN: Features = Features::CLOCK_OLD
    .union(Features::NO_IO_DELAY)
    .union(Features::CLOCK)
    .union(Features::EOI)
    .union(Features::UNHALT)
    .union(Features::SEND_IPI)
    .union(Features::STABLE);

/// The hypervisor's rows. `supported` are the backend's, which may have features of its own.
pub fn cpuid(supported: &[CpuidEntry], frequency: u64) -> Vec<CpuidEntry> {
    let row = |leaf, registers| CpuidEntry { leaf, subleaf: None, registers };
    let text = |text: &[u8; 4]| u32::from_le_bytes(*text);
    let features = supported.iter().find(|row| row.leaf == FEATURES);
    let features = features.map_or([OWN.bits(), 0, 0, 0], |row| {
        let [features, _, _, hints] = row.registers;
        // Messages come from this core's I/O APIC and devices, which speak 8 bits.
        [features & !Features::WIDE_MESSAGES.bits(), 0, 0, hints]
    });
    let khz = u32::try_from(frequency / 1000).unwrap_or(u32::MAX);
    alloc::vec![
        row(BASE, [FREQUENCIES, text(b"KVMK"), text(b"VMKV"), text(b"M\0\0\0")]),
        row(FEATURES, features),
        row(FREQUENCIES, [khz, APIC_KHZ, 0, 0]),
    ]
}

/// The MSRs, old numbers and new.
mod msr {
    pub const WALL_CLOCK_OLD: u32 = 0x11;
    pub const SYSTEM_TIME_OLD: u32 = 0x12;
    pub const WALL_CLOCK: u32 = 0x4b56_4d00;
    pub const SYSTEM_TIME: u32 = 0x4b56_4d01;
    pub const EOI: u32 = 0x4b56_4d04;
}

/// The hypercalls, and what an unknown one gets (-KVM_ENOSYS).
mod call {
    pub const VAPIC_POLL_IRQ: u64 = 1;
    pub const KICK_CPU: u64 = 5;
    pub const SEND_IPI: u64 = 10;
    pub const UNKNOWN: u64 = (-1000i64).cast_unsigned();
    pub const INVALID: u64 = (-22i64).cast_unsigned();
}

/// The name of a hypercall that is answered (Linux, "KVM hypercalls").
pub const fn call_name(number: u64) -> Option<&'static str> {
    match number {
        call::VAPIC_POLL_IRQ => Some("vapic_poll_irq"),
        call::KICK_CPU => Some("kick_cpu"),
        call::SEND_IPI => Some("send_ipi"),
        _ => None,
    }
}

/// `pvclock_vcpu_time_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct TimeInfo {
    version: u32,
    pad0: u32,
    tsc_timestamp: u64,
    system_time: u64,
    mul: u32,
    shift: i8,
    flags: u8,
    pad: [u8; 2],
}

/// `pvclock_wall_clock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct WallClock {
    version: u32,
    seconds: u32,
    nanoseconds: u32,
}

/// The moment from which all clocks of a machine count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The TSC then.
    pub cycles: u64,
    /// The host's monotonic clock then.
    pub ns: u64,
    /// The host's wall clock then.
    pub wall_ns: u64,
}

/// What one vCPU uses of it.
#[derive(Debug, Clone, Default)]
pub struct Paravirt {
    wall_clock: u64,
    system_time: u64,
    eoi: u64,
    /// The flag in memory says that the end of the interrupt in service may be told by it.
    offered: bool,
}

const ENABLE: u64 = 1;

impl Paravirt {
    /// Reads one of the MSRs; `None`: it is none of them.
    pub fn read_msr(&self, index: u32) -> Option<u64> {
        match index {
            msr::WALL_CLOCK | msr::WALL_CLOCK_OLD => Some(self.wall_clock),
            msr::SYSTEM_TIME | msr::SYSTEM_TIME_OLD => Some(self.system_time),
            msr::EOI => Some(self.eoi),
            _ => None,
        }
    }

    /// Writes one of the MSRs; `None`: it is none of them.
    pub fn write_msr(
        &mut self,
        index: u32,
        value: u64,
        memory: &GuestMemory,
        reference: Reference,
        frequency: u64,
    ) -> Option<Result<(), Refused>> {
        match index {
            msr::WALL_CLOCK | msr::WALL_CLOCK_OLD => {
                self.wall_clock = value;
                write_wall_clock(Gpa(value), memory, reference);
            }
            msr::SYSTEM_TIME | msr::SYSTEM_TIME_OLD => {
                self.system_time = value;
                if value & ENABLE != 0 {
                    write_time(Gpa(value & !ENABLE), memory, reference, frequency);
                }
            }
            msr::EOI if value & 2 != 0 => return Some(Err(Refused)),
            msr::EOI => {
                self.eoi = value;
                self.offered = false;
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    /// After INIT: ends are told by no flag any more, as KVM does it. The clock's place stays.
    pub fn init(&mut self) {
        (self.eoi, self.offered) = (0, false);
    }

    /// Before an entry: lets the guest tell the end of the interrupt in service by the flag, where
    /// nothing else follows from that end.
    pub fn offer_end(&mut self, apic: &LocalApic, memory: &GuestMemory) {
        if self.eoi & ENABLE == 0 || self.offered || !apic.end_is_silent() {
            return;
        }
        self.offered = memory.store_u32(self.flag(), 1, Ordering::Relaxed).is_ok();
    }

    /// After an exit: takes the flag back. If the guest has used it, the interrupt has ended.
    pub fn take_end(&mut self, apic: &mut LocalApic, memory: &GuestMemory) {
        if !core::mem::take(&mut self.offered) {
            return;
        }
        match memory.load_u32(self.flag(), Ordering::Relaxed) {
            Ok(flag) if flag & 1 != 0 => {
                let _ = memory.store_u32(self.flag(), 0, Ordering::Relaxed);
            }
            // Nothing follows from this end: it was offered because of that.
            Ok(_) => drop(apic.end()),
            Err(_) => {}
        }
    }

    fn flag(&self) -> Gpa {
        Gpa(self.eoi & !3)
    }
}

/// Answers a hypercall. `vcpu` is the caller's number.
#[inline(always)]
pub fn hypercall(number: u64, arguments: [u64; 4], bus: &ApicBus) -> u64 {
    let [a0, a1, a2, a3] = arguments;
    match number {
        call::VAPIC_POLL_IRQ => 0,
        call::KICK_CPU => {
            let inbox = usize::try_from(a1).ok().and_then(|index| bus.inboxes().get(index));
            inbox.into_iter().for_each(|inbox| inbox.ask(Requests::UNHALT));
            0
        }
        call::SEND_IPI => send(u128::from(a1) << 64 | u128::from(a0), a2, a3, bus),
        _ => call::UNKNOWN,
    }
}

/// Sends an interrupt to each APIC ID `first + i` whose bit `i` is set; gives how many there were.
fn send(mut members: u128, first: u64, command: u64, bus: &ApicBus) -> u64 {
    let low = u32::try_from(command & 0xffff_ffff).unwrap_or(0);
    let delivery = Delivery::from_bits(low >> 8);
    let [vector, ..] = command.to_le_bytes();
    let fits = matches!(delivery, Delivery::Fixed | Delivery::Nmi);
    if !fits || (delivery == Delivery::Fixed && vector < 16) {
        return call::INVALID;
    }
    let mut count = 0;
    while members != 0 {
        let bit = u64::from(members.trailing_zeros());
        members &= members - 1;
        let id = first.checked_add(bit).and_then(|id| u32::try_from(id).ok());
        let Some(id) = id.filter(|id| usize::try_from(*id).is_ok_and(|i| i < bus.inboxes().len()))
        else {
            continue;
        };
        let destination = Destination::Physical(id);
        bus.deliver(&Interrupt { destination, delivery, vector, level: false });
        count += 1;
    }
    count
}

/// Factor and shift that turn cycles into nanoseconds: `(cycles << shift) * mul >> 32`.
fn scale(frequency: u64) -> (u32, i8) {
    let mut shift = 0i8;
    let mut frequency = frequency.max(1);
    while frequency > 2_000_000_000 {
        frequency >>= 1;
        shift -= 1;
    }
    while frequency <= 1_000_000_000 {
        frequency <<= 1;
        shift += 1;
    }
    // From here 0.5 to 1 nanoseconds to a cycle.
    let mul = (1_000_000_000u64 << 32) / frequency;
    (u32::try_from(mul).unwrap_or(u32::MAX), shift)
}

/// Writes the clock; what is not in memory is the guest's own mistake.
fn write_time(at: Gpa, memory: &GuestMemory, reference: Reference, frequency: u64) {
    const STABLE: u8 = 1;
    let (mul, shift) = scale(frequency);
    let mut info = TimeInfo {
        version: 1,
        pad0: 0,
        tsc_timestamp: reference.cycles,
        system_time: 0,
        mul,
        shift,
        flags: STABLE,
        pad: [0; 2],
    };
    // An odd version says that it is being written.
    let _ = memory.write_obj(at, &info);
    info.version = 2;
    let _ = memory.write_obj(at, &info);
}

fn write_wall_clock(at: Gpa, memory: &GuestMemory, reference: Reference) {
    let seconds = reference.wall_ns / 1_000_000_000;
    let rest = reference.wall_ns % 1_000_000_000;
    let wall = WallClock {
        version: 2,
        seconds: u32::try_from(seconds & 0xffff_ffff).unwrap_or(0),
        nanoseconds: u32::try_from(rest).unwrap_or(0),
    };
    let _ = memory.write_obj(at, &wall);
}

impl Reference {
    /// This moment.
    pub fn now(instant: &impl Instant, wall_ns: u64) -> Self {
        Self { cycles: instant.cycles(), ns: instant.ns(), wall_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cycles_become_nanoseconds(frequency in 1_000_000u64..=100_000_000_000, ms in 0u64..100_000) {
            let (mul, shift) = scale(frequency);
            let cycles = u128::from(frequency) * u128::from(ms) / 1000;
            let shifted = if shift < 0 { cycles >> -shift } else { cycles << shift };
            let ns = (shifted * u128::from(mul)) >> 32;
            let expected = u128::from(ms) * 1_000_000;
            // A millionth, and what a whole cycle is.
            let error = expected / 1_000_000 + 2_000_000_000 / u128::from(frequency) + 2;
            prop_assert!(ns.abs_diff(expected) <= error, "{ns} {expected}");
        }
    }
}
