//! The privileged part of an x86_64 CPU, in software: what traps when ring-0 code runs in ring 3.
//!
//! Everything else of a guest's code runs on the real CPU. When an instruction faults, [`step`]
//! decodes that one instruction (Intel SDM vol. 2, AMD APM vol. 3) and carries it out on [`Regs`]
//! and [`Cpu`]; [`exception::deliver`] enters the guest's own handler through its IDT as the CPU
//! would (Intel SDM vol. 3 §6.14). Nothing here allocates or trusts the guest: every table and
//! stack access goes through `GuestMemory`, whose addresses are the guest's virtual addresses too,
//! because HVT guests are mapped one to one.

mod cpu;
mod decode;
pub mod exception;
mod execute;

pub use cpu::{Cpu, Regs, Vector};
pub use decode::{Insn, MAX_LEN, Op, decode};
pub use execute::{Step, step};

#[cfg(test)]
mod tests;
