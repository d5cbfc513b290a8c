//! One local APIC, as its own vCPU sees it (Intel SDM vol. 3 §11.4 to §11.12).
//!
//! The page in memory (xAPIC) and the MSRs from 0x800 (x2APIC) are two ways to the same
//! registers: [`super::faces`].

use super::bus::ApicBus;
use super::inbox::{Identity, Inbox};
use super::message::{Delivery, Interrupt};
use super::registers::{
    ApicBase, DIVIDE_BITS, LVT_BITS, MASKED, Refused, SOFTWARE_ENABLE, SVR_BITS, VERSION, error,
    number as n,
};
use super::timer::{Instant, Timer, TimerMode};
use super::vectors::Vectors;
use crate::modes::type1::layout::LOCAL_APIC;
use alloc::sync::Arc;

/// The timer's entry in [`LVT_BITS`].
const TIMER: usize = 0;
pub(super) const LINT0: usize = 3;
pub(super) const LINT1: usize = 4;
const ERROR: usize = 5;

/// A local APIC.
pub struct LocalApic {
    id: u32,
    base: u64,
    /// The bits of a page's address that the processor has.
    addresses: u64,
    tpr: u8,
    pub(super) logical: u32,
    /// DFR's upper four bits: all set is the flat model, clear the cluster model.
    pub(super) flat: bool,
    spurious: u32,
    errors: u32,
    new_errors: u32,
    pub(super) command: u32,
    pub(super) command_to: u32,
    lvt: [u32; 6],
    timer: Timer,
    pending: Vectors,
    in_service: Vectors,
    level: Vectors,
    /// The highest vector in service, or 0.
    serving: u8,
    inbox: Arc<Inbox>,
    bus: Arc<ApicBus>,
}

impl LocalApic {
    /// The APIC of vCPU number `id`, after reset. Physical addresses have so many bits.
    pub fn new(id: u32, address_bits: u32, bus: Arc<ApicBus>, inbox: Arc<Inbox>) -> Self {
        let mut apic = Self {
            id,
            base: 0,
            addresses: ApicBase::ADDRESS
                & (1u64.checked_shl(address_bits).unwrap_or(0)).wrapping_sub(1),
            tpr: 0,
            logical: 0,
            flat: true,
            spurious: 0,
            errors: 0,
            new_errors: 0,
            command: 0,
            command_to: 0,
            lvt: [MASKED; 6],
            timer: Timer::default(),
            pending: Vectors::default(),
            in_service: Vectors::default(),
            level: Vectors::default(),
            serving: 0,
            inbox,
            bus,
        };
        apic.reset();
        apic
    }

    /// The state after power-up (§11.4.7.1).
    pub fn reset(&mut self) {
        let bsp = if self.id == 0 { ApicBase::BSP } else { ApicBase::empty() };
        self.base = LOCAL_APIC.start | (ApicBase::ENABLE | bsp).bits();
        self.clear();
    }

    /// The state after INIT (§11.4.7.3): as after power-up, but for what APIC_BASE says.
    pub fn init(&mut self) {
        self.clear();
    }

    fn clear(&mut self) {
        self.tpr = 0;
        self.flat = true;
        self.spurious = 0xff;
        self.errors = 0;
        self.new_errors = 0;
        self.command = 0;
        self.command_to = 0;
        self.lvt = [MASKED; 6];
        self.timer = Timer::default();
        self.pending = Vectors::default();
        self.in_service = Vectors::default();
        self.level = Vectors::default();
        self.serving = 0;
        self.logical = if self.is_wide() { wide_logical(self.id) } else { 0 };
        self.inbox.clear_vectors();
        self.publish();
    }

    pub(super) fn publish(&self) {
        self.inbox.publish(Identity {
            logical: self.logical,
            cluster: !self.flat,
            wide: self.is_wide(),
            enabled: self.is_on() && self.spurious & SOFTWARE_ENABLE != 0,
        });
    }

    fn mode(&self) -> ApicBase {
        ApicBase::from_bits_truncate(self.base)
    }

    /// Whether it is on (APIC_BASE). One that is off leaves the processor's INTR pin to the 8259.
    pub fn is_on(&self) -> bool {
        self.mode().contains(ApicBase::ENABLE)
    }

    /// Whether it is in x2APIC mode.
    pub fn is_wide(&self) -> bool {
        self.mode().contains(ApicBase::ENABLE | ApicBase::X2APIC)
    }

