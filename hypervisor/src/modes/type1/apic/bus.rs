//! Who is meant by an interrupt message (Intel SDM vol. 3 §11.6.2).

use super::inbox::{Identity, Inbox, Requests};
use super::message::{Delivery, Destination, Interrupt};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

/// The local APICs of a machine. An APIC's ID is the number of its vCPU.
pub struct ApicBus {
    inboxes: Vec<Arc<Inbox>>,
    /// Where the search for the next receiver of lowest priority begins: each in turn.
    turn: AtomicU32,
}

impl ApicBus {
    /// All APICs, by number.
    pub fn new(inboxes: Vec<Arc<Inbox>>) -> Self {
        Self { inboxes, turn: AtomicU32::new(0) }
    }

    /// The vCPUs' inboxes, by number.
    pub fn inboxes(&self) -> &[Arc<Inbox>] {
        &self.inboxes
    }

    fn get(&self, id: u32) -> Option<&Arc<Inbox>> {
        self.inboxes.get(usize::try_from(id).ok()?)
    }

    /// Delivers an interrupt. What names nobody vanishes.
    pub fn deliver(&self, interrupt: &Interrupt) {
        match interrupt.destination {
            Destination::Physical(id) => {
                if let Some(inbox) = self.get(id) {
                    give(inbox, interrupt);
                }
            }
            _ if interrupt.delivery == Delivery::Lowest => self.lowest(interrupt),
            _ => self.members(interrupt.destination, |inbox| give(inbox, interrupt)),
        }
    }

    /// Gives it to one of those that are named and enabled.
    fn lowest(&self, interrupt: &Interrupt) {
        let mut enabled = 0;
        let mut count = |inbox: &Inbox| enabled += u32::from(inbox.identity().enabled);
        self.members(interrupt.destination, &mut count);
        if enabled == 0 {
            return;
        }
        let mut skip = self.turn.fetch_add(1, Ordering::Relaxed) % enabled;
        self.members(interrupt.destination, |inbox| {
            if inbox.identity().enabled {
                if skip == 0 {
                    give(inbox, interrupt);
                }
                skip = skip.wrapping_sub(1);
            }
        });
    }

    /// Calls `with` each that is named.
    fn members(&self, destination: Destination, mut with: impl FnMut(&Inbox)) {
        match destination {
            Destination::Physical(id) => self.get(id).into_iter().for_each(|inbox| with(inbox)),
            Destination::All => self.inboxes.iter().for_each(|inbox| with(inbox)),
            Destination::Others(id) => {
                let me = usize::try_from(id).unwrap_or(usize::MAX);
                let others = self.inboxes.iter().enumerate().filter(|(index, _)| *index != me);
                others.for_each(|(_, inbox)| with(inbox));
            }
            Destination::Logical { mask, wide } => {
                let named =
                    self.inboxes.iter().filter(|inbox| is_named(inbox.identity(), mask, wide));
                named.for_each(|inbox| with(inbox));
            }
        }
    }
}

/// Whether a logical destination names an APIC (§11.6.2.2, §11.12.10.2).
fn is_named(identity: Identity, mask: u32, wide: bool) -> bool {
    let Identity { logical, cluster, wide: is_wide, .. } = identity;
    if is_wide {
        return logical >> 16 == mask >> 16 && logical & mask & 0xffff != 0;
    }
    // An xAPIC sees the low 8 bits of an x2APIC's message, and no more may be set.
    if wide && mask > 0xff {
        return mask == u32::MAX;
    }
    if !cluster || mask == 0xff {
        return logical & mask & 0xff != 0 || (mask == 0xff && cluster);
    }
    logical >> 4 == mask >> 4 && logical & mask & 0xf != 0
}

fn give(inbox: &Inbox, interrupt: &Interrupt) {
    let vector = interrupt.vector;
    match interrupt.delivery {
        Delivery::Fixed | Delivery::Lowest => {
            // Vectors below 16 are illegal (§11.5.2); an APIC that is off takes none.
            if vector >= 16 && inbox.identity().enabled {
                inbox.post(vector, interrupt.level);
            }
        }
        Delivery::Nmi => inbox.ask(Requests::NMI),
        Delivery::Init => inbox.ask(Requests::INIT),
        Delivery::Startup => inbox.start_up(vector),
        // The 8259 pair's line is looked at by the first vCPU in any case.
        Delivery::External => inbox.ask(Requests::LOOK),
        Delivery::Smi | Delivery::Reserved => {}
    }
}
