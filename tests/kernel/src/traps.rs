//! Exceptions and interrupts: counted, and forgiven where they were expected.

use crate::{apic, cpu, println};
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

/// An exception where one was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faulted {
    /// Its vector.
    pub vector: u8,
}

/// Where to go on after an expected exception; 0 while none is expected.
pub static RESUME: AtomicU64 = AtomicU64::new(0);
/// 1 + the vector that came instead.
static CAUGHT: AtomicU32 = AtomicU32::new(0);
/// Interrupts and NMIs so far, of all processors.
pub static INTERRUPTS: AtomicU64 = AtomicU64::new(0);
/// NMIs so far.
pub static NMIS: AtomicU64 = AtomicU64::new(0);
/// Set while debug exceptions are welcome wherever they come.
pub static DEBUGGED: AtomicBool = AtomicBool::new(false);

/// What `trap_common` leaves on the stack.
#[repr(C)]
pub struct Frame {
    general: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Memory that the processor reads and that is filled in before it does.
#[repr(C, align(16))]
struct Table<T>(UnsafeCell<T>);
// SAFETY: written by the first processor only, before the others start.
unsafe impl<T> Sync for Table<T> {}

static IDT: Table<[[u64; 2]; 256]> = Table(UnsafeCell::new([[0; 2]; 256]));

unsafe extern "C" {
    static trap_entries: u8;
}

/// Fills in the table: every vector has its entry, all on the stack that is in use. The 8259
/// pair, whose vectors a firmware may have left among the exceptions', is masked.
pub fn init() {
    cpu::outb(0x21, 0xff);
    cpu::outb(0xa1, 0xff);
    let entries = (&raw const trap_entries).addr() as u64;
    for vector in 0..256u64 {
        let at = entries + vector * 16;
        let low = (at & 0xffff) | 8 << 16 | 0x8e00 << 32 | (at >> 16 & 0xffff) << 48;
        let index = usize::try_from(vector).unwrap_or(0);
        // SAFETY: nobody else has it yet.
        unsafe { (*IDT.0.get())[index] = [low, at >> 32] };
    }
}

/// Makes this processor use the table.
pub fn load() {
    #[repr(C, packed)]
    struct Pointer(u16, u64);
    let pointer = Pointer(4095, IDT.0.get().addr() as u64);
    // SAFETY: the table is filled in, and static.
    unsafe { asm!("lidt [{0}]", in(reg) &raw const pointer, options(nostack)) };
}

/// The next exception may come.
pub fn expect() {
    CAUGHT.store(0, SeqCst);
}

/// Whether it came.
pub fn expected() -> Result<(), Faulted> {
    RESUME.store(0, SeqCst);
    match CAUGHT.swap(0, SeqCst) {
        0 => Ok(()),
        caught => Err(Faulted { vector: u8::try_from(caught - 1).unwrap_or(u8::MAX) }),
    }
}

#[unsafe(no_mangle)]
extern "C" fn trap(frame: &mut Frame) {
    let vector = u8::try_from(frame.vector).unwrap_or(u8::MAX);
    match vector {
        2 => {
            NMIS.fetch_add(1, SeqCst);
        }
        1 | 3 if DEBUGGED.load(SeqCst) => {}
        0..32 => exception(frame, vector),
        _ => {
            INTERRUPTS.fetch_add(1, SeqCst);
            apic::end_of_interrupt();
        }
    }
}

fn exception(frame: &mut Frame, vector: u8) {
    let resume = RESUME.swap(0, SeqCst);
    if resume == 0 {
        let [rip, error] = [frame.rip, frame.error];
        println!("test-kernel: exception {vector} at {rip:#x}, error {error:#x}");
        cpu::halt();
    }
    CAUGHT.store(u32::from(vector) + 1, SeqCst);
    frame.rip = resume;
}
