//! Disks and networks in the machine's PCI slots.
//!
//! Order: for each network a [`NetLink`] is made and given to the host, which gives its port; once
//! there is a board with PCI, [`Slots::disk`] and [`Slots::net`] fill slots from 1 on, and
//! [`Slots::finish`] gives their BARs addresses where no firmware does.

use super::board::Board;
use super::host::Arrival;
use super::layout::PCI_WINDOW;
use super::pci::{self, Interrupts, interrupt_line};
use crate::device::Trigger;
use crate::host::{BlockStore, NetPort, Notices, Told};
use crate::memory::GuestMemory;
use crate::modes::virtio::blk::{Blk, NAME};
use crate::modes::virtio::net::{Net, RECEIVE};
use crate::modes::virtio::pci::function;
use crate::modes::virtio::{Transport, VirtioDevice};
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};

/// Slots of bus 0 that devices may have: 0 is the host bridge, 31 the LPC bridge.
const LAST: u8 = 30;

/// No slot is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {LAST} disks and networks: remove some of them")]
pub struct SlotsFull;

/// Fills the slots of one machine.
pub struct Slots<'a> {
    board: &'a Arc<Board>,
    pci: &'a pci::Machine,
    memory: Arc<GuestMemory>,
    notices: Arc<dyn Notices>,
    next: u8,
    disks: u8,
}

impl<'a> Slots<'a> {
    /// All slots between the bridges are free. Devices reach the guest's `memory`, which has to
    /// outlive the board; what a person should know of them goes to `notices`.
    pub fn new(
        board: &'a Arc<Board>,
        pci: &'a pci::Machine,
        memory: &GuestMemory,
        notices: Arc<dyn Notices>,
    ) -> Self {
        Self { board, pci, memory: Arc::new(memory.clone()), notices, next: 1, disks: 0 }
    }

    /// A disk in the next slot.
    ///
    /// # Errors
    /// [`SlotsFull`].
    pub fn disk(&mut self, store: Box<dyn BlockStore>, read_only: bool) -> Result<(), SlotsFull> {
        let mut name = [0; NAME];
        let text = format!("disk{}", self.disks);
        name[..text.len()].copy_from_slice(text.as_bytes());
        let store = Box::new(Told::new(store, self.place("disk"), self.notices.clone()));
        self.fill(Arc::new(Blk::new(store, read_only, name)), "disk")?;
        self.disks += 1;
        Ok(())
    }

    /// A network in the next slot. `link` is what the host tells of frames.
    ///
    /// # Errors
    /// [`SlotsFull`].
    pub fn net(&mut self, port: Box<dyn NetPort>, link: &NetLink) -> Result<(), SlotsFull> {
        let port = Box::new(Told::new(port, self.place("network"), self.notices.clone()));
        let transport = self.fill(Arc::new(Net::new(port)), "network")?;
        *link.0.lock() = Some(End { board: Arc::downgrade(self.board), transport });
        Ok(())
    }

    /// Gives the BARs addresses, where no `firmware` will.
    pub fn finish(self, firmware: bool) {
        if !firmware {
            self.pci.bus.assign(PCI_WINDOW);
        }
    }

    /// Where the guest will find the next device, in its own tools' words.
    fn place(&self, what: &str) -> String {
        format!("{what} at PCI 00:{:02x}.0", self.next)
    }

    fn fill(
        &mut self,
        device: Arc<dyn VirtioDevice>,
        what: &str,
    ) -> Result<Arc<Transport>, SlotsFull> {
        if self.next > LAST {
            return Err(SlotsFull);
        }
        let (slot, place) = (self.next, self.place(what));
        self.next += 1;
        let pin = self.board.devices.lines.source(interrupt_line(slot, 0), Trigger::Level);
        // One vector for each queue and one for changes.
        let queues = u16::try_from(device.queue_sizes().len()).unwrap_or(u16::MAX);
        let vectors = queues.saturating_add(1);
        let interrupts = Interrupts::new(u32::from(slot) << 3, Some(pin), vectors);
        let (function, transport) = function(device, self.memory.clone(), Arc::new(interrupts));
        transport.report_to(&place, self.notices.clone());
        self.pci.bus.insert(slot, function);
        Ok(transport)
    }
}

struct End {
    board: Weak<Board>,
    transport: Arc<Transport>,
}

/// What a host tells of frames that have arrived.
#[derive(Default)]
pub struct NetLink(Mutex<Option<End>>);

