//! The system calls of the proposal (`query_modes`, `vm_create`, …): their numbers, structures and
//! dispatcher.
//!
//! A kernel that offers them copies the caller's input to its own memory, calls [`dispatch`] with
//! it, and copies the output back. [`dispatch`] takes nothing on trust: lengths, reserved fields,
//! numbers and texts are checked one by one before [`Calls`] sees a value, and what is refused is
//! named. All structures are little-endian in memory and have no padding.
//!
//! | number | call | arguments | input | output | result |
//! |---|---|---|---|---|---|
//! | 0 | query_modes | | | | [`ModeFlags`] |
//! | 1 | vm_create | | [`RawVmConfig`] and what follows it | | VM |
//! | 2 | vm_start | VM | | | 0 |
//! | 3 | vm_stop | VM | | | 0 |
//! | 4 | vm_destroy | VM | | | 0 |
//! | 5 | vm_info | VM | | [`RawVmInfo`] | 0 |
//! | 6 | vcpu_create | VM, index | | | vCPU |
//! | 7 | vcpu_run | VM, vCPU | | [`RawExit`] | 0 |
//! | 8 | map_memory | VM, first address, end | [`RawPerms`] | | 0 |
//! | 9 | inject_interrupt | VM, vCPU, vector | | | 0 |

mod abi;
mod calls;
mod config;
mod error;
#[cfg(test)]
mod tests;

pub use abi::{
    ModeFlags, RawEntry, RawExit, RawModeConfig, RawPerms, RawVmConfig, RawVmInfo, mode_number,
};
pub use calls::{Calls, Images, Syscalls};
pub use config::{decode, encode};
pub use error::{CallError, errno};

use crate::config::VcpuConfig;
use crate::memory::Perms;
use crate::mode::{MemoryRegion, VcpuId};
use crate::vm::VmId;
use zerocopy::{FromBytes, IntoBytes};

/// The calls, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Call {
    /// Which modes have a backend.
    QueryModes = 0,
    /// Make a VM.
    VmCreate = 1,
    /// Let it run.
    VmStart = 2,
    /// Let it run no more.
    VmStop = 3,
    /// Give it back.
    VmDestroy = 4,
    /// What is known of it.
    VmInfo = 5,
    /// Make a vCPU.
    VcpuCreate = 6,
    /// Run it until the guest ends or is stopped.
    VcpuRun = 7,
    /// Add memory.
    MapMemory = 8,
    /// Inject an interrupt.
    InjectInterrupt = 9,
}

impl Call {
    /// Every call, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::QueryModes,
        Self::VmCreate,
        Self::VmStart,
        Self::VmStop,
        Self::VmDestroy,
        Self::VmInfo,
        Self::VcpuCreate,
        Self::VcpuRun,
        Self::MapMemory,
        Self::InjectInterrupt,
    ];

    /// How many of the three arguments it has. The others must be 0.
    const fn arguments(self) -> usize {
        match self {
            Self::QueryModes | Self::VmCreate => 0,
            Self::VmStart | Self::VmStop | Self::VmDestroy | Self::VmInfo => 1,
            Self::VcpuCreate | Self::VcpuRun => 2,
            Self::MapMemory | Self::InjectInterrupt => 3,
        }
    }
}

/// Answers one system call. `input` and `output` are the kernel's copies.
///
/// # Errors
/// [`CallError`]; then nothing was written to `output`, and nothing was done.
pub fn dispatch(
    calls: &impl Calls,
    number: u32,
    arguments: [u64; 3],
    input: &[u8],
    output: &mut [u8],
) -> Result<u64, CallError> {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    let call = *Call::ALL.get(index).ok_or(CallError::NoSuchCall(number))?;
    check(call, arguments, input, output)?;
    let [first, second, third] = arguments;
    match call {
        Call::QueryModes => return Ok(calls.query_modes().bits().into()),
        Call::VmCreate => return Ok(calls.vm_create(decode(input)?)?.get().into()),
        Call::VmStart => calls.vm_start(vm(first)?)?,
        Call::VmStop => calls.vm_stop(vm(first)?)?,
        Call::VmDestroy => calls.vm_destroy(vm(first)?)?,
        Call::VmInfo => put(output, &RawVmInfo::from(&calls.vm_info(vm(first)?)?))?,
        Call::VcpuCreate => {
            let config = VcpuConfig { index: narrow("index", second)? };
            return Ok(calls.vcpu_create(vm(first)?, config)?.0.into());
        }
        Call::VcpuRun => {
            let exit = calls.vcpu_run(vm(first)?, VcpuId(narrow("vCPU", second)?))?;
            put(output, &RawExit::from(&exit))?;
        }
        Call::MapMemory => {
            let region = MemoryRegion { range: range(second, third)?, perms: perms(input)? };
            calls.map_memory(vm(first)?, region)?;
        }
        Call::InjectInterrupt => {
            let vcpu = VcpuId(narrow("vCPU", second)?);
            calls.inject_interrupt(vm(first)?, vcpu, narrow("vector", third)?)?;
        }
    }
    Ok(0)
}

/// Arguments that a call does not have are 0, and both buffers as long as it needs.
fn check(call: Call, args: [u64; 3], input: &[u8], output: &[u8]) -> Result<(), CallError> {
    if args[call.arguments()..].iter().any(|argument| *argument != 0) {
        return Err(CallError::Reserved("argument"));
    }
    let wanted = match call {
        Call::VmCreate => None,
        Call::MapMemory => Some(size_of::<RawPerms>()),
        _ => Some(0),
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != input.len()) {
        return Err(CallError::Input { found: input.len(), wanted });
    }
    let wanted = match call {
        Call::VmInfo => size_of::<RawVmInfo>(),
        Call::VcpuRun => size_of::<RawExit>(),
        _ => 0,
    };
    if output.len() < wanted {
        return Err(CallError::Output { found: output.len(), wanted });
    }
    Ok(())
}

fn vm(argument: u64) -> Result<VmId, CallError> {
    VmId::new(narrow("VM", argument)?).ok_or(CallError::Value { field: "VM", value: 0 })
}

fn narrow(field: &'static str, value: u64) -> Result<u32, CallError> {
    u32::try_from(value).map_err(|_| CallError::Value { field, value })
}

fn range(start: u64, end: u64) -> Result<core::ops::Range<u64>, CallError> {
    for (field, value) in [("first address", start), ("end", end)] {
        if !value.is_multiple_of(crate::config::PAGE_SIZE) {
            return Err(CallError::Value { field, value });
        }
    }
    if start >= end {
        return Err(CallError::Value { field: "end", value: end });
    }
    Ok(start..end)
}

fn perms(input: &[u8]) -> Result<Perms, CallError> {
    let wanted = size_of::<RawPerms>();
    let raw = RawPerms::read_from_bytes(input)
        .map_err(|_| CallError::Input { found: input.len(), wanted })?;
    let wrong = || CallError::Value { field: "permissions", value: raw.bits.into() };
    let bits = u8::try_from(raw.bits).map_err(|_| wrong())?;
    Perms::from_bits(bits).ok_or_else(wrong)
}

fn put<T: IntoBytes + zerocopy::Immutable>(output: &mut [u8], value: &T) -> Result<(), CallError> {
    let found = output.len();
    let wrong = |_| CallError::Output { found, wanted: size_of::<T>() };
    value.write_to_prefix(output).map_err(wrong)
}
