//! VM lifecycle, the same for every mode: ids, states, limits and accounting.
//!
//! Order: a [`Ledger`] for the whole hypervisor; one [`Vms`] per mode on it; then, for each VM,
//! [`Vms::create`], [`Vms::start`], [`Vms::stop`] (start and stop may repeat), [`Vms::destroy`].
//! What is legal when is [`State::allows`]. All of it may be called from several threads.
//!
//! Lock order: a registry's table, dropped; then one VM's life, dropped; the ledger is a leaf.

mod accounting;
mod id;
mod ledger;
mod registry;
mod state;

pub use accounting::{Accounts, Answered, CALLS, Cause, Exits, Snapshot};
pub use id::VmId;
pub use ledger::{Ledger, Limits, Usage};
pub use registry::{Vm, VmRequest, Vms};
pub use state::{State, Step};

use alloc::string::String;

/// Why something was not done with a VM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VmError {
    /// There is no such VM, or no longer.
    #[error("there is no VM {0}: it was destroyed or never created; list the VMs for their ids")]
    NoSuchVm(VmId),
    /// The VM's state forbids it.
    #[error("VM {id} is {state}, so it cannot {step}: {}", .state.advice())]
    WrongState {
        /// The VM.
        id: VmId,
        /// Its state.
        state: State,
        /// What was asked.
        step: Step,
    },
    /// No more VMs are allowed.
    #[error("{0} VMs exist, which is the limit: destroy one, or raise the limit")]
    TooManyVms(u32),
    /// No more memory is allowed.
    #[error(
        "{asked} bytes of memory are asked for, {used} of {limit} are in use: ask for less, destroy a VM, or raise the limit"
    )]
    TooMuchMemory {
        /// Asked for, in bytes.
        asked: u64,
        /// In use by all VMs.
        used: u64,
        /// Allowed for all VMs.
        limit: u64,
    },
    /// No more vCPUs are allowed.
    #[error(
        "{asked} vCPUs are asked for, {used} of {limit} are in use: ask for fewer, destroy a VM, or raise the limit"
    )]
    TooManyVcpus {
        /// Asked for.
        asked: u32,
        /// In use by all VMs.
        used: u32,
        /// Allowed for all VMs.
        limit: u32,
    },
    /// The mode could not build it; its words.
    #[error("{0}")]
    Build(String),
}
