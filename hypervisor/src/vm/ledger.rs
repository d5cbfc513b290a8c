//! What all VMs of a hypervisor use together, and what they may.

use super::{VmError, VmId};
use crate::sync::Mutex;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;

/// What all VMs together may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// VMs.
    pub vms: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// vCPUs.
    pub vcpus: u32,
}

impl Limits {
    /// None but those of the numbers themselves.
    pub const NONE: Self = Self { vms: u32::MAX, memory: u64::MAX, vcpus: u32::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

/// What all VMs together use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// VMs.
    pub vms: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// vCPUs.
    pub vcpus: u32,
}

#[derive(Debug, Default)]
struct Book {
    used: Usage,
    last: Option<VmId>,
    ids: BTreeSet<VmId>,
}

/// Hands out ids, counts, and refuses what is beyond the limits. One for all modes.
#[derive(Debug, Default)]
pub struct Ledger {
    limits: Limits,
    book: Mutex<Book>,
}

impl Ledger {
    /// An empty one.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, book: Mutex::default() })
    }

    /// What is in use.
    pub fn usage(&self) -> Usage {
        self.book.lock().used
    }

    /// What may be.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Enters a VM; it is struck out when the result is dropped.
    pub(super) fn enter(self: &Arc<Self>, memory: u64, vcpus: u32) -> Result<Entry, VmError> {
        let mut book = self.book.lock();
        let used = self.add(book.used, memory, vcpus)?;
        let mut id = book.last.map_or(VmId::FIRST, VmId::next);
        while book.ids.contains(&id) {
            id = id.next();
        }
        book.used = used;
        book.last = Some(id);
        book.ids.insert(id);
        Ok(Entry { ledger: self.clone(), id, memory, vcpus })
    }

    fn add(&self, used: Usage, memory: u64, vcpus: u32) -> Result<Usage, VmError> {
        let limits = self.limits;
        let vms = used.vms.checked_add(1).filter(|vms| *vms <= limits.vms);
        let bytes = used.memory.checked_add(memory).filter(|bytes| *bytes <= limits.memory);
        let cpus = used.vcpus.checked_add(vcpus).filter(|cpus| *cpus <= limits.vcpus);
        Ok(Usage {
            vms: vms.ok_or(VmError::TooManyVms(used.vms))?,
            memory: bytes.ok_or(VmError::TooMuchMemory {
                asked: memory,
                used: used.memory,
                limit: limits.memory,
            })?,
            vcpus: cpus.ok_or(VmError::TooManyVcpus {
                asked: vcpus,
                used: used.vcpus,
                limit: limits.vcpus,
            })?,
        })
    }

    #[cfg(test)]
    pub(super) fn pretend_last(&self, id: u32) {
        self.book.lock().last = VmId::new(id);
    }
}

/// A VM's line in the ledger.
#[derive(Debug)]
pub(super) struct Entry {
    ledger: Arc<Ledger>,
    pub(super) id: VmId,
    pub(super) memory: u64,
    pub(super) vcpus: u32,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut book = self.ledger.book.lock();
        book.ids.remove(&self.id);
        book.used.vms -= 1;
        book.used.memory -= self.memory;
        book.used.vcpus -= self.vcpus;
    }
}
