//! What of KVM is x86_64's: registers, CPUID, the probe, the debug registers.

mod debug;
mod probe;
mod state;

pub(crate) use debug::DebugState;
pub use probe::host_can_virtualize;
pub(crate) use probe::probe;
pub(crate) use state::{
    cycle_frequency, is_in_64_bit_code, is_reset, queue_exception, reset_fpu, set_cpuid,
    set_features, set_machine_state, set_state, supported_cpuid,
};
