//! All devices of a VM, and the one place where their effects are applied.

use super::bus::{Bus, BusError, Space};
use super::effects::{Effect, Effects, LayoutChange, WorkRef};
use super::{Lines, Width};
use crate::sync::Mutex;
use crate::vcpu::{VmEntry, VmExit};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a guest asked of the machine as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Turn it off.
    Shutdown,
    /// Reset it.
    Reset,
}

/// How an access ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How the vCPU goes on; `None` if nothing claims the address and the bus's rule is a fault.
    pub entry: Option<VmEntry>,
    /// What the guest asked of the machine meanwhile.
    pub request: Option<Request>,
}

/// Both buses and the interrupt lines of a VM.
#[derive(Debug)]
pub struct Devices {
    /// Addresses without memory.
    pub mmio: Bus,
    /// x86 ports.
    pub pio: Bus,
    /// Interrupts.
    pub lines: Lines,
    refused: AtomicU64,
    /// Whether anything is deferred, to be looked at without a lock.
    has_deferred: AtomicBool,
    /// Work whose work is not done yet, each once. A leaf lock.
    deferred: Mutex<Vec<WorkRef>>,
}

impl Devices {
    /// Joins what was built.
    pub fn new(mmio: Bus, pio: Bus, lines: Lines) -> Self {
        let deferred = Mutex::new(Vec::new());
        let (refused, has_deferred) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { mmio, pio, lines, refused, has_deferred, deferred }
    }