impl NetLink {
    /// Nobody is told: what arrives stays in the port until the guest gives it room.
    pub fn disconnect(&self) {
        *self.0.lock() = None;
    }
}

impl Arrival for NetLink {
    fn arrived(&self) {
        // The lock is not held while the device works: it may take long.
        let end = self.0.lock().as_ref().map(|end| (end.board.clone(), end.transport.clone()));
        let Some((Some(board), transport)) = end.map(|(board, t)| (board.upgrade(), t)) else {
            return;
        };
        board.apply(transport.poll(RECEIVE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{InterruptSink, MsiMessage};
    use crate::host::{Clock, HostError};
    use crate::memory::{Gpa, GuestSlice};
    use crate::modes::type1::board::Power;
    use crate::vcpu::{VmEntry, VmExit};

    struct Nothing;

    impl InterruptSink for Nothing {
        fn set_line(&self, _: u32, _: bool) {}
        fn pulse(&self, _: u32) {}
        fn msi(&self, _: MsiMessage) {}
    }

    impl Clock for Nothing {
        fn wall_ns(&self) -> u64 {
            0
        }
        fn monotonic_ns(&self) -> u64 {
            0
        }
    }

    impl Notices for Nothing {
        fn notice(&self, _: core::fmt::Arguments<'_>) {}
    }

    impl BlockStore for Nothing {
        fn capacity(&self) -> u64 {
            1 << 20
        }
        fn read_at(&self, _: u64, _: GuestSlice<'_>) -> Result<(), HostError> {
            Ok(())
        }
        fn write_at(&self, _: u64, _: GuestSlice<'_>) -> Result<(), HostError> {
            Ok(())
        }
        fn flush(&self) -> Result<(), HostError> {
            Ok(())
        }
    }

    impl NetPort for Nothing {
        fn mac(&self) -> [u8; 6] {
            [2, 0, 0, 0, 0, 1]
        }
        fn mtu(&self) -> u16 {
            1500
        }
        fn send(&self, _: GuestSlice<'_>) -> Result<(), HostError> {
            Ok(())
        }
        fn receive(&self, _: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
            Ok(None)
        }
    }

    fn board() -> (Arc<Board>, pci::Machine) {
        let power = Arc::new(Power::new());
        let board = Board::new(Arc::new(Nothing), Arc::new(Nothing), power);
        let pci = pci::attach(&board.devices, false).unwrap();
        (Arc::new(board), pci)
    }

    /// What a guest reads in the first register of a slot's first BAR, once it answers.
    fn behind_bar(board: &Board, pci: &pci::Machine, slot: u8) -> (u64, u64) {
        let function = pci.bus.function(slot << 3).unwrap();
        let mut effects = crate::device::Effects::new();
        let width = crate::device::Width::Long;
        function.lock().write(4, width, 2, &mut effects);
        let address = function.lock().read(0x10, width, &mut effects);
        board.apply(effects);
        let exit = VmExit::Mmio { gpa: Gpa(address + 0x2000), size: 4, write: None };
        match board.devices.answer(&exit).unwrap().entry {
            Some(VmEntry::Data(data)) => (address, data),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn devices_come_in_order_and_have_addresses() {
        let (board, pci) = board();
        let link = NetLink::default();
        let memory = GuestMemory::new();
        let mut slots = Slots::new(&board, &pci, &memory, Arc::new(Nothing));
        slots.disk(Box::new(Nothing), false).unwrap();
        slots.net(Box::new(Nothing), &link).unwrap();
        slots.finish(false);
        let (disk, net) = (behind_bar(&board, &pci, 1), behind_bar(&board, &pci, 2));
        assert!(PCI_WINDOW.contains(&disk.0) && PCI_WINDOW.contains(&net.0) && disk.0 != net.0);
        // The disk's sectors; the network's address.
        assert_eq!((disk.1, net.1), (2048, 2));
        assert!(pci.bus.function(3 << 3).is_none());
        // Nobody drives it yet: what arrives waits, with and without a board.
        link.arrived();
        link.disconnect();
        link.arrived();
    }

    #[test]
    fn there_are_thirty_slots() {
        let (board, pci) = board();
        let memory = GuestMemory::new();
        let mut slots = Slots::new(&board, &pci, &memory, Arc::new(Nothing));
        for _ in 0..LAST {
            slots.disk(Box::new(Nothing), true).unwrap();
        }
        assert_eq!(slots.disk(Box::new(Nothing), true), Err(SlotsFull));
        assert_eq!(slots.net(Box::new(Nothing), &NetLink::default()), Err(SlotsFull));
    }
}
