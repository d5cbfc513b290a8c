//! KVM's local APICs as the mode sees them.

use super::kick::Home;
use crate::machine::Machine;
use hypervisor::device::MsiMessage;
use hypervisor::vcpu::machine::LocalControllers;
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi, kvm_msi,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Pins of the mode's I/O APIC: what KVM reserves routes for.
pub(super) const PINS: u64 = 24;

/// The local APICs of one VM.
pub(super) struct Controllers {
    machine: Arc<Machine>,
    /// Where the first vCPU runs.
    first: Arc<Home>,
    /// The vectors whose ends are told now; also serializes changes.
    watched: Mutex<[u64; 4]>,
}

impl Controllers {
    pub(super) fn new(machine: Arc<Machine>, first: Arc<Home>) -> Self {
        Self { machine, first, watched: Mutex::new([0; 4]) }
    }
}

impl LocalControllers for Controllers {
    fn msi(&self, message: MsiMessage) {
        let [low, high] = [message.address, message.address >> 32];
        let half = |word: u64| u32::try_from(word & 0xffff_ffff).unwrap_or(0);
        let msi = kvm_msi {
            address_lo: half(low),
            address_hi: half(high),
            data: message.data,
            ..Default::default()
        };
        // A message that goes to no local APIC is lost, as on a bus: the guest chose it.
        let _ = self.machine.vm().signal_msi(msi);
    }

    /// The first vCPU comes out, for its owner to see what is to be done.
    fn set_external(&self, asserted: bool) {
        if asserted {
            self.first.kick();
        }
    }

    fn watch_ends(&self, vectors: [u64; 4]) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if *watched == vectors {
            return;
        }
        let entries: Vec<_> = routes(vectors).collect();
        let Ok(routing) = KvmIrqRouting::from_entries(&entries) else { return };
        // It fails only for lack of memory in the kernel; then the mode is told at the next try.
        if self.machine.vm().set_gsi_routing(&routing).is_ok() {
            *watched = vectors;
        }
    }
}

/// KVM tells the ends of those vectors that a route of an I/O APIC's pin delivers as level. Which
/// pin it is does not matter: nothing ever drives them. The destination is everybody.
fn routes(vectors: [u64; 4]) -> impl Iterator<Item = kvm_irq_routing_entry> {
    const TO_ALL: u32 = 0xfeef_f000;
    const LEVEL_ASSERT: u32 = 1 << 15 | 1 << 14;
    let set = move |vector: &u32| {
        let word = usize::try_from(vector / 64).unwrap_or(0);
        vectors[word] >> (vector % 64) & 1 != 0
    };
    let pins = (0..).take(usize::try_from(PINS).unwrap_or(0));
    pins.zip((0..256).filter(set)).map(|(gsi, vector)| kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi {
                address_lo: TO_ALL,
                data: vector | LEVEL_ASSERT,
                ..Default::default()
            },
        },
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_watched_vector_has_a_route_up_to_the_number_of_pins() {
        let of = |vectors| {
            let entries = routes(vectors);
            // SAFETY: `routes` fills this member.
            #[allow(unsafe_code)]
            let data = |e: kvm_irq_routing_entry| unsafe { (e.gsi, e.u.msi.data & 0xff) };
            entries.map(data).collect::<Vec<_>>()
        };
        assert_eq!(of([0; 4]), []);
        assert_eq!(of([1 << 49, 0, 1, 1 << 63]), [(0, 49), (1, 128), (2, 255)]);
        assert_eq!(of([u64::MAX; 4]).len(), 24);
    }
}
