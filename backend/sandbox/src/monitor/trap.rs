//! What a trap of the guest means, and what follows from it.

use super::Monitor;
use crate::emulate::exception::{TripleFault, deliver};
use crate::emulate::{Regs, Step, Vector, step};
use crate::layout::{GUEST_BASE, LOWEST, STUBS};
use hypervisor::memory::{Gpa, Gva};
use hypervisor::vcpu::{Ending, VmEntry, VmExit, line};

/// A trap as the kernel reports it.
#[derive(Debug, Clone, Copy)]
pub enum Trap {
    /// An exception of the CPU.
    Exception {
        /// Vector.
        number: u8,
        /// Error code, where the vector has one.
        error: u32,
        /// CR2, for page faults.
        address: u64,
    },
    /// A system call that the filter turned back; RIP is after the instruction.
    SystemCall,
}

const DB: u8 = 1;
const GP: u8 = 13;
const PF: u8 = 14;
/// Page-fault error code: write access.
const PF_WRITE: u32 = 2;
/// Page-fault error code: instruction fetch.
const PF_FETCH: u32 = 16;

impl Monitor {
    /// Handles one trap; on return the guest goes on with `regs`.
    pub(super) fn trap(&mut self, trap: Trap, regs: &mut Regs) {
        match trap {
            Trap::SystemCall => self.system_call(regs),
            Trap::Exception { number: PF, error, address } => self.page_fault(error, address, regs),
            // A rewritten hypercall site is one instruction to a guest that steps through itself.
            Trap::Exception { number: DB, .. } if self.is_call_code(regs.rip) => {}
            _ if !self.is_guest_code(regs.rip) => self.end(&Ending::Fault(line(format_args!(
                "the guest left its memory: rip={:#x}",
                regs.rip
            )))),
            Trap::Exception { number: GP, .. } => self.privileged(regs),
            Trap::Exception { number, error, .. } => {
                self.raise(Vector::hardware(number, error), regs);
            }
        }
    }

    /// The guest has jumped to code of another mode, which a process can and an HVT guest cannot.
    pub(super) fn left_long_mode(&self, rip: u64) -> ! {
        self.end(&Ending::Fault(line(format_args!("the guest left 64-bit mode: rip={rip:#x}"))))
    }

    /// The way from a hypercall site to the monitor and back.
    fn is_call_code(&self, rip: u64) -> bool {
        STUBS.contains(&rip) || !self.is_guest_code(rip)
    }

    fn is_guest_code(&self, rip: u64) -> bool {
        self.memory.perms_at(Gpa(rip)).is_some()
    }

    fn raise(&mut self, vector: Vector, regs: &mut Regs) {
        if deliver(vector, &mut self.cpu, regs, &self.memory) == Err(TripleFault) {
            self.answer(VmExit::Shutdown { rip: Some(Gva(regs.rip)) });
        }
    }

    /// A fault inside of what the guest's page tables map is not the guest's to handle: its
    /// image forbids the access, as second-level paging would on hardware.
    fn page_fault(&mut self, error: u32, address: u64, regs: &mut Regs) {
        let fetch = error & PF_FETCH != 0;
        if !fetch && !self.is_guest_code(regs.rip) {
            let text = format_args!("the guest left its memory: rip={:#x}", regs.rip);
            self.end(&Ending::Fault(line(text)));
        }
        let end = self.memory.end().0;
        let own_memory = (GUEST_BASE..end).contains(&address);
        let boot_page = (LOWEST..GUEST_BASE).contains(&address);
        if own_memory || (boot_page && error & PF_WRITE == 0) {
            let (rip, address) = (Gva(regs.rip), Some(Gpa(address)));
            self.answer(VmExit::MemoryFault { rip, address });
            return;
        }
        self.cpu.cr2 = address;
        self.raise(Vector::hardware(PF, error), regs);
    }

    fn privileged(&mut self, regs: &mut Regs) {
        let at = regs.rip;
        match step(&mut self.cpu, regs, &self.memory) {
            Step::Done => {}
            Step::Raise(vector) => self.raise(vector, regs),
            Step::Io { port, size, write } => {
                let entry = self.answer(VmExit::Io { port, size, write });
                if let (None, VmEntry::Data(value)) = (write, entry) {
                    regs.set_port_answer(size, value);
                }
                if write.is_some() && size == 4 {
                    self.patcher.trapped(&self.memory, at, port);
                }
            }
            Step::Halt => {
                self.answer(VmExit::Halt);
            }
            Step::Unsupported(name) => self.end(&Ending::Fault(line(format_args!(
                "the sandbox backend does not do {name} (rip={at:#x}): use --backend=kvm"
            )))),
        }
    }

    /// The guest executed one of the instructions with which a process enters its kernel.
    fn system_call(&mut self, regs: &mut Regs) {
        const INT_80: [u8; 2] = [0xcd, 0x80];
        const SYSENTER: [u8; 2] = [0x0f, 0x34];
        let Some(at) = regs.rip.checked_sub(2).filter(|&at| self.is_guest_code(at)) else {
            let text = format_args!("the guest left its memory: rip={:#x}", regs.rip);
            self.end(&Ending::Fault(line(text)));
        };
        let mut code = [0; 2];
        let _ = self.memory.read_bytes(Gpa(at), &mut code);
        let vector = match code {
            INT_80 => Vector { number: 0x80, error: None },
            SYSENTER => Vector::gp(0),
            _ => Vector::UD,
        };
        if vector.number != 0x80 {
            regs.rip = at;
        }
        self.raise(vector, regs);
    }
}
