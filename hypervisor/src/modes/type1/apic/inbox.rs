//! How everybody else reaches a vCPU: its pending interrupts and requests, and its thread.
//!
//! The owner's loop, and only its thread: [`Inbox::take`], decide what to do; then
//! [`Inbox::enter`], which fails if anything has arrived meanwhile; run or park;
//! [`Inbox::leave`]; again. A sender leaves its request first and looks second whether the owner
//! is inside; if so it kicks. Both sides write before they read, in one total order (`SeqCst`), so
//! one of the two always sees the other: no request is ever left lying while its vCPU sleeps.
//! `model` in this module's tests tries all interleavings.

use super::vectors::Vectors;
use crate::modes::type1::host::VcpuThread;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{self, SeqCst};

#[cfg(not(test))]
use core::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(test)]
use model::{AtomicU32, AtomicU64};

bitflags::bitflags! {
    /// What a vCPU is asked for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Requests: u32 {
        /// Vectors were posted.
        const VECTORS = 1;
        /// A non-maskable interrupt.
        const NMI = 2;
        /// INIT.
        const INIT = 4;
        /// Start-up; the vector is in bits 8 to 15 of the same word.
        const STARTUP = 8;
        /// Look around: the 8259's line, the machine's power, the board's timers.
        const LOOK = 16;
        /// Wake up from a halt, now or the next one (a lock has been released).
        const UNHALT = 32;
        /// Another non-maskable interrupt: a processor that runs would have taken one of the two.
        const NMI_AGAIN = 64;
    }
}

const OUTSIDE: u32 = 0;
const INSIDE: u32 = 1;

/// What others must know of a local APIC to find out whether it is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// The logical destination register: 8 bits of an xAPIC's, or all of an x2APIC's.
    pub logical: u32,
    /// The cluster model (DFR 0) of an xAPIC.
    pub cluster: bool,
    /// It is an x2APIC.
    pub wide: bool,
    /// It takes fixed interrupts: it is enabled by APIC_BASE and by its spurious vector register.
    pub enabled: bool,
}

/// A vCPU as everybody else sees it.
pub struct Inbox {
    /// Vectors that have arrived.
    posted: [AtomicU64; 4],
    /// Which of them are level-triggered; meaningful where `posted` has the vector.
    level: [AtomicU64; 4],
    /// [`Requests`], and the start-up vector.
    requests: AtomicU32,
    /// Whether the owner runs its guest or parks, or is about to.
    whereabouts: AtomicU32,
    /// [`Identity`], packed.
    identity: AtomicU64,
    thread: Arc<dyn VcpuThread>,
}

impl Inbox {
    /// An empty one for the vCPU of this thread.
    pub fn new(thread: Arc<dyn VcpuThread>) -> Self {
        Self {
            posted: Default::default(),
            level: Default::default(),
            requests: AtomicU32::default(),
            whereabouts: AtomicU32::new(OUTSIDE),
            identity: AtomicU64::default(),
            thread,
        }
    }

    /// The vCPU's thread.
    pub fn thread(&self) -> &dyn VcpuThread {
        &*self.thread
    }

    /// Posts a vector.
    pub fn post(&self, vector: u8, level: bool) {
        let (word, bit) = (usize::from(vector >> 6), 1 << (vector & 63));
        if level {
            self.level[word].fetch_or(bit, SeqCst);
        } else if self.level[word].load(SeqCst) & bit != 0 {
            self.level[word].fetch_and(!bit, SeqCst);
        }
        self.posted[word].fetch_or(bit, SeqCst);
        self.ask(Requests::VECTORS);
    }

    /// Asks for something other than a start-up.
    pub fn ask(&self, request: Requests) {
        if request.contains(Requests::INIT) {
            // A start-up that came before is void.
            self.requests.fetch_and(!(Requests::STARTUP.bits() | 0xff00), SeqCst);
        }
        let before = self.requests.fetch_or(request.bits(), SeqCst);
        self.notify(before);
        if request.bits() & before & Requests::NMI.bits() != 0 {
            self.ask(Requests::NMI_AGAIN);
        }
    }

    /// Asks for a start-up. The first one counts.
    pub fn start_up(&self, vector: u8) {
        let startup = Requests::STARTUP.bits();
        let word = startup | u32::from(vector) << 8;
        let mut before = self.requests.load(SeqCst);
        while before & startup == 0 {
            match self.requests.compare_exchange(before, before | word, SeqCst, SeqCst) {
                Ok(_) => return self.notify(before),
                Err(found) => before = found,
            }
        }
    }

    /// Whoever made the word non-zero kicks; a request beside others is found with them.
    fn notify(&self, before: u32) {
        if before == 0 && self.whereabouts.load(SeqCst) == INSIDE {
            self.thread.kick();
        }
    }

    /// Owner: whether nothing has arrived.
    pub fn is_quiet(&self) -> bool {
        self.requests.load(SeqCst) == 0
    }

    /// Owner, outside: takes what has arrived; gives the start-up vector with it.
    pub fn take(&self) -> (Requests, u8) {
        if self.requests.load(SeqCst) == 0 {
            return (Requests::empty(), 0);
        }
        let word = self.requests.swap(0, SeqCst);
        let [_, vector, ..] = word.to_le_bytes();
        (Requests::from_bits_truncate(word), vector)
    }

    /// How many non-maskable interrupts these requests are.
    pub fn nmis(requests: Requests) -> u32 {
        (requests & (Requests::NMI | Requests::NMI_AGAIN)).bits().count_ones()
    }

    /// Owner: takes the posted vectors: those that have arrived, and which of them are
    /// level-triggered.
    pub fn take_vectors(&self) -> (Vectors, Vectors) {
        let (mut posted, mut level) = (Vectors::default(), Vectors::default());
        for word in 0..4 {
            if self.posted[word].load(SeqCst) != 0 {
                posted.0[word] = self.posted[word].swap(0, SeqCst);
                level.0[word] = self.level[word].load(SeqCst) & posted.0[word];
            }
        }
        (posted, level)
    }

    /// Owner: about to run or to park. `false`: it must not, something has arrived.
    #[must_use]
    pub fn enter(&self) -> bool {
        self.whereabouts.swap(INSIDE, SeqCst);
        if self.requests.load(SeqCst) == 0 {
            return true;
        }
        self.leave();
        false
    }

    /// Owner: neither runs nor parks any more. The order of this one does not matter: who sees it
    /// late kicks for nothing.
    pub fn leave(&self) {
        self.whereabouts.store(OUTSIDE, Ordering::Release);
    }

    /// Forgets everything that has arrived, at a reset of the machine, for which its owner waits.
    pub fn clear(&self) {
        let _ = self.take();
        self.clear_vectors();
    }

    /// Owner: forgets the vectors that have arrived, as INIT and reset do.
    pub fn clear_vectors(&self) {
        let _ = self.take_vectors();
    }

    /// Owner: tells the others who it is.
    pub fn publish(&self, identity: Identity) {
        let bit = |flag: bool, at: u32| u64::from(flag) << at;
        let packed = u64::from(identity.logical)
            | bit(identity.cluster, 32)
            | bit(identity.wide, 33)
            | bit(identity.enabled, 34);
        self.identity.store(packed, SeqCst);
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        let packed = self.identity.load(SeqCst);
        let bit = |at: u32| packed >> at & 1 != 0;
        Identity {
            logical: u32::try_from(packed & 0xffff_ffff).unwrap_or(0),
            cluster: bit(32),
            wide: bit(33),
            enabled: bit(34),
        }
    }
}

#[cfg(test)]
mod model;
