//! A guest's access to a device: the exit that tells of it, and the way of the answer. The same for
//! the vCPU of a unikernel and for a PC's.

use crate::run_page::{self, Pio, Reason};
use hypervisor::memory::Gpa;
use hypervisor::vcpu::{VmEntry, VmExit};
use kvm_bindings::kvm_run;

/// What was told and has to be settled before the guest may go on.
pub(crate) enum Access {
    /// This element of a port access.
    Io(Pio),
    /// A read of device memory.
    Mmio,
}

/// An exit, and what it leaves open.
pub(crate) type Told = (VmExit, Option<Access>);

impl Access {
    /// What to tell, if `KVM_RUN` came back for an access; otherwise the reason, for others.
    pub(crate) fn begin(run: &mut kvm_run, reason: Reason) -> Result<Told, Reason> {
        Ok(match reason {
            Reason::Io(io) => port(run, io),
            Reason::MmioRead { gpa, size } => {
                (VmExit::Mmio { gpa: Gpa(gpa), size, write: None }, Some(Self::Mmio))
            }
            Reason::MmioWrite { gpa, size, value } => {
                (VmExit::Mmio { gpa: Gpa(gpa), size, write: Some(value) }, None)
            }
            other => return Err(other),
        })
    }

    /// Gives the guest its answer. Something if that tells of the next element.
    pub(crate) fn settle(self, run: &mut kvm_run, value: u64) -> Option<Told> {
        match self {
            Self::Io(io) => {
                if !io.write {
                    run_page::answer_port(run, &io, value);
                }
                io.next().map(|next| port(run, next))
            }
            Self::Mmio => {
                run_page::answer_mmio(run, value);
                None
            }
        }
    }
}

/// The value that an entry answers with: 0 where it has none.
pub(crate) fn answer(entry: VmEntry) -> u64 {
    match entry {
        VmEntry::Data(value) => value,
        VmEntry::Continue | VmEntry::Refuse => 0,
    }
}

fn port(run: &mut kvm_run, io: Pio) -> Told {
    let open = (!io.write || io.left > 1).then_some(Access::Io(io));
    let write = io.write.then(|| run_page::port_value(run, &io));
    (VmExit::Io { port: io.port, size: io.size, write }, open)
}
