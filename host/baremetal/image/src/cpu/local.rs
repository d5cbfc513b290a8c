//! What each CPU has of its own, found through GS.

use super::register::{GS_BASE, cpuid, wrmsr};
use super::tables::Tables;
use crate::thread::Context;
use alloc::boxed::Box;
use core::arch::asm;
use core::cell::{Cell, UnsafeCell};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use host_baremetal::acpi::madt::MAX_CPUS;
use host_baremetal::sched::ThreadId;

/// One CPU's own data. Cells are its own; atomics are for others to read.
#[repr(C)]
pub struct Local {
    /// Its own address: what GS leads to.
    this: Cell<*const Local>,
    /// Its number.
    pub number: u32,
    /// Its APIC ID; valid once it is in [`of`]'s table.
    pub apic: AtomicU32,
    /// A word for the backend.
    pub slot: UnsafeCell<usize>,
    /// Its GDT and TSS.
    pub tables: UnsafeCell<Tables>,
    /// The thread that runs here; none while the CPU is idle.
    pub current: Cell<Option<ThreadId>>,
    /// Where the idle loop goes on.
    pub idle: UnsafeCell<usize>,
    /// When the running thread is to give way.
    pub slice_end: Cell<u64>,
    /// What the timer is set to, in nanoseconds; `u64::MAX` if it is not.
    pub timer: Cell<u64>,
    /// When the backend wants an interrupt; `u64::MAX` if it does not.
    pub wish: Cell<u64>,
    /// Whether the running thread is to leave its guest.
    pub attention: Cell<*const AtomicBool>,
    /// The flushes of the address space that it has done.
    pub flushes: Cell<u64>,
    /// A thread that ended here, whose stack is free once another one is in use.
    pub ended: Cell<Option<Box<Context>>>,
}

// SAFETY: the cells are used by their own CPU only, with interrupts off.
unsafe impl Sync for Local {}

impl Local {
    const fn new(number: u32) -> Self {
        Self {
            this: Cell::new(core::ptr::null()),
            number,
            apic: AtomicU32::new(0),
            slot: UnsafeCell::new(0),
            tables: UnsafeCell::new(Tables::new()),
            current: Cell::new(None),
            idle: UnsafeCell::new(0),
            slice_end: Cell::new(0),
            timer: Cell::new(u64::MAX),
            wish: Cell::new(u64::MAX),
            attention: Cell::new(core::ptr::null()),
            flushes: Cell::new(0),
            ended: Cell::new(None),
        }
    }
}

impl Local {
    /// Whether this is its APIC ID.
    pub fn has_apic(&self, id: u32) -> bool {
        self.apic.load(Ordering::Relaxed) == id
    }
}

static BOOT: Local = Local::new(0);

/// CPUs that have started, by number.
static CPUS: [AtomicPtr<Local>; MAX_CPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_CPUS];
/// How many CPUs there are, started or not.
static COUNT: AtomicU32 = AtomicU32::new(1);

/// Gives the boot CPU its data.
pub fn init_boot_cpu() {
    set(&BOOT);
}

/// Makes data for another CPU.
pub fn new(number: u32) -> Option<&'static Local> {
    Some(Box::leak(Box::new(Local::new(number))))
}

/// Makes this the data of the CPU that runs here.
pub fn set(local: &'static Local) {
    local.this.set(local);
    // SAFETY: GS is nobody else's.
    unsafe { wrmsr(GS_BASE, (&raw const *local).addr() as u64) };
}

/// Makes this CPU known to others.
pub fn publish(local: &'static Local, apic: u32) {
    local.apic.store(apic, Ordering::Relaxed);
    if let Some(place) = CPUS.get(usize::try_from(local.number).unwrap_or(usize::MAX)) {
        place.store((&raw const *local).cast_mut(), Ordering::Release);
    }
}

/// A CPU by its number, once it has started.
pub fn of(number: u32) -> Option<&'static Local> {
    let place = CPUS.get(usize::try_from(number).ok()?)?;
    // SAFETY: null, or data that lives for ever, written before it was published.
    unsafe { place.load(Ordering::Acquire).as_ref() }
}

/// How many CPUs there are.
pub fn count() -> u32 {
    COUNT.load(Ordering::Relaxed)
}

/// How many have started.
pub fn started() -> u32 {
    (0..count()).filter(|number| of(*number).is_some()).fold(0, |sum, _| sum + 1)
}

/// Says what this machine's CPUs are.
pub fn describe(line: &mut dyn FnMut(core::fmt::Arguments<'_>)) {
    let [_, b, c, d] = cpuid(0, 0);
    let bytes = [b, d, c].map(u32::to_le_bytes).concat();
    let vendor = core::str::from_utf8(&bytes).unwrap_or("unknown");
    line(format_args!("{} of {} CPUs run, {vendor}", started(), count()));
    let svm = cpuid(0x8000_0001, 0)[2] & (1 << 2) != 0;
    let vmx = cpuid(1, 0)[2] & (1 << 5) != 0;
    let yes = |has| if has { "yes" } else { "no" };
    line(format_args!("hardware virtualization: SVM {}, VMX {}", yes(svm), yes(vmx)));
    let scales = svm && cpuid(0x8000_000a, 0)[3] & (1 << 4) != 0;
    let khz = crate::time::frequency() / 1000;
    line(format_args!("TSC: {khz} kHz, scaled for guests (tsc_khz): {}", yes(scales)));
}

/// Sets how many there are.
pub fn set_count(count: u32) {
    COUNT.store(count, Ordering::Relaxed);
}

/// This CPU's data.
pub fn this() -> &'static Local {
    let local: *const Local;
    // SAFETY: GS leads to the CPU's data since its first steps, and the first word there is the
    // data's own address. Not `pure`: a thread may go on on another CPU.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) local, options(nostack, preserves_flags, readonly));
        &*local
    }
}