    /// Where its page is, while it has one.
    pub fn page(&self) -> Option<u64> {
        (self.is_on() && !self.is_wide()).then_some(self.base & ApicBase::ADDRESS)
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE.
    ///
    /// # Errors
    /// If there is no such mode, or no way to it from here.
    pub fn set_base(&mut self, value: u64) -> Result<(), Refused> {
        let known = ApicBase::all().bits() | self.addresses;
        let next = ApicBase::from_bits_truncate(value);
        if value & !known != 0 || !self.mode().allows(next) {
            return Err(Refused);
        }
        let (was_on, was_wide) = (self.is_on(), self.is_wide());
        let bsp = self.base & ApicBase::BSP.bits();
        self.base = value & !ApicBase::BSP.bits() | bsp;
        if was_on && !self.is_on() {
            self.clear();
        } else if self.is_wide() && !was_wide {
            self.logical = wide_logical(self.id);
            self.flat = true;
        }
        self.publish();
        Ok(())
    }

    /// Whether the 8259 pair's interrupts come through (LINT0 as ExtINT, or the APIC is off).
    pub fn takes_external(&self) -> bool {
        let lint0 = self.lvt[LINT0];
        let external = Delivery::from_bits(lint0 >> 8) == Delivery::External;
        !self.is_on() || (lint0 & MASKED == 0 && external)
    }

    /// Takes what has arrived in the inbox.
    pub fn accept(&mut self) {
        let (posted, level) = self.inbox.take_vectors();
        for word in 0..4 {
            self.pending.0[word] |= posted.0[word];
            self.level.0[word] = self.level.0[word] & !posted.0[word] | level.0[word];
        }
    }

    fn raise(&mut self, vector: u8) {
        self.pending.set(vector, true);
        self.level.set(vector, false);
    }

    fn processor_priority(&self) -> u8 {
        if self.tpr >> 4 >= self.serving >> 4 { self.tpr } else { self.serving & 0xf0 }
    }

    /// The interrupt that the processor is to be given as soon as it takes one.
    pub fn deliverable(&self) -> Option<u8> {
        let vector = self.pending.highest()?;
        (vector >> 4 > self.processor_priority() >> 4 && self.is_on()).then_some(vector)
    }

    /// The interrupt that waits for the task's priority to fall, if one does: `CR8` below this
    /// value lets it in.
    pub fn held_by_priority(&self) -> Option<u8> {
        let vector = self.pending.highest()?;
        (vector >> 4 <= self.tpr >> 4 && vector >> 4 > self.serving >> 4).then_some(vector >> 4)
    }

    /// The processor takes a [`LocalApic::deliverable`] interrupt.
    pub fn begin(&mut self, vector: u8) {
        self.pending.set(vector, false);
        self.in_service.set(vector, true);
        self.serving = self.serving.max(vector);
    }

    /// End of interrupt. Gives the vector if the I/O APIC is to be told.
    pub fn end(&mut self) -> Option<u8> {
        let vector = self.in_service.highest()?;
        self.in_service.set(vector, false);
        self.serving = self.in_service.highest().unwrap_or(0);
        self.level.has(vector).then_some(vector)
    }

    /// Whether the end of the interrupt in service has no effect beyond itself, so that the guest
    /// may tell it by a flag in memory: it is edge-triggered and nothing waits for it.
    pub fn end_is_silent(&self) -> bool {
        self.serving != 0 && !self.level.has(self.serving) && self.pending.is_empty()
    }

    /// The task priority register.
    pub fn task_priority(&self) -> u8 {
        self.tpr
    }

    /// Sets the task priority register, as CR8 does.
    pub fn set_task_priority(&mut self, priority: u8) {
        self.tpr = priority;
    }

    /// When its timer ends, in the host's nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.timer.deadline
    }

    /// Whether it had ended already when it was set.
    pub fn has_passed(&self) -> bool {
        self.timer.passed
    }

    /// Lets the timer's interrupt come if the time has.
    pub fn expire(&mut self, now_ns: u64) {
        let lvt = self.lvt[TIMER];
        if self.timer.expire(TimerMode::of(lvt), now_ns) {
            self.local_interrupt(TIMER);
        }
    }

    fn local_interrupt(&mut self, entry: usize) {
        let lvt = self.lvt[entry];
        let [vector, ..] = lvt.to_le_bytes();
        if lvt & MASKED != 0 {
        } else if vector < 16 {
            self.new_errors |= error::RECEIVED_ILLEGAL_VECTOR;
        } else {
            self.raise(vector);
        }
    }

