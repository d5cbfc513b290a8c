//! `selftest` on the command line: what can be tried only on a real processor. Each part prints a
//! line and says whether all went well; the image then leaves the machine with that status.

use crate::log::info;
use crate::memory::stack::Stack;
use crate::platform::Machine;
use crate::{memory, thread, time};
use alloc::boxed::Box;
use alloc::string::String;
use backend_conformance::Host;
use backend_native::{Frame, GuestRam, Native, Platform};
use core::sync::atomic::{AtomicU32, Ordering};
use host_baremetal::cpus::CpuSet;
use hypervisor::memory::Gpa;

/// A part: whether it went well.
type Part = fn(&Machine) -> bool;

/// Runs every part.
pub fn run() -> bool {
    let parts: [(&str, Part); 7] = [
        ("frames", frames),
        ("addresses", addresses),
        ("guest RAM", guest_ram),
        ("sleep", sleep),
        ("threads", threads),
        ("cpus", cpus),
        ("vCPUs", vcpus),
    ];
    let mut good = true;
    for (name, part) in parts {
        let passed = part(&Machine);
        info!("selftest: {name}: {}", if passed { "passed" } else { "FAILED" });
        good &= passed;
    }
    good
}

/// Frames are zeroed, aligned and apart from each other.
fn frames(machine: &Machine) -> bool {
    (0..=10).all(|order| {
        let (Some(a), Some(b)) = (machine.alloc(order), machine.alloc(order)) else { return false };
        let size = 4096u64 << order;
        let zeroed = [a, b].into_iter().all(|frame| {
            // SAFETY: just allocated.
            unsafe { *machine.virt(frame) == 0 && *machine.virt(frame).add(4095) == 0 }
        });
        let good = zeroed && a.0 % size == 0 && b.0 % size == 0 && a != b;
        // SAFETY: from above, with this order.
        unsafe {
            machine.virt(a).write_bytes(0xff, 4096);
            machine.free(a, order);
            machine.free(b, order);
        }
        good
    })
}

/// Devices find what lies on a stack or in the heap: its physical address leads back to it.
fn addresses(_: &Machine) -> bool {
    let Some(stack) = Stack::new(0) else { return false };
    let mut boxed = Box::new(0u64);
    let heap = (&raw mut *boxed).expose_provenance();
    [stack.top() - 8, heap].into_iter().all(|at| {
        let to = core::ptr::with_exposed_provenance_mut::<u64>(at);
        // SAFETY: the last word of a stack that nobody runs on; the box's word.
        unsafe { to.write_volatile(!0x5245_444f) };
        let found = memory::space::physical(at as u64).map(memory::window);
        // SAFETY: RAM is in the window, or the test has failed.
        found.is_some_and(|word| unsafe { word.cast::<u64>().read_volatile() } == !0x5245_444f)
    })
}

#[allow(clippy::single_range_in_vec_init)]
/// A guest's RAM comes zeroed at its first touch, is the same for host and guest, and goes back.
fn guest_ram(machine: &Machine) -> bool {
    // What stays: tables of the areas, the heap's first pieces.
    let first = machine.guest_ram(&[0..4096], 0);
    let touched = first.is_some_and(|ram| ram.frame(Gpa(0)).is_some());
    let before = memory::free();
    let end = 5 << 30;
    if machine.guest_ram(&[0..1 << 40], 0).is_some() {
        return false;
    }
    let size = before / 2 / 4096 * 4096;
    let ranges = [0..size - 0x20_0000, end - 0x20_0000..end];
    let Some(ram) = machine.guest_ram(&ranges, 0) else { return false };
    let untouched = before - memory::free() < 64 << 10;
    let mut good = touched;
    // First touched by the host, then by the guest.
    for at in [0, 0x1ff8, 0x1f_fff8, end - 8] {
        good &= ram.memory().read_obj(Gpa(at)) == Ok(0u64);
        good &= ram.memory().write_obj(Gpa(at), &at).is_ok();
        good &= ram.frame(Gpa(at)).is_some_and(|frame| read(machine, frame, at) == at);
    }
    for index in 0..2000 {
        let at = 0x40_0000 + index * 0x3000;
        let Some(frame) = ram.frame(Gpa(at)) else { return false };
        good &= read(machine, frame, at) == 0;
        good &= ram.memory().write_obj(Gpa(at), &index).is_ok();
        good &= read(machine, frame, at) == index;
    }
    good &= ram.frame(Gpa(size)).is_none() && ram.frame(Gpa(end)).is_none();
    let two_others = machine.guest_ram(&[0..size], 0).is_some();
    drop(ram);
    info!("selftest: guest RAM: {} bytes left behind", before - memory::free());
    good && untouched && !two_others && memory::free() == before
}

