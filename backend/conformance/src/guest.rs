//! A guest of a few instructions: 64-bit mode, its first 4 MiB mapped where they are, 2 MiB of
//! memory, text at [`TEXT`] protected as a tender would.

#![allow(unsafe_code)]

use crate::{Host, Outcome};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use hypervisor::memory::{Gpa, GuestMemory, Perms};
use hypervisor::vcpu::*;

/// Bytes of memory.
pub const MEMORY: u64 = 0x20_0000;
/// What the VM is made after.
pub const SPEC: VmSpec = VmSpec { memory: MEMORY };
/// Where the code is: two pages.
pub const TEXT: u64 = 0x10_0000;
/// What RDI has.
pub const DATA: u64 = 0x11_0000;
/// An address without memory.
pub const DEVICE: u64 = MEMORY + 0x10;
const STACK: u64 = 0x18_0000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PD: u64 = 0x4000;

/// The symbol of a guest's code. A linker sees those of all crates: it has the crate's name in it.
#[doc(hidden)]
#[macro_export]
macro_rules! symbol {
    ($name:ident) => {
        concat!("guest_", env!("CARGO_CRATE_NAME"), "_", stringify!($name))
    };
}

/// Assembles a function that returns the bytes of its instructions.
#[macro_export]
macro_rules! code {
    ($name:ident: $($line:literal),+ $(,)?) => {
        core::arch::global_asm!(
            ".pushsection .rodata.guests, \"a\"",
            concat!(".globl ", $crate::symbol!($name)),
            concat!(".globl end_", $crate::symbol!($name)),
            concat!($crate::symbol!($name), ":"),
            $($line,)+
            concat!("end_", $crate::symbol!($name), ":"),
            ".popsection",
        );

        #[allow(unsafe_code)]
        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = $crate::symbol!($name)]
                static START: u8;
                #[link_name = concat!("end_", $crate::symbol!($name))]
                static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: the start and the end of one piece of read-only data.
            unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
        }
    };
}

struct Unused;

impl ExitHandler for Unused {
    fn handle(&self, _: VmExit, _: &GuestMemory) -> Answer {
        Answer::End(Ending::Interrupted)
    }
}

/// A handler for backends that answer no exit themselves.
pub fn unused() -> Arc<dyn ExitHandler> {
    Arc::new(Unused)
}

/// A VM and its vCPU.
pub struct Guest<V: BackendVm> {
    vcpu: V::Vcpu,
    vm: V,
    interrupted: fn(),
}

impl<V: BackendVm> Guest<V> {
    /// A guest with this code, for which memory was filled by `fill` before.
    ///
    /// # Errors
    /// The backend's.
    pub fn new<B: Backend<Vm = V>>(backend: &Host<B>, code: &[u8]) -> Result<Self, String> {
        Self::with(backend, code, |_| Ok(()))
    }

    /// The same, with more in its memory.
    ///
    /// # Errors
    /// The backend's.
    pub fn with<B: Backend<Vm = V>>(
        backend: &Host<B>,
        code: &[u8],
        fill: impl FnOnce(&GuestMemory) -> Outcome,
    ) -> Result<Self, String> {
        Self::load(backend.create_vm(SPEC).map_err(text)?, backend.interrupted, code, fill)
    }

    /// The same in a VM that exists already, made after [`SPEC`].
    ///
    /// # Errors
    /// The backend's.
    pub fn load(
        mut vm: V,
        interrupted: fn(),
        code: &[u8],
        fill: impl FnOnce(&GuestMemory) -> Outcome,
    ) -> Result<Self, String> {
        let memory = vm.memory();
        let put = |at, value: u64| memory.write_obj(Gpa(at), &value).map_err(text);
        put(PML4, PDPT | 3)?;
        put(PDPT, PD | 3)?;
        put(PD, 0x83)?;
        put(PD + 8, MEMORY | 0x83)?;
        memory.write_bytes(Gpa(TEXT), code).map_err(text)?;
        fill(memory)?;
        vm.protect(TEXT..TEXT + 0x2000, Perms::READ | Perms::EXEC).map_err(text)?;
        vm.protect(TEXT + 0x2000..TEXT + 0x3000, Perms::empty()).map_err(text)?;
        let vcpu = vm.create_vcpu(VcpuState::X86(state()), unused()).map_err(text)?;
        Ok(Self { vcpu, vm, interrupted })
    }

    /// The VM and the vCPU, for tests of one backend's own.
    pub fn into_parts(self) -> (V, V::Vcpu) {
        (self.vm, self.vcpu)
    }

    /// Its memory.
    pub fn memory(&self) -> &GuestMemory {
        self.vm.memory()
    }

    /// The next exit, with an answer to the last one. Interruptions by the host are nobody's
    /// business here.
    ///
    /// # Errors
    /// The backend's.
    pub fn answer(&mut self, mut entry: VmEntry) -> Result<VmExit, String> {
        loop {
            match self.vcpu.run(entry).map_err(text)? {
                VmExit::Interrupted => (self.interrupted)(),
                exit => return Ok(exit),
            }
            entry = VmEntry::Continue;
        }
    }

    /// The next exit has to be this one.
    ///
    /// # Errors
    /// If it is another.
    pub fn expect(&mut self, expected: VmExit) -> Outcome {
        self.expect_after(VmEntry::Continue, expected)
    }

    /// The same, after an answer.
    ///
    /// # Errors
    /// If it is another.
    pub fn expect_after(&mut self, entry: VmEntry, expected: VmExit) -> Outcome {
        let exit = self.answer(entry)?;
        same(&exit, &expected)
    }

    /// The next exit is a 4-byte write of this value to port 0x500: what the guest has found.
    ///
    /// # Errors
    /// If it is another.
    pub fn shows(&mut self, value: u32) -> Outcome {
        self.expect(out(0x500, 4, value))
    }
}

/// An error as text.
pub(crate) fn text(error: impl core::fmt::Display) -> String {
    format!("{error}")
}

/// Whether two things are the same.
pub(crate) fn same<T: PartialEq + core::fmt::Debug>(found: &T, expected: &T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{found:x?} came, not {expected:x?}")) }
}

/// A port write.
pub fn out(port: u16, size: u8, value: u32) -> VmExit {
    VmExit::Io { port, size, write: Some(value) }
}

/// 64-bit mode with SSE.
pub fn state() -> X86State {
    let segment = |selector, attributes| Segment { selector, base: 0, limit: !0, attributes };
    X86State {
        rip: TEXT,
        rsp: STACK,
        rdi: DATA,
        rflags: 2,
        cr0: 0x8001_0023,
        cr3: PML4,
        cr4: 0x620,
        efer: 0x500,
        cs: segment(8, 0xa9b),
        data: segment(16, 0xc93),
        tr: Segment { limit: 0, ..segment(0, 0x8b) },
        gdt: (0x1000, 23),
        ..X86State::default()
    }
}
