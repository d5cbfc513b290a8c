//! Events on their way into a guest: which is next, and what waits.
//!
//! An exit may interrupt an event's delivery; it is then given again before anything else. One
//! event goes in at an entry. NMIs are masked from their delivery to the guest's next IRET.

use crate::Platform;
use crate::x86_64::vendor::{Injection, Kind, Vendor};
use hypervisor::vcpu::machine::Event;

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;
const RFLAGS_RF: u64 = 1 << 16;
const DR6_BS: u64 = 1 << 14;
const DOUBLE_FAULT: u8 = 8;

/// The events of one vCPU.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// For the next entry.
    next: Option<Injection>,
    /// An interrupt that an exception went before.
    held: Option<Injection>,
    /// NMIs that wait: two at most, and one while one is served.
    nmis: u8,
    nmi_masked: bool,
    /// The trap flag is set for one instruction, until an NMI can go in; the guest had it so.
    stepping: Option<bool>,
    window: bool,
    triple_fault: bool,
}

impl Events {
    /// Whether the guest would take a maskable interrupt now.
    pub fn interruptible<P: Platform, V: Vendor<P>>(&self, v: &V) -> bool {
        self.next.is_none() && self.held.is_none() && takes_interrupts(v)
    }

    /// Takes an event from the vCPU's owner.
    pub fn inject(&mut self, event: Event) {
        match event {
            Event::Interrupt { vector } => {
                self.next.get_or_insert(Injection {
                    vector,
                    kind: Kind::Interrupt,
                    error_code: None,
                });
            }
            Event::Nmi => {
                let most = if self.nmi_masked { 1 } else { 2 };
                self.nmis = (self.nmis + 1).min(most);
            }
        }
    }

    /// Raises an exception. Where another one is already on its way, the two become a double
    /// fault, or a triple one (AMD APM vol. 2 §8.2.9).
    pub fn raise(&mut self, new: Injection) {
        let class = |event: &Injection| match event.vector {
            0 | 10..=13 => 1,
            14 => 2,
            _ => 0,
        };
        self.next = match self.next {
            Some(old) if old.kind == Kind::Exception => {
                if old.vector == DOUBLE_FAULT {
                    self.triple_fault = class(&new) > 0 || new.vector == DOUBLE_FAULT;
                    Some(old)
                } else if class(&old) > 0 && class(&new) > 0 && (class(&old), class(&new)) != (1, 2)
                {
                    Some(Injection::with_code(DOUBLE_FAULT, 0))
                } else {
                    Some(new)
                }
            }
            // The instruction before it is not over: its exception comes first.
            Some(old) if old.kind == Kind::Interrupt => {
                self.held = Some(old);
                Some(new)
            }
            _ => Some(new),
        };
    }

    /// Whether three faults have met.
    pub fn is_triple_fault(&self) -> bool {
        self.triple_fault
    }

    /// Whether an exit has interrupted an event's delivery.
    pub fn is_interrupted(&self) -> bool {
        self.next.is_some()
    }

    /// Whether what waits ends a halt at once.
    pub fn end_halt<P: Platform, V: Vendor<P>>(&self, v: &V) -> bool {
        self.next.is_some()
            || self.nmis > 0 && !self.nmi_masked
            || self.held.is_some() && takes_interrupts(v)
    }

    /// Puts the next event into the vCPU. `exit_at_once` makes the coming run end after it.
    #[inline(always)]
    pub fn before_entry<P: Platform, V: Vendor<P>>(
        &mut self,
        v: &mut V,
        exit_at_once: impl FnOnce(),
    ) {
        if self.held.is_some() {
            self.prepare_held(v);
        }
        if self.nmis > 0 {
            self.prepare_nmi(v, exit_at_once);
        }
        if let Some(event) = self.next {
            self.next = None;
            v.inject(event);
        }
    }

    #[cold]
    fn prepare_held<P: Platform, V: Vendor<P>>(&mut self, v: &mut V) {
        if self.next.is_none() && takes_interrupts(v) {
            self.next = self.held.take();
        } else {
            v.set_window(true);
        }
    }

    /// The guest can take an interrupt: whether the vCPU's owner wanted to know.
    pub fn window_reached<P: Platform, V: Vendor<P>>(&mut self, v: &mut V) -> bool {
        v.set_window(false);
        core::mem::take(&mut self.window)
    }