    pub(super) fn fail(&mut self, error: u32) {
        self.new_errors |= error;
        if entry_takes(self.lvt[ERROR]) {
            self.local_interrupt(ERROR);
        }
    }

    /// IA32_TSC_DEADLINE.
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline
    }

    /// Writes IA32_TSC_DEADLINE. In another mode of the timer that does nothing.
    pub fn set_tsc_deadline(&mut self, value: u64, now: &impl Instant) {
        if TimerMode::of(self.lvt[TIMER]) == TimerMode::Deadline {
            self.timer.set_tsc_deadline(value, now);
        }
    }

    /// What both ways read alike; `None`: there is no such register.
    pub(super) fn read(&mut self, register: u8, now: &impl Instant) -> Option<u32> {
        Some(match register {
            n::ID if self.is_wide() => self.id,
            n::ID => self.id << 24,
            n::VERSION => VERSION,
            n::TPR => self.tpr.into(),
            n::PPR => self.processor_priority().into(),
            n::APR | n::EOI => 0,
            n::LDR if self.is_wide() => self.logical,
            n::LDR => self.logical << 24,
            n::DFR if self.flat => u32::MAX,
            n::DFR => 0x0fff_ffff,
            n::SVR => self.spurious,
            n::ISR..n::TMR => self.in_service.register(register - n::ISR),
            n::TMR..n::IRR => self.level.register(register - n::TMR),
            n::IRR..=n::IRR_LAST => {
                self.accept();
                self.pending.register(register - n::IRR)
            }
            n::ESR => self.errors,
            n::ICR => self.command,
            n::ICR_HIGH => self.command_to << 24,
            n::LVT_TIMER..=n::LVT_ERROR => self.lvt[usize::from(register - n::LVT_TIMER)],
            n::INITIAL_COUNT => self.timer.initial,
            n::CURRENT_COUNT => self.timer.current(now),
            n::DIVIDE => self.timer.divide,
            _ => return None,
        })
    }

    /// What both ways write alike. `false`: there is no such register.
    pub(super) fn write(&mut self, register: u8, value: u32, now: &impl Instant) -> bool {
        match register {
            n::TPR => self.tpr = value.to_le_bytes()[0],
            n::SVR => self.set_spurious(value),
            n::ESR => self.errors = core::mem::take(&mut self.new_errors),
            n::LVT_TIMER..=n::LVT_ERROR => {
                self.set_entry(usize::from(register - n::LVT_TIMER), value);
            }
            n::INITIAL_COUNT => {
                let mode = TimerMode::of(self.lvt[TIMER]);
                if mode != TimerMode::Deadline {
                    self.timer.start(value, mode, now);
                }
            }
            n::DIVIDE => self.timer.set_divide(value & DIVIDE_BITS, now),
            _ => return false,
        }
        true
    }

    fn set_spurious(&mut self, value: u32) {
        self.spurious = value & SVR_BITS;
        if !self.is_software_enabled() {
            self.lvt.iter_mut().for_each(|entry| *entry |= MASKED);
        }
        self.publish();
    }

    fn is_software_enabled(&self) -> bool {
        self.spurious & SOFTWARE_ENABLE != 0
    }

    fn set_entry(&mut self, entry: usize, value: u32) {
        let mut value = value & LVT_BITS[entry];
        if !self.is_software_enabled() {
            value |= MASKED;
        }
        if entry == TIMER {
            let (before, after) = (TimerMode::of(self.lvt[TIMER]), TimerMode::of(value));
            let counts = |mode| matches!(mode, TimerMode::OneShot | TimerMode::Periodic);
            if before != after && !(counts(before) && counts(after)) {
                self.timer.stop();
            }
        }
        self.lvt[entry] = value;
    }

    /// Sends what the interrupt command register says.
    pub(super) fn command(&mut self, command: u32, to: u32) {
        self.command = command;
        self.command_to = to;
        let wide = self.is_wide();
        let Some(interrupt) = Interrupt::from_command(command, to, wide, self.id) else { return };
        let by_vector = matches!(interrupt.delivery, Delivery::Fixed | Delivery::Lowest);
        if by_vector && interrupt.vector < 16 {
            self.fail(error::SEND_ILLEGAL_VECTOR);
            return;
        }
        self.bus.deliver(&interrupt);
    }
}

fn entry_takes(lvt: u32) -> bool {
    lvt & MASKED == 0
}

/// The logical ID of an x2APIC: cluster, and one bit of 16 (§11.12.10.2).
fn wide_logical(id: u32) -> u32 {
    id >> 4 << 16 | 1 << (id & 15)
}