/// The word at a guest's address, through its frame.
fn read(machine: &Machine, frame: Frame, at: u64) -> u64 {
    let inside = usize::try_from(at % (4096 << frame.order)).unwrap_or(0);
    // SAFETY: the frame is the guest's, and mapped at the window.
    unsafe { machine.virt(frame.at).add(inside).cast::<u64>().read() }
}

/// A thread sleeps as long as it wants, and not much longer.
fn sleep(machine: &Machine) -> bool {
    (0..5).all(|_| {
        let start = machine.now_ns();
        let end = start + 2_000_000;
        while machine.now_ns() < end {
            thread::park(Some(end));
        }
        machine.now_ns() - end < 1_000_000_000
    })
}

/// Threads come and go, and wake each other.
fn threads(_: &Machine) -> bool {
    static DONE: AtomicU32 = AtomicU32::new(0);
    const COUNT: u32 = 200;
    let Some(waiter) = thread::current() else { return false };
    let before = thread::live();
    for _ in 0..COUNT {
        let spawned = thread::spawn(CpuSet::ALL, move || {
            thread::give_way();
            DONE.fetch_add(1, Ordering::Relaxed);
            thread::unpark(waiter);
        });
        if spawned.is_none() {
            return false;
        }
    }
    while DONE.load(Ordering::Relaxed) < COUNT {
        thread::park(None);
    }
    let end = time::now() + 1_000_000_000;
    while thread::live() > before && time::now() < end {
        thread::park(Some(time::now() + 1_000_000));
    }
    thread::live() <= before
}

/// Every CPU runs what is pinned to it.
fn cpus(machine: &Machine) -> bool {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    let Some(waiter) = thread::current() else { return false };
    let count = machine.cpus().min(32);
    for cpu in 0..count {
        let spawned = thread::spawn(CpuSet::one(cpu), move || {
            let here = Machine.cpu();
            SEEN.fetch_or(u32::from(here == cpu) << cpu, Ordering::Relaxed);
            thread::unpark(waiter);
        });
        if spawned.is_none() {
            return false;
        }
    }
    let all = u32::MAX >> (32 - count);
    let end = time::now() + 5_000_000_000;
    while SEEN.load(Ordering::Relaxed) != all && time::now() < end {
        thread::park(Some(end));
    }
    info!("selftest: {} of {count} CPUs ran", SEEN.load(Ordering::Relaxed).count_ones());
    SEEN.load(Ordering::Relaxed) == all
}

/// Small guests make the exits that they should.
fn vcpus(_: &Machine) -> bool {
    let backend = match Native::new(&Machine) {
        Ok(backend) => backend,
        Err(error) => {
            info!("selftest: vCPUs: {error}");
            return false;
        }
    };
    let mut tell = |name: &str, outcome: &Result<(), String>| match outcome {
        Ok(()) => info!("selftest: vCPU: {name}: passed"),
        Err(error) => info!("selftest: vCPU: {name}: FAILED: {error}"),
    };
    let host = Host { backend: &backend, interrupted: thread::take_interrupts };
    backend_conformance::run(&host, &mut tell) & backend_conformance::machine::run(&host, &mut tell)
}
