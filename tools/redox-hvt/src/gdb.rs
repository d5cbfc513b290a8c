//! `--gdb`: a run that a debugger controls.
//!
//! Order: [`open`] before the guest is made, [`wait`] before the tender confines itself, [`run`]
//! in place of the plain run.

use crate::events::Events;
use crate::tell;
use host_linux::gdb::{GdbLink, GdbPort, Place, SIGNAL};
use host_linux::signals;
use hypervisor::debug::DebugVcpu;
use hypervisor::debug::gdb::{Done, serve};
use hypervisor::modes::hvt::tender::Guest;
use hypervisor::vcpu::{BackendError, BackendVm, Ending};
use std::mem::ManuallyDrop;

/// Opens the place at which the debugger calls.
///
/// # Errors
/// In words for a person.
pub fn open(place: &Place) -> Result<GdbPort, String> {
    signals::install(&[SIGNAL]);
    GdbPort::open(place).map_err(|e| match place {
        Place::Port(port) => {
            format!("--gdb: cannot listen on 127.0.0.1 port {port}: {e}; try another --gdb-port")
        }
        Place::Path(path) => {
            format!("--gdb: cannot listen on {}: {e}; try another path", path.display())
        }
    })
}

/// Takes the guest to its first instruction and waits for a debugger. `None` if a signal ends the
/// wait.
///
/// # Errors
/// In words for a person.
pub fn wait<V: BackendVm>(
    port: GdbPort,
    guest: &mut Guest<V>,
    events: &Events,
) -> Result<Option<GdbLink>, String>
where
    V::Vcpu: DebugVcpu,
{
    guest.vcpu.attach().map_err(|e| e.to_string())?;
    tell::warn("Waiting for a debugger. Connect to it like this:");
    let from = match port.place() {
        Place::Port(_) => "127.0.0.1".to_owned(),
        place => place.to_string(),
    };
    tell::warn(format_args!("\tgdb --ex=\"target remote {}\" KERNEL", port.place()));
    let link = port.accept(events).map_err(|e| format!("--gdb: accept failed: {e}"))?;
    if link.is_some() {
        tell::warn(format_args!("Connection from debugger at {from}"));
    }
    Ok(link)
}

/// Runs the guest as the debugger says, and to its end where that leaves. `None` if nobody lets
/// it end.
///
/// # Errors
/// If the backend fails.
pub fn run<V: BackendVm>(
    link: GdbLink,
    guest: &mut Guest<V>,
) -> Result<Option<Ending>, BackendError>
where
    V::Vcpu: DebugVcpu,
{
    // Where the tender ends, the kernel closes it, and sends what is still to be sent.
    let mut link = ManuallyDrop::new(link);
    match serve(&mut guest.vcpu, &*guest.service, guest.vm.memory(), &mut *link)? {
        Done::Ended(ending) => return Ok(Some(ending)),
        Done::Detached => tell::warn("Debugger detached"),
        Done::Killed => {
            tell::warn("Debugger asked us to quit");
            return Ok(None);
        }
        Done::Lost { running: false } => {
            tell::warn("GDB: Exiting as we could not receive the next command from the debugger.");
            return Ok(None);
        }
        Done::Lost { running: true } => {
            tell::warn("GDB: the debugger is gone; the guest runs on without it");
        }
    }
    ManuallyDrop::into_inner(link).close();
    guest.run().map(Some)
}
