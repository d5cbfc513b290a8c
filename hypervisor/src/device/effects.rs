//! What a device wants done once its lock and the bus's are dropped.

use super::bus::{DeviceRef, Space};
use super::interrupt::{MsiMessage, SourceId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::fmt;
use core::ops::Range;

/// One wish.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Assert an interrupt source; of an edge-triggered one: one edge.
    Raise(SourceId),
    /// Deassert it.
    Lower(SourceId),
    /// Send a message-signalled interrupt.
    Msi(MsiMessage),
    /// The guest turned itself off.
    Shutdown,
    /// The guest asked to be reset.
    Reset,
    /// Move, show or hide a device.
    ChangeLayout(LayoutChange),
    /// Do what may take long or block, such as a host's input and output.
    Work(WorkRef),
}

/// A device's range changes (a guest moved a PCI BAR, or turned its decoding on or off).
#[derive(Debug, Clone)]
pub struct LayoutChange {
    /// Which bus.
    pub space: Space,
    /// The device. It leaves every range that it has on that bus.
    pub device: DeviceRef,
    /// The range that it shall have, if it is to be shown.
    pub to: Option<Range<u64>>,
}

/// What a device does when no lock is held, because it calls a host that may block.
///
/// Several threads may call [`Work::run`] at once, and one may call it while another is in it: it
/// returns at once then, and the other does what there is to do.
pub trait Work: Send + Sync {
    /// Does what there is to do, or a bounded part of it, and returns what follows of it: itself
    /// too, if there is more to do.
    fn run(self: Arc<Self>) -> Effects;
}

/// Work as an effect carries it.
#[derive(Clone)]
pub struct WorkRef(Arc<dyn Work>);

impl WorkRef {
    /// Takes work.
    pub fn new(work: Arc<dyn Work>) -> Self {
        Self(work)
    }

    /// [`Work::run`].
    pub fn run(&self) -> Effects {
        self.0.clone().run()
    }
}

impl PartialEq for WorkRef {
    /// Whether it is the same work.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for WorkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkRef({:p})", Arc::as_ptr(&self.0))
    }
}

/// The wishes of one access, in order. The first few need no allocation.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    few: ArrayVec<Effect, 4>,
    more: Vec<Effect>,
}

impl Effects {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a wish after the others.
    pub fn push(&mut self, effect: Effect) {
        if let Err(full) = self.few.try_push(effect) {
            self.more.push(full.element());
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.few.is_empty()
    }

    /// Calls `with` each, in order, where they lie.
    pub fn for_each(mut self, mut with: impl FnMut(Effect)) {
        self.few.drain(..).for_each(&mut with);
        self.more.drain(..).for_each(&mut with);
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = core::iter::Chain<arrayvec::IntoIter<Effect, 4>, alloc::vec::IntoIter<Effect>>;

    fn into_iter(self) -> Self::IntoIter {
        self.few.into_iter().chain(self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_beyond_the_first_few() {
        let mut effects = Effects::new();
        assert!(effects.is_empty());
        for address in 0..10 {
            effects.push(Effect::Msi(MsiMessage { device: 0, address, data: 0 }));
        }
        let addresses: Vec<u64> = effects
            .into_iter()
            .map(|effect| match effect {
                Effect::Msi(message) => message.address,
                _ => u64::MAX,
            })
            .collect();
        assert_eq!(addresses, (0..10).collect::<Vec<_>>());
    }
}
