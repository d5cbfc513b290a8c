//! `selftest` on the command line: what can be tried only on a real processor. Each part prints a
//! line and says whether all went well; the image then leaves the machine with that status.

use crate::log::info;
use crate::platform::Machine;
use backend_native::Platform;

/// Runs every part.
pub fn run() -> bool {
    let parts: [(&str, fn(&Machine) -> bool); 1] = [("frames", frames)];
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

/// `crash` on the command line: an exception, to see what is printed.
pub fn crash() {
    // SAFETY: an undefined instruction by design; it does not come back.
    unsafe { core::arch::asm!("ud2") };
}
