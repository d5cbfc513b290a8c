//! Exit codes become [`Reason`]s: AMD APM vol. 2, appendix C and the sections it names.

use super::vmcb::{Control, Save, Vmcb, exit};
use crate::x86_64::memory::Access;
use crate::x86_64::vendor::{Injection, Port, Reason};
use alloc::format;
use hypervisor::vcpu::BackendError;

/// EXITINFO1 of IOIO (§15.10.2).
const IOIO_IN: u64 = 1 << 0;
const IOIO_STRING: u64 = 1 << 2;
/// EXITINFO1 of a nested page fault (§15.25.6).
const NPF_WRITE: u64 = 1 << 1;
const NPF_EXECUTE: u64 = 1 << 4;
const NPF_WALK: u64 = 1 << 33;

/// Why the guest was left.
#[inline(always)]
pub(super) fn reason(control: &Control, save: &Save) -> Reason {
    let (info1, info2) = (control.exitinfo1, control.exitinfo2);
    match control.exitcode {
        exit::IOIO => Reason::Port(Port {
            port: u16::try_from(info1 >> 16 & 0xffff).unwrap_or(0),
            size: (info1 >> 4 & 7).to_le_bytes()[0],
            input: info1 & IOIO_IN != 0,
            string: info1 & IOIO_STRING != 0,
            next: Some(info2),
        }),
        exit::INTR | exit::NMI | exit::SMI | exit::INIT => Reason::Host,
        exit::MSR if info1 & 1 != 0 => Reason::WriteMsr,
        exit::MSR => Reason::ReadMsr,
        exit::NPF => {
            let access = match info1 {
                i if i & NPF_EXECUTE != 0 => Access::Execute,
                i if i & NPF_WRITE != 0 => Access::Write,
                _ => Access::Read,
            };
            Reason::Memory { gpa: info2, access, walk: info1 & NPF_WALK != 0 }
        }
        exit::HLT => Reason::Halt,
        exit::CPUID => Reason::Cpuid,
        exit::VMMCALL => Reason::Hypercall,
        exit::VINTR => Reason::Window,
        exit::IRET => Reason::NmiEnd,
        exit::CR4_WRITE => Reason::WriteCr4,
        exit::CR8_WRITE => Reason::WriteCr8,
        exit::DR_FIRST..=exit::DR_LAST => Reason::DebugRegisters,
        exit::EXCEPTION_DB => Reason::Exception(Injection::DB),
        exit::EXCEPTION_AC => Reason::Exception(Injection::with_code(17, 0)),
        exit::EXCEPTION_MC => Reason::MachineCheck,
        exit::XSETBV => Reason::WriteXcr,
        exit::INVD | exit::WBINVD | exit::PAUSE => Reason::Skip,
        exit::RDPMC => Reason::Counter,
        exit::RSM
        | exit::INVLPGA
        | exit::VMRUN
        | exit::VMLOAD..=exit::SKINIT
        | exit::MONITOR..=exit::MWAIT_CONDITIONAL
        | exit::RDPRU => Reason::Undefined,
        exit::SHUTDOWN => Reason::Shutdown,
        exit::INVALID => Reason::Invalid,
        // The processor was not ready (encrypted guests); the guest has not run.
        exit::BUSY => Reason::Host,
        code => {
            let _ = save;
            Reason::Other(code)
        }
    }
}

/// The same for a person, where nobody can go on.
pub(super) fn describe(reason: Reason, vmcb: &Vmcb) -> BackendError {
    let (control, save) = (&vmcb.control, &vmcb.save);
    let place = format!(
        "rip={:#x}, cs={:#x}, cr0={:#x}, cr3={:#x}, cr4={:#x}, efer={:#x}",
        save.rip, save.cs.selector, save.cr0, save.cr3, save.cr4, save.efer
    );
    BackendError::new(match reason {
        Reason::Invalid => format!("SVM: the processor refuses the guest's state ({place})"),
        Reason::MachineCheck => {
            format!("the machine reported a hardware error (#MC) while a guest ran ({place})")
        }
        _ => format!(
            "SVM: unexpected exit {:#x} (exitinfo1={:#x}, exitinfo2={:#x}, {place}); please report it",
            control.exitcode, control.exitinfo1, control.exitinfo2
        ),
    })
}
