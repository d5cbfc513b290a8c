//! Network ring I/O, the host's side (Solo5 v0.12.1 `include/hvt_ring.h`).
//!
//! Two rings in guest memory: submissions, which the guest produces, and commits, which the host
//! produces. The host keeps its own indices here and only publishes them: a guest can overwrite
//! what is published, and then misleads no one but itself. Indices run freely and wrap at 2^32.
//!
//! A ring is served by one caller at a time: in place at each doorbell ([`Ring::process`]), or by
//! one thread ([`Ring::serve`]).

use super::hypercall::{receive, send};
use super::reach::Reach;
use super::service::Resources;
use super::solo5_abi::result;
use super::solo5_abi::ring::{self as abi, Commit, Entry};
use super::stats::Stats;
use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::vcpu::Doorbell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

/// How often an idle [`Ring::serve`] looks for work before it sleeps.
const SPINS: u32 = 4096;

/// A lie of the guest's, which ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The guest's tail ran backwards, or further ahead than the ring is long.
    #[error("network ring: the guest's tail {tail} is not within {} of the head {head}", abi::SIZE)]
    Tail {
        /// What the guest says.
        tail: u32,
        /// How far the host has come.
        head: u32,
    },
    /// A submission's buffer, or the ring, is not the guest's to use.
    #[error("network ring: {0}")]
    Memory(#[from] MemoryError),
}

/// One guest's ring.
pub struct Ring {
    base: Gpa,
    /// Submissions consumed so far: the truth, of which the guest sees a copy.
    ent_head: AtomicU32,
    /// Commits produced so far.
    com_tail: AtomicU32,
    stop: AtomicBool,
}

impl Ring {
    /// A ring of [`abi::BYTES`] zeroed bytes at `base`, which is 64-byte aligned. Buffers are
    /// below it.
    pub const fn new(base: Gpa) -> Self {
        Self {
            base,
            ent_head: AtomicU32::new(0),
            com_tail: AtomicU32::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Asks the guest for a doorbell with each submission, before it runs: for a ring that is
    /// served in place.
    ///
    /// # Errors
    /// If the ring is not in guest memory.
    pub fn always_kick(&self, memory: &GuestMemory) -> Result<(), MemoryError> {
        memory.store_u32(self.at(abi::NEEDS_KICK), 1, Ordering::Release)
    }

    fn at(&self, offset: u64) -> Gpa {
        Gpa(self.base.0.wrapping_add(offset))
    }

    /// Serves all submissions that are there now; says whether there were any.
    ///
    /// # Errors
    /// [`RingError`] ends the guest.
    pub fn process(
        &self,
        memory: &GuestMemory,
        host: &Resources,
        stats: Option<&Stats>,
    ) -> Result<bool, RingError> {
        let tail = memory.load_u32(self.at(abi::ENT_TAIL), Ordering::Acquire)?;
        let head = self.ent_head.load(Ordering::Relaxed);
        let pending = tail.wrapping_sub(head);
        if pending > abi::SIZE {
            return Err(RingError::Tail { tail, head });
        }
        for i in 0..pending {
            let index = head.wrapping_add(i);
            self.serve_one(index, memory, host, stats)?;
            self.ent_head.store(index.wrapping_add(1), Ordering::Relaxed);
            self.publish(abi::ENT_HEAD, index.wrapping_add(1), memory)?;
        }
        Ok(pending > 0)
    }

    fn publish(&self, offset: u64, value: u32, memory: &GuestMemory) -> Result<(), MemoryError> {
        memory.store_u32(self.at(offset), value, Ordering::Release)
    }

    fn serve_one(
        &self,
        index: u32,
        memory: &GuestMemory,
        host: &Resources,
        stats: Option<&Stats>,
    ) -> Result<(), MemoryError> {
        let slot = u64::from(index % abi::SIZE);
        let entry: Entry =
            memory.read_obj(self.at(abi::ENTRIES + slot * size_of::<Entry>() as u64))?;
        let len = u64::from(entry.len);
        // What the guest is told of ends where the ring begins.
        let reach = Reach::below(self.base.0, memory);
        let bytes = match entry.operation {
            abi::NET_WRITE => {
                // Nobody waits for the outcome: the ABI has no commit for it.
                send(host, entry.handle.into(), entry.data, len, reach)?;
                len
            }
            abi::NET_READ => {
                let (ret, len) = receive(host, entry.handle.into(), entry.data, len, reach)?;
                self.commit(entry.id, ret, len, memory)?;
                len
            }
            _ => return Ok(()),
        };
        if let Some(stats) = stats {
            let write = entry.operation == abi::NET_WRITE;
            let counter = if write { &stats.ring_writes } else { &stats.ring_reads };
            counter.fetch_add(1, Ordering::Relaxed);
            stats.ring_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn commit(&self, id: u32, ret: i32, len: u64, memory: &GuestMemory) -> Result<(), MemoryError> {
        // A port that is gone is EINVAL on the ring, as upstream: its guests know no other.
        let ret = if ret == result::EUNSPEC { result::EINVAL } else { ret };
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let tail = self.com_tail.load(Ordering::Relaxed);
        let slot = u64::from(tail % abi::SIZE);
        let commit = Commit { id, ret, len, reserved: 0 };
        memory.write_obj(self.at(abi::COMMITS + slot * size_of::<Commit>() as u64), &commit)?;
        self.com_tail.store(tail.wrapping_add(1), Ordering::Relaxed);
        self.publish(abi::COM_TAIL, tail.wrapping_add(1), memory)
    }

    /// Serves the ring from a thread until [`Ring::stop`]: spins while there is work, sleeps at
    /// the doorbell while there is none.
    ///
    /// # Errors
    /// As [`Ring::process`].
    pub fn serve(
        &self,
        bell: &dyn Doorbell,
        memory: &GuestMemory,
        host: &Resources,
        stats: Option<&Stats>,
    ) -> Result<(), RingError> {
        let mut idle = 0;
        while !self.stop.load(Ordering::Acquire) {
            if self.process(memory, host, stats)? {
                idle = 0;
            } else if idle < SPINS {
                idle += 1;
                core::hint::spin_loop();
            } else {
                idle = 0;
                if !self.sleep(bell, memory)? {
                    break;
                }
            }
        }
        // What a guest submitted before its end is sent: nobody told it that it was not.
        self.process(memory, host, stats).map(drop)
    }

    /// Sleeps unless the guest has submitted something since the last look. The fence orders
    /// "store mine, load theirs" against the same two steps in the guest.
    fn sleep(&self, bell: &dyn Doorbell, memory: &GuestMemory) -> Result<bool, MemoryError> {
        self.publish(abi::NEEDS_KICK, 1, memory)?;
        fence(Ordering::SeqCst);
        let tail = memory.load_u32(self.at(abi::ENT_TAIL), Ordering::Acquire)?;
        let more = tail == self.ent_head.load(Ordering::Relaxed);
        let rung = !more || bell.wait();
        self.publish(abi::NEEDS_KICK, 0, memory)?;
        Ok(rung)
    }

    /// Ends [`Ring::serve`].
    pub fn stop(&self, bell: &dyn Doorbell) {
        self.stop.store(true, Ordering::Release);
        bell.ring();
    }
}

#[cfg(test)]
mod tests;
