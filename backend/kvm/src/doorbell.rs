//! Doorbells by `KVM_IOEVENTFD`: a port write that becomes an event without leaving the kernel.

#![allow(unsafe_code)]

use crate::error::is_absent;
use hypervisor::vcpu::{BackendError, Doorbell};
use kvm_bindings::{kvm_ioeventfd, kvm_ioeventfd_flag_nr_pio};
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::ioctl::{Setter, opcode};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

const KVM_IOEVENTFD: rustix::ioctl::Opcode = opcode::write::<kvm_ioeventfd>(0xae, 0x79);

struct Bell {
    event: OwnedFd,
}

/// Makes every 4-byte write to `port` of the VM `vm` ring a bell. `None` where this process may
/// not make one.
///
/// The value is not compared: Solo5's tender does not either, although the ABI's ring 0 is the
/// only one that there is.
pub(crate) fn ring_on_write(
    vm: BorrowedFd<'_>,
    port: u16,
) -> Result<Option<Arc<dyn Doorbell>>, BackendError> {
    let event = match rustix::event::eventfd(0, EventfdFlags::CLOEXEC) {
        Ok(event) => event,
        Err(errno) if is_absent(errno) => return Ok(None),
        Err(errno) => return Err(refused("eventfd", errno)),
    };
    let request = kvm_ioeventfd {
        addr: u64::from(port),
        len: 4,
        fd: event.as_raw_fd(),
        flags: 1 << kvm_ioeventfd_flag_nr_pio,
        ..Default::default()
    };
    // SAFETY: the opcode is KVM_IOEVENTFD's, which reads one `kvm_ioeventfd`, and `vm` is a VM.
    // kvm-ioctls' own wrapper cannot ask for a length without a value to compare.
    match unsafe { rustix::ioctl::ioctl(vm, Setter::<KVM_IOEVENTFD, _>::new(request)) } {
        Ok(()) => Ok(Some(Arc::new(Bell { event }))),
        Err(errno) if is_absent(errno) => Ok(None),
        Err(errno) => Err(refused("KVM_IOEVENTFD", errno)),
    }
}

fn refused(what: &str, errno: Errno) -> BackendError {
    BackendError::new(format!("KVM: {what} for a doorbell failed: {errno}: try --no-net-ring"))
}

impl Doorbell for Bell {
    fn wait(&self) -> bool {
        let mut count = [0u8; 8];
        loop {
            match rustix::io::read(self.event.as_fd(), &mut count) {
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn ring(&self) {
        // It fails only where the counter is full, and then the bell rings anyway.
        let _ = rustix::io::write(self.event.as_fd(), &1u64.to_ne_bytes());
    }

    fn descriptor(&self) -> Option<i32> {
        Some(self.event.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rings_are_one_wake_up() {
        let event = rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let bell = Bell { event };
        assert!(!bell.wait(), "nothing has rung, and this event does not block");
        bell.ring();
        bell.ring();
        assert!(bell.wait());
        assert!(!bell.wait());
    }

    #[test]
    fn the_request_has_the_kernels_number() {
        assert_eq!(KVM_IOEVENTFD, 0x4040_ae79);
    }
}
