//! In place of the world switch, for tests: what a processor would do at VMRUN, by a script.

#![allow(unsafe_code)]

use super::vmcb::{Vmcb, exit};
use crate::x86_64::regs::Gprs;
use core::cell::RefCell;
use std::boxed::Box;
use std::thread_local;

/// A guest's run: it reads and writes the VMCB as a processor does.
type Run = Box<dyn FnMut(&mut Vmcb)>;

thread_local! {
    static RUN: RefCell<Option<Run>> = RefCell::default();
}

/// From now on this happens at each entry of this thread; then a host interrupt ends the run.
pub(crate) fn at_entry(run: impl FnMut(&mut Vmcb) + 'static) {
    RUN.set(Some(Box::new(run)));
}

/// As the real one.
///
/// # Safety
/// As for the real one; on [`crate::testing::Board`], where addresses are the host's.
pub(super) unsafe fn enter(vmcb: u64, _: &mut Gprs, _: u64) {
    let at = core::ptr::with_exposed_provenance_mut::<Vmcb>(usize::try_from(vmcb).unwrap());
    // SAFETY: a VMCB at its host address, which nobody else uses meanwhile.
    let vmcb = unsafe { &mut *at };
    vmcb.control.exitcode = exit::INTR;
    RUN.with_borrow_mut(|run| run.iter_mut().for_each(|run| run(vmcb)));
}

/// As the real one.
///
/// # Safety
/// As for the real one.
pub(super) unsafe fn save_host(_: u64) {}
