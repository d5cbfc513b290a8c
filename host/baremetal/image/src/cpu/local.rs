//! What each CPU has of its own, found through GS.

use super::register::{GS_BASE, wrmsr};
use super::tables::Tables;
use core::arch::asm;
use core::cell::UnsafeCell;

/// One CPU's own data.
#[repr(C)]
pub struct Local {
    /// Its own address: what GS leads to.
    this: *const Local,
    /// Its number.
    pub number: u32,
    /// A word for the backend.
    pub slot: UnsafeCell<usize>,
    /// Its GDT and TSS.
    pub tables: UnsafeCell<Tables>,
}

// SAFETY: the cells are used by their own CPU only, with interrupts off.
unsafe impl Sync for Local {}

static mut BOOT: Local = Local {
    this: core::ptr::null(),
    number: 0,
    slot: UnsafeCell::new(0),
    tables: UnsafeCell::new(Tables::new()),
};

/// Gives the boot CPU its data.
pub fn init_boot_cpu() {
    let boot = &raw mut BOOT;
    // SAFETY: called once, before anything else uses it; GS is nobody else's.
    unsafe {
        (*boot).this = boot;
        wrmsr(GS_BASE, boot.addr() as u64);
    }
}

/// This CPU's data.
pub fn this() -> &'static Local {
    let local: *const Local;
    // SAFETY: GS leads to the CPU's data since its first steps, and the first word there is the
    // data's own address.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) local, options(nomem, nostack, pure));
        &*local
    }
}
