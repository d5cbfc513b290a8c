//! x86_64: what SVM and VMX share, once, and each of them in a folder of its own.

mod cpu;
mod cpuid;
mod decode;
mod emulate;
#[cfg(test)]
mod fake;
mod memory;
mod msr;
mod native;
mod processor;
mod regs;
mod space;
mod svm;
mod tsc;
mod vcpu;
mod vendor;
mod vm;

pub use cpu::release;
pub use memory::tables_below_root;
pub use native::{Native, NativeVcpu, NativeVm};
