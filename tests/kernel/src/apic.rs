//! The local APIC (Intel SDM vol. 3 ch. 11): x2APIC where there is one, else by memory.

use crate::cpu::{cpuid, rdmsr, read, write, wrmsr};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

const BASE_MSR: u32 = 0x1b;
const X2APIC_MSRS: u32 = 0x800;
const PAGE: u64 = 0xfee0_0000;
/// Registers, by their number in x2APIC mode.
pub const EOI: u32 = 0x0b;
/// Spurious interrupt vector register.
pub const SPURIOUS: u32 = 0x0f;
/// Interrupt command register.
pub const COMMAND: u32 = 0x30;

static X2APIC: AtomicBool = AtomicBool::new(false);
static USED: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static ap_start: u8;
    static ap_end: u8;
    static ap_count: AtomicU32;
}

/// Turns this processor's local APIC on.
pub fn enable() {
    let x2apic = cpuid(1, 0)[2] & 1 << 21 != 0;
    let base = rdmsr(BASE_MSR).unwrap_or(0) | 1 << 11 | u64::from(x2apic) << 10;
    if wrmsr(BASE_MSR, base).is_ok() {
        X2APIC.store(x2apic, SeqCst);
    }
    USED.store(true, SeqCst);
    set(SPURIOUS, 0x1ff);
}

/// Sets a register of this processor's local APIC.
pub fn set(register: u32, value: u32) {
    // A refusal is the hypervisor's right, and nothing that a test counts.
    if X2APIC.load(SeqCst) {
        let _ = wrmsr(X2APIC_MSRS + register, u64::from(value));
    } else {
        let _ = write(PAGE + u64::from(register) * 16, value);
    }
}

/// The end of an interrupt. Not by the probing calls: those belong to the code it interrupted.
pub fn end_of_interrupt() {
    if !USED.load(SeqCst) {
        return;
    }
    // SAFETY: both are the local APIC, which is on.
    unsafe {
        if X2APIC.load(SeqCst) {
            core::arch::asm!("wrmsr", in("ecx") X2APIC_MSRS + EOI, in("eax") 0, in("edx") 0);
        } else {
            let eoi = core::ptr::with_exposed_provenance_mut::<u32>(0xfee0_00b0);
            eoi.write_volatile(0);
        }
    }
}

/// Sends an interrupt command: the low half as the manual draws it, to this processor number.
pub fn command(low: u32, to: u32) {
    if X2APIC.load(SeqCst) {
        let _ = wrmsr(X2APIC_MSRS + COMMAND, u64::from(to) << 32 | u64::from(low));
    } else {
        let _ = write(PAGE + 0x310, to << 24);
        let _ = write(PAGE + 0x300, low);
        let mut asked = 0;
        while read(PAGE + 0x300).is_ok_and(|low| low & 1 << 12 != 0) && asked < 100_000 {
            asked += 1;
        }
    }
}

/// Starts the other processors, one after the other, until one does not answer; at most 15.
/// Returns how many run.
pub fn start_others() -> u32 {
    let (start, end) = (&raw const ap_start, &raw const ap_end);
    let length = end.addr() - start.addr();
    // SAFETY: 0x8000 is RAM that nobody uses; the code is static.
    unsafe {
        let to = core::ptr::with_exposed_provenance_mut::<u8>(0x8000);
        core::ptr::copy_nonoverlapping(start, to, length);
    }
    // SAFETY: it is only ever used atomically.
    let count = unsafe { &ap_count };
    for number in 1..16 {
        command(0x4500, number);
        command(0x4608, number);
        let mut asked = 0u32;
        while count.load(SeqCst) < number {
            asked += 1;
            if asked > 50_000_000 {
                return number - 1;
            }
            core::hint::spin_loop();
        }
    }
    15
}

/// How many processors the machine says it has.
pub fn processors() -> u32 {
    cpuid(1, 0)[1] >> 16 & 0xff
}
