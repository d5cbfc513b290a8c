//! At which frequency a PC's TSC runs (KVM API §4.55 and §4.56: `KVM_SET_TSC_KHZ`,
//! `KVM_GET_TSC_KHZ`).
//!
//! It is set for the VM, before there is a vCPU: every vCPU is then made with it, and with the
//! counters of all in step. Set for one vCPU after the other, KVM would start each of them anew.

#![allow(unsafe_code)]

use crate::arch;
use hypervisor::vcpu::BackendError;
use hypervisor::vcpu::machine::tsc::{HostTsc, Rate};
use kvm_bindings::{KVM_CAP_TSC_CONTROL, KVM_CAP_VM_TSC_CONTROL};
use kvm_ioctls::{VcpuFd, VmFd};
use std::ffi::c_ulong;
use std::io::Error;
use std::os::fd::AsRawFd;

/// Both take and give their number directly.
const SET_TSC_KHZ: c_ulong = 0xaea2;
const GET_TSC_KHZ: c_ulong = 0xaea3;

/// Why a frequency cannot be had that the processor could give.
const OLD: &str =
    "this Linux's KVM scales it only for single vCPUs (KVM_CAP_VM_TSC_CONTROL: a newer Linux)";

/// What is to be done for a guest's frequency.
pub(super) struct Tsc {
    asked: Option<u32>,
    /// KVM scales on this host, for a whole VM.
    scales: bool,
    /// It does, but only for one vCPU after the other.
    old: bool,
}

impl Tsc {
    /// Sets the frequency of all vCPUs to come, where it is another than the host's and KVM scales.
    pub(super) fn set(vm: &VmFd, asked: Option<u32>) -> Result<Self, BackendError> {
        let Some(khz) = asked else { return Ok(Self { asked, scales: false, old: false }) };
        let has = |cap: u32| vm.check_extension_raw(cap.into()) > 0;
        let scales = has(KVM_CAP_VM_TSC_CONTROL);
        if scales {
            let refused = |e| BackendError::new(format!("KVM: KVM_GET_TSC_KHZ failed: {e}"));
            let host = HostTsc { hz: call(vm, GET_TSC_KHZ, 0).map_err(refused)? * 1000, scales };
            if let Rate::Scaled(khz) = host.rate(Some(khz))? {
                let refused = |e: Error| host.refusal(khz, &format!("KVM says: {e}"));
                call(vm, SET_TSC_KHZ, khz).map_err(refused)?;
            }
        }
        Ok(Self { asked, scales, old: !scales && has(KVM_CAP_TSC_CONTROL) })
    }

    /// The frequency of this vCPU in Hz, the first.
    ///
    /// # Errors
    /// If it is the host's, and that is not near what is asked for.
    pub(super) fn of(&self, vcpu: &VcpuFd) -> Result<u64, BackendError> {
        let hz = arch::cycle_frequency(vcpu)?;
        let host = HostTsc { hz, scales: self.scales };
        match (host.rate(self.asked), self.asked) {
            (Err(_), Some(khz)) if self.old => Err(host.refusal(khz, OLD)),
            (rate, _) => rate.map(|_| hz),
        }
    }
}

fn call(vm: &VmFd, number: c_ulong, argument: u32) -> Result<u64, Error> {
    // SAFETY: the descriptor is a VM's and open; neither call has a pointer.
    let done = unsafe { libc::ioctl(vm.as_raw_fd(), number, c_ulong::from(argument)) };
    u64::try_from(done).map_err(|_| Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::KVMIO;

    #[test]
    fn numbers_are_the_kernels() {
        let number = |of: c_ulong| c_ulong::from(KVMIO) << 8 | of;
        assert_eq!([SET_TSC_KHZ, GET_TSC_KHZ], [number(0xa2), number(0xa3)]);
    }
}