    #[cold]
    fn prepare_nmi<P: Platform, V: Vendor<P>>(&mut self, v: &mut V, exit_at_once: impl FnOnce()) {
        if self.next.is_some() {
            exit_at_once();
        } else if self.nmi_masked {
            // The guest's IRET tells.
        } else if v.shadow() || self.stepping.is_some() {
            self.step_once(v);
        } else {
            self.nmis = self.nmis.saturating_sub(1);
            self.nmi_masked = true;
            v.set_nmi_end(true);
            self.next = Some(Injection::NMI);
        }
    }

    /// The guest does one instruction, then #DB comes here.
    fn step_once<P: Platform, V: Vendor<P>>(&mut self, v: &mut V) {
        let flags = v.rflags();
        self.stepping.get_or_insert(flags & RFLAGS_TF != 0);
        v.set_rflags(flags | RFLAGS_TF);
    }

    /// Looks at what became of the event.
    #[inline(always)]
    pub fn after_exit<P: Platform, V: Vendor<P>>(&mut self, v: &mut V) {
        let interrupted = v.interrupted();
        if interrupted.is_some() {
            self.next = interrupted;
            if interrupted == Some(Injection::NMI) {
                // It has not come: it is as before.
                self.next = None;
                self.nmis = (self.nmis + 1).min(2);
                self.nmi_masked = false;
            }
        }
    }

    /// The guest is at its IRET, which is to be executed, with NMIs let in after it.
    pub fn nmi_end<P: Platform, V: Vendor<P>>(&mut self, v: &mut V) {
        v.set_nmi_end(false);
        self.nmi_masked = false;
        if self.nmis > 0 {
            self.step_once(v);
        }
    }

    /// A #DB has come: `None` if it is from stepping, else what the guest gets.
    pub fn debug_exception<P: Platform, V: Vendor<P>>(&mut self, v: &mut V) -> Option<Injection> {
        let Some(own) = self.stepping.take() else { return Some(Injection::DB) };
        if own {
            return Some(Injection::DB);
        }
        v.set_rflags(v.rflags() & !RFLAGS_TF);
        let dr6 = v.dr6();
        v.set_dr6(dr6 & !DR6_BS);
        // A breakpoint of the guest's own at the same instruction.
        (dr6 & 0xf != 0).then_some(Injection::DB)
    }

    /// Lets the guest go on after an instruction that was finished for it.
    #[inline(always)]
    pub fn retire<P: Platform, V: Vendor<P>>(&mut self, v: &mut V, next: u64) {
        v.set_rip(next);
        v.clear_shadow();
        let flags = v.rflags();
        if flags & (RFLAGS_TF | RFLAGS_RF) != 0 {
            v.set_rflags(flags & !RFLAGS_RF);
            if flags & RFLAGS_TF != 0 {
                self.single_stepped(v);
            }
        }
    }

    #[cold]
    fn single_stepped<P: Platform, V: Vendor<P>>(&mut self, v: &mut V) {
        if let Some(false) = self.stepping {
            self.stepping = None;
            v.set_rflags(v.rflags() & !RFLAGS_TF);
            return;
        }
        self.stepping = None;
        v.set_dr6(v.dr6() | DR6_BS);
        self.raise(Injection::DB);
    }

    /// Whether to leave the guest as soon as it can take an interrupt.
    pub fn request_window<P: Platform, V: Vendor<P>>(&mut self, v: &mut V, wanted: bool) {
        if self.window != wanted {
            self.window = wanted;
            v.set_window(wanted);
        }
    }
}

/// Whether the guest's flags let an interrupt in.
fn takes_interrupts<P: Platform, V: Vendor<P>>(v: &V) -> bool {
    v.rflags() & RFLAGS_IF != 0 && !v.shadow()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(first: Injection, second: Injection) -> Option<Injection> {
        let mut events = Events { next: Some(first), ..Events::default() };
        events.raise(second);
        events.next
    }

    #[test]
    fn faults_meet_as_the_manual_says() {
        let pf = Injection::with_code(14, 2);
        let df = Some(Injection::with_code(8, 0));
        assert_eq!(after(Injection::GP, Injection::GP), df);
        assert_eq!(after(pf, Injection::GP), df);
        assert_eq!(after(pf, pf), df);
        assert_eq!(after(Injection::GP, pf), Some(pf));
        assert_eq!(after(Injection::UD, Injection::GP), Some(Injection::GP));
        let interrupt = Injection { vector: 32, kind: Kind::Interrupt, error_code: None };
        assert_eq!(after(interrupt, Injection::GP), Some(Injection::GP));
        let mut events = Events { next: df, ..Events::default() };
        events.raise(Injection::DB);
        assert!(!events.is_triple_fault());
        events.raise(pf);
        assert!(events.is_triple_fault());
    }
}
