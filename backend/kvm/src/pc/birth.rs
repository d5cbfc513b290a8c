//! A vCPU as it was made, to put it back there at a reset of the machine.

use crate::error::refused;
use hypervisor::vcpu::BackendError;
use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::VcpuFd;

/// What a reset gives back beside what the new state names.
pub(super) struct Birth {
    lapic: kvm_lapic_state,
    run_state: kvm_mp_state,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    events: kvm_vcpu_events,
    debug: kvm_debugregs,
    msrs: Msrs,
}

/// Registers that a guest sets and that keep a value beyond a reset unless somebody resets them:
/// system calls, PAT, feature control, MTRRs, the TSC's adjustment and deadline, and KVM's own
/// (clock, steal time, end of interrupt, asynchronous faults).
const MSRS: &[u32] = &[
    0x3b,
    0x48,
    0xd90,
    0x174,
    0x175,
    0x176,
    0x1a0,
    0x277,
    0x2ff,
    0x6e0,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0102,
    0xc000_0103,
    0x11,
    0x12,
    0x4b56_4d00,
    0x4b56_4d01,
    0x4b56_4d02,
    0x4b56_4d03,
    0x4b56_4d04,
    0x4b56_4d05,
];

impl Birth {
    /// Notes a vCPU that has not run.
    pub(super) fn of(vcpu: &VcpuFd) -> Result<Self, BackendError> {
        Ok(Self {
            lapic: vcpu.get_lapic().map_err(refused("KVM_GET_LAPIC"))?,
            run_state: vcpu.get_mp_state().map_err(refused("KVM_GET_MP_STATE"))?,
            xsave: vcpu.get_xsave().map_err(refused("KVM_GET_XSAVE"))?,
            xcrs: vcpu.get_xcrs().map_err(refused("KVM_GET_XCRS"))?,
            events: vcpu.get_vcpu_events().map_err(refused("KVM_GET_VCPU_EVENTS"))?,
            debug: vcpu.get_debug_regs().map_err(refused("KVM_GET_DEBUGREGS"))?,
            msrs: known_msrs(vcpu)?,
        })
    }

    /// Puts a vCPU back.
    #[allow(unsafe_code)]
    pub(super) fn restore(&self, vcpu: &VcpuFd) -> Result<(), BackendError> {
        // SAFETY: the CPUID that this vCPU has gives it no state beyond these 4 KiB: dynamic
        // features (AMX) have to be asked for, and nobody does.
        unsafe { vcpu.set_xsave(&self.xsave) }.map_err(refused("KVM_SET_XSAVE"))?;
        vcpu.set_xcrs(&self.xcrs).map_err(refused("KVM_SET_XCRS"))?;
        vcpu.set_debug_regs(&self.debug).map_err(refused("KVM_SET_DEBUGREGS"))?;
        vcpu.set_msrs(&self.msrs).map_err(refused("KVM_SET_MSRS"))?;
        vcpu.set_lapic(&self.lapic).map_err(refused("KVM_SET_LAPIC"))?;
        vcpu.set_vcpu_events(&self.events).map_err(refused("KVM_SET_VCPU_EVENTS"))?;
        vcpu.set_mp_state(self.run_state).map_err(refused("KVM_SET_MP_STATE"))
    }
}

/// Those of [`MSRS`] that this KVM has, with their values.
fn known_msrs(vcpu: &VcpuFd) -> Result<Msrs, BackendError> {
    let entry = |&index| kvm_msr_entry { index, ..Default::default() };
    let too_many = |_| BackendError::new("too many model-specific registers");
    let mut known = Vec::new();
    for one in MSRS.iter().map(entry) {
        let mut asked = Msrs::from_entries(&[one]).map_err(too_many)?;
        if vcpu.get_msrs(&mut asked).is_ok_and(|count| count == 1) {
            known.extend_from_slice(asked.as_slice());
        }
    }
    Msrs::from_entries(&known).map_err(too_many)
}