    /// Layouts that the guest asked for and could not have, so far.
    pub fn refused_layouts(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Answers an exit that is an access to a device; `None` for any other.
    #[inline]
    pub fn answer(&self, exit: &VmExit) -> Option<Outcome> {
        match *exit {
            VmExit::Io { port, size, write } => {
                Some(self.access(Space::Pio, u64::from(port), size, write.map(u64::from)))
            }
            VmExit::Mmio { gpa, size, write } => Some(self.access(Space::Mmio, gpa.0, size, write)),
            _ => None,
        }
    }

    /// Does what devices wished. Call it with no lock held, also for the effects of work that no
    /// access started (a frame arrived, a timer ended).
    ///
    /// Work is done here and now; what it leaves to be done is deferred ([`Devices::work`]).
    pub fn apply(&self, effects: Effects) -> Option<Request> {
        self.apply_with(effects, |work| self.run(work))
    }

    /// Does a bounded part of the work that was deferred. Every vCPU calls it before it enters
    /// its guest, with no lock held; it costs one load where there is none.
    pub fn work(&self) -> Option<Request> {
        if !self.has_deferred.load(Ordering::Relaxed) {
            return None;
        }
        let mut deferred = self.deferred.lock();
        self.has_deferred.store(false, Ordering::Relaxed);
        let works = core::mem::take(&mut *deferred);
        drop(deferred);
        works.iter().fold(None, |request, work| self.run(work).or(request))
    }

    /// Whether work is deferred: a vCPU that would wait calls [`Devices::work`] again instead.
    pub fn has_work(&self) -> bool {
        self.has_deferred.load(Ordering::Relaxed)
    }

    /// Does work and what it wished, but for further work.
    fn run(&self, work: &WorkRef) -> Option<Request> {
        self.apply_with(work.run(), |more| {
            self.defer(more);
            None
        })
    }

    fn defer(&self, work: &WorkRef) {
        let mut deferred = self.deferred.lock();
        if !deferred.contains(work) {
            deferred.push(work.clone());
        }
        self.has_deferred.store(true, Ordering::Relaxed);
    }

    fn apply_with(
        &self,
        effects: Effects,
        work: impl Fn(&WorkRef) -> Option<Request>,
    ) -> Option<Request> {
        let mut request = None;
        effects.for_each(|effect| match effect {
            Effect::Raise(source) => self.lines.raise(source),
            Effect::Lower(source) => self.lines.lower(source),
            Effect::Msi(message) => self.lines.msi(message),
            Effect::Shutdown => request = Some(Request::Shutdown),
            Effect::Reset => request = request.or(Some(Request::Reset)),
            Effect::ChangeLayout(change) => {
                if self.change(change).is_err() {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            Effect::Work(wish) => request = work(&wish).or(request),
        });
        request
    }

    fn change(&self, change: LayoutChange) -> Result<(), BusError> {
        self.bus(change.space).place(&change.device, change.to)
    }

    fn bus(&self, space: Space) -> &Bus {
        match space {
            Space::Mmio => &self.mmio,
            Space::Pio => &self.pio,
        }
    }

    /// A backend reports 1 to 8 bytes. A width that no instruction of one access has (3, 5, 6, 7)
    /// is done byte by byte.
    fn access(&self, space: Space, address: u64, size: u8, write: Option<u64>) -> Outcome {
        let bus = self.bus(space);
        let mut effects = Effects::new();
        let entry = match Width::from_bytes(size) {
            Some(width) => one(bus, address, width, write, &mut effects),
            None => bytewise(bus, address, size.min(8), write, &mut effects),
        };
        // Most accesses wish nothing; then there is nothing to be dropped either.
        let request = if effects.is_empty() {
            core::mem::forget(effects);
            None
        } else {
            self.apply(effects)
        };
        Outcome { entry, request }
    }
}

#[inline(always)]
fn one(
    bus: &Bus,
    address: u64,
    width: Width,
    write: Option<u64>,
    effects: &mut Effects,
) -> Option<VmEntry> {
    match write {
        Some(value) => bus.write(address, width, value, effects).map(|()| VmEntry::Continue),
        None => bus.read(address, width, effects).map(VmEntry::Data),
    }
}

#[cold]
fn bytewise(
    bus: &Bus,
    address: u64,
    size: u8,
    write: Option<u64>,
    effects: &mut Effects,
) -> Option<VmEntry> {
    let mut data = 0;
    for i in 0..size {
        let address = address.checked_add(u64::from(i))?;
        let shift = u32::from(i) * 8;
        match write {
            Some(value) => bus.write(address, Width::Byte, value >> shift, effects)?,
            None => data |= bus.read(address, Width::Byte, effects)? << shift,
        }
    }
    Some(if write.is_some() { VmEntry::Continue } else { VmEntry::Data(data) })
}

#[cfg(test)]
mod tests {
    use super::super::Unclaimed;
    use super::super::Work;
    use super::super::{Access, Device, DeviceRef, InterruptSink, MsiMessage, SourceId, Trigger};
    use super::*;
    use crate::memory::Gpa;
    use alloc::sync::Arc;
    use proptest::prelude::*;

    /// Eight registers: 0 raises, 1 lowers, 2 shuts down, 3 resets, 4 moves itself to the value.
    struct Toy {
        source: SourceId,
        me: Option<DeviceRef>,
        registers: [u8; 8],
    }

    impl Device for Toy {
        fn name(&self) -> &str {
            "toy"
        }

        fn read(&mut self, access: Access, _: &mut Effects) -> u64 {
            let start = usize::try_from(access.offset).unwrap();
            let bytes = &self.registers[start..];
            bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }

        fn write(&mut self, access: Access, value: u64, effects: &mut Effects) {
            let start = usize::try_from(access.offset).unwrap();
            let bytes = &value.to_le_bytes()[..usize::try_from(access.width.bytes()).unwrap()];
            self.registers[start..start + bytes.len()].copy_from_slice(bytes);
            match (access.offset, &self.me) {
                (0, _) => effects.push(Effect::Raise(self.source)),
                (1, _) => effects.push(Effect::Lower(self.source)),
                (2, _) => effects.push(Effect::Shutdown),
                (3, _) => effects.push(Effect::Reset),
                (4, Some(me)) => {
                    let to = value..value.saturating_add(8);
                    effects.push(Effect::ChangeLayout(LayoutChange {
                        space: Space::Mmio,
                        device: me.clone(),
                        to: Some(to),
                    }));
                }
                _ => {}
            }
        }
    }

    #[derive(Default)]
    struct Log(Mutex<Vec<(u32, bool)>>);

    impl InterruptSink for Log {
        fn set_line(&self, line: u32, asserted: bool) {
            self.0.lock().push((line, asserted));
        }
        fn pulse(&self, _: u32) {}
        fn msi(&self, _: MsiMessage) {}
    }

    fn machine() -> (Devices, Arc<Log>) {
        let log = Arc::new(Log::default());
        let bus = || Bus::new(Unclaimed::Fault);
        let devices = Devices::new(bus(), bus(), Lines::new(log.clone()));
        let source = devices.lines.source(9, Trigger::Level);
        let range = 0x100..0x108;
        let toy = Arc::new(Mutex::new(Toy { source, me: None, registers: *b"abcdefgh" }));
        let me = DeviceRef::shared(toy.clone());
        toy.lock().me = Some(me.clone());
        devices.mmio.insert(range, me.clone()).unwrap();
        devices.pio.insert(0x100..0x108, me).unwrap();
        (devices, log)
    }

    fn write(gpa: u64, value: u64) -> VmExit {
        VmExit::Mmio { gpa: Gpa(gpa), size: 4, write: Some(value) }
    }

    #[test]
    fn effects_are_applied_when_the_locks_are_dropped() {
        let (devices, log) = machine();
        let done = Outcome { entry: Some(VmEntry::Continue), request: None };
        assert_eq!(devices.answer(&write(0x100, 1)), Some(done));
        assert_eq!(devices.answer(&write(0x101, 1)), Some(done));
        assert_eq!(*log.0.lock(), [(9, true), (9, false)]);
        let off = Outcome { request: Some(Request::Shutdown), ..done };
        assert_eq!(devices.answer(&write(0x102, 0)), Some(off));
        // The device moves itself, which needs the bus's lock for writing.
        assert_eq!(devices.answer(&write(0x104, 0x4000)), Some(done));
        assert_eq!(devices.answer(&write(0x104, 0)).unwrap().entry, None);
        assert_eq!(devices.answer(&write(0x4000, 0)), Some(done));
        assert_eq!(devices.refused_layouts(), 0);
    }

    /// Work that raises a line and has more work, which asks for a reset.
    struct Twice(SourceId, bool);

    impl Work for Twice {
        fn run(self: Arc<Self>) -> Effects {
            let mut effects = Effects::new();
            if self.1 {
                effects.push(Effect::Raise(self.0));
                effects.push(Effect::Work(WorkRef::new(Arc::new(Twice(self.0, false)))));
            } else {
                effects.push(Effect::Reset);
            }
            effects
        }
    }

    #[test]
    fn work_is_done_and_its_own_work_later() {
        let (devices, log) = machine();
        let mut effects = Effects::new();
        let source = devices.lines.source(5, Trigger::Level);
        effects.push(Effect::Work(WorkRef::new(Arc::new(Twice(source, true)))));
        assert_eq!(devices.apply(effects), None);
        assert_eq!(*log.0.lock(), [(5, true)]);
        assert_eq!(devices.work(), Some(Request::Reset));
        assert_eq!(devices.work(), None);
    }

    #[test]
    fn odd_widths_are_done_byte_by_byte() {
        let (devices, _) = machine();
        let read = |size| {
            let exit = VmExit::Mmio { gpa: Gpa(0x100), size, write: None };
            devices.answer(&exit).unwrap().entry
        };
        assert_eq!(read(3), Some(VmEntry::Data(0x63_62_61)));
        assert_eq!(read(8), Some(VmEntry::Data(u64::from_le_bytes(*b"abcdefgh"))));
        let port = VmExit::Io { port: 0x101, size: 2, write: None };
        assert_eq!(devices.answer(&port).unwrap().entry, Some(VmEntry::Data(0x6362)));
        assert_eq!(devices.answer(&VmExit::Halt), None);
    }

    proptest! {
        /// Whatever a guest reads and writes wherever: an answer, and the machine goes on.
        #[test]
        fn no_access_panics(
            accesses in prop::collection::vec(
                (any::<bool>(), prop_oneof![0xf8u64..0x110, any::<u64>()], any::<u8>(),
                 prop::option::of(prop_oneof![0xf0u64..0x118, any::<u64>()])),
                0..50,
            ),
        ) {
            let (devices, _) = machine();
            for (pio, address, size, write) in accesses {
                let exit = if pio {
                    let port = u16::try_from(address & 0xffff).unwrap();
                    let write = write.map(|value| u32::try_from(value & 0xffff_ffff).unwrap());
                    VmExit::Io { port, size, write }
                } else {
                    VmExit::Mmio { gpa: Gpa(address), size, write }
                };
                prop_assert!(devices.answer(&exit).is_some());
            }
        }
    }
}
