//! KVM's refusals, in words for a person.

use hypervisor::vcpu::BackendError;
use kvm_ioctls::Error;
use rustix::io::Errno;

/// "`what`: what the system said".
pub(crate) fn refused(what: &str) -> impl Fn(Error) -> BackendError + '_ {
    move |error| BackendError::new(format!("KVM: {what} failed: {error}"))
}

/// The error's number, as rustix names it.
pub(crate) fn errno(error: &Error) -> Errno {
    Errno::from_raw_os_error(error.errno())
}

/// Whether a call was refused by a system call filter around this process, or is not there at
/// all: what is optional is then done without.
pub(crate) fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::PERM | Errno::NOTTY)
}
