//! Guests that only whole machines can run: interrupts, model-specific registers, other modes.
//!
//! Where the backend has the local interrupt controllers itself, events are not injected, and
//! those cases are left out.

mod events;
mod fixture;
mod modes;
mod registers;

use crate::{Host, Outcome};
pub(crate) use fixture::Pc;
use hypervisor::vcpu::machine::{MachineBackend, MachineVm};

/// Runs every case, tells each one's outcome, and whether all went well.
pub fn run<B: MachineBackend>(
    backend: &Host<B>,
    tell: &mut dyn FnMut(&'static str, &Outcome),
) -> bool {
    let good = crate::all(backend, &registers::cases::<B>(), tell)
        & crate::all(backend, &modes::cases::<B>(), tell);
    match Pc::new(backend, fixture::nothing()) {
        Ok(pc) if pc.vm.local_controllers().is_some() => good,
        Ok(_) => good & crate::all(backend, &events::cases::<B>(), tell),
        Err(error) => {
            tell("a machine is made", &Err(error));
            false
        }
    }
}
