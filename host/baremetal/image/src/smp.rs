//! The other CPUs. They start beside the boot CPU, which does not wait for them: each takes the
//! next place, with a stack and data of its own, and goes to its idle loop.

use crate::cpu::{self, apic, local};
use crate::log::{debug, warning};
use crate::memory::space;
use crate::memory::stack::Stack;
use crate::{thread, time};
use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use host_baremetal::acpi::madt::Madt;
use host_baremetal::boot::{BootInfo, RegionKind};
use host_baremetal::cpus::CpuSet;
use host_baremetal::paging::Rights;

global_asm!(include_str!("smp.s"), options(att_syntax));

/// Where `smp.s` runs; START there.
const PAGE: u64 = START as u64 * 4096;
/// The same as the start-up message says it.
const START: u8 = 8;
/// Stacks are frames of this order: 16 KiB.
const STACK_ORDER: u8 = 2;
/// Between INIT and the start-up message, in nanoseconds.
const PAUSE: u64 = 10_000;

/// How long a CPU may take before it is told again, and how often.
const TRY: u64 = 500_000_000;
const TRIES: u32 = 4;

/// Nobody waits any more for those that have not come.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// How many have taken a place.
#[unsafe(no_mangle)]
static smp_arrived: AtomicU32 = AtomicU32::new(0);
/// The tops of their stacks.
#[unsafe(no_mangle)]
static smp_places: AtomicPtr<usize> = AtomicPtr::new(core::ptr::null_mut());

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_root: u8;
    static trampoline_end: u8;
}

/// Starts all others, `most` CPUs in all. The boot CPU is `own`.
pub fn start(boot: &BootInfo, madt: &Madt, own: u32, most: u32) {
    let room = usize::try_from(most.saturating_sub(1)).unwrap_or(usize::MAX);
    let others: Vec<u32> = madt.cpus.iter().copied().filter(|id| *id != own).take(room).collect();
    if others.is_empty() {
        return;
    }
    if !place_trampoline(boot) {
        warning!("no RAM at {PAGE:#x} to start other CPUs from: this one runs alone");
        return;
    }
    let mut places = Vec::new();
    for _ in &others {
        let Some(stack) = Stack::new(STACK_ORDER) else { break };
        places.push(stack.top());
        core::mem::forget(stack);
    }
    let count = u32::try_from(places.len()).unwrap_or(0);
    smp_places.store(places.leak().as_mut_ptr(), Ordering::Release);
    local::set_count(count + 1);
    let others = &others[..usize::try_from(count).unwrap_or(0)];
    others.iter().for_each(|id| apic::send_init(*id));
    for _ in 0..2 {
        let end = time::now() + PAUSE;
        while time::now() < end {
            core::hint::spin_loop();
        }
        // The second message does nothing to a CPU that took the first.
        others.iter().for_each(|id| apic::send_startup(*id, START));
    }
    debug!("{} CPUs to come", others.len());
    let late: Vec<u32> = others.to_vec();
    let _ = thread::spawn(CpuSet::one(0), move || wait_for(&late));
}

/// Starts those again that do not come, and gives up on them after a while.
fn wait_for(others: &[u32]) {
    for _ in 0..TRIES {
        let end = time::now() + TRY;
        if local::started() == local::count() {
            return;
        }
        while time::now() < end && local::started() < local::count() {
            thread::park(Some(end.min(time::now() + TRY / 10)));
        }
        let came = |id| (1..local::count()).filter_map(local::of).any(|own| own.has_apic(id));
        for id in others.iter().copied().filter(|id| !came(*id)) {
            apic::send_startup(id, START);
        }
    }
    GIVEN_UP.store(true, Ordering::Relaxed);
    let missing = local::count() - local::started();
    if missing > 0 {
        warning!("{missing} CPUs did not start: the machine runs without them");
    }
}

/// Whether this CPU runs; waits for one that is still to come.
pub fn runs(cpu: u32) -> bool {
    while cpu < local::count() && local::of(cpu).is_none() && !GIVEN_UP.load(Ordering::Relaxed) {
        thread::park(Some(time::now() + TRY / 100));
    }
    local::of(cpu).is_some()
}

/// Copies `smp.s` to its page.
fn place_trampoline(boot: &BootInfo) -> bool {
    let free = boot.regions.iter().any(|region| {
        let range = &region.range;
        region.kind == RegionKind::Ram && range.start <= PAGE && PAGE + 4096 <= range.end
    });
    let Some(page) = free.then(|| space::map_device(PAGE, 4096, Rights::DATA)).flatten() else {
        return false;
    };
    let start = &raw const trampoline;
    let length = (&raw const trampoline_end).addr() - start.addr();
    let root = (&raw const trampoline_root).addr() - start.addr();
    // SAFETY: the page is RAM below 1 MiB, which nobody uses; the code fits.
    unsafe {
        start.copy_to_nonoverlapping(page, length);
        page.add(root).cast::<u32>().write_unaligned(space::root());
    }
    space::map_low(PAGE, true).is_some()
}

/// Where `smp.s` goes to, on a stack of this CPU's own.
#[unsafe(no_mangle)]
extern "C" fn smp_start(place: u32) -> ! {
    let Some(own) = local::new(place + 1) else { crate::end::halt() };
    local::set(own);
    cpu::init_other(own);
    local::publish(own, apic::init());
    if local::started() == local::count() {
        // Nobody starts any more: nothing is left that can be executed at a low address.
        let _ = space::map_low(PAGE, false);
    }
    debug!("CPU {} runs", own.number);
    thread::idle()
}
