//! Time: the cycle counter, scaled; and each CPU's timer.
//!
//! The counter's frequency is what CPUID or a hypervisor says. Where neither does, it is measured
//! against ACPI's timer, while the CPU sleeps.

use crate::cpu::port::ind;
use crate::cpu::register::{cpuid, cycles};
use crate::cpu::{apic, interrupt};
use crate::log::debug;
use core::sync::atomic::{AtomicU64, Ordering};
use host_baremetal::acpi::fadt::Fadt;

const NS: u64 = 1_000_000_000;
/// ACPI's timer in Hz (ACPI 6.5 §4.8.2.1).
const PM_HZ: u64 = 3_579_545;
/// What is measured at least: 2 ms, so that a tick is 0.014 %.
const PM_TICKS: u64 = PM_HZ / 500;
/// Ticks of the APIC's timer that are slept at a time.
const NAP: u32 = 500_000;

static FREQUENCY: AtomicU64 = AtomicU64::new(NS);
/// Nanoseconds in a cycle, times 2 to the 32.
static SCALE: AtomicU64 = AtomicU64::new(1 << 32);
static START: AtomicU64 = AtomicU64::new(0);
/// The APIC timer's frequency; unused where it can be set to a cycle.
static APIC_HZ: AtomicU64 = AtomicU64::new(NS);

/// Finds the frequencies. The APIC is set up; interrupts are off.
pub fn init(fadt: Option<&Fadt>) {
    START.store(cycles(), Ordering::Relaxed);
    let known = told();
    let measured = match known.is_none() || !apic::has_deadline() {
        true => measure(fadt.and_then(|fadt| fadt.timer), known),
        false => None,
    };
    let frequency = known.or(measured.map(|(tsc, _)| tsc)).unwrap_or(NS).max(1_000_000);
    FREQUENCY.store(frequency, Ordering::Relaxed);
    let scale = (u128::from(NS) << 32) / u128::from(frequency);
    SCALE.store(u64::try_from(scale).unwrap_or(1 << 32), Ordering::Relaxed);
    if let Some((_, apic)) = measured {
        APIC_HZ.store(apic.max(1), Ordering::Relaxed);
    }
    let how = if known.is_some() { "told" } else { "measured" };
    debug!("cycle counter: {frequency} Hz ({how})");
}

/// What CPUID or a hypervisor says.
fn told() -> Option<u64> {
    let [denominator, numerator, crystal, _] = cpuid(0x15, 0).map(u64::from);
    if denominator != 0 && numerator != 0 && crystal != 0 {
        return Some(crystal * numerator / denominator);
    }
    let under_hypervisor = cpuid(1, 0)[2] & (1 << 31) != 0;
    let khz = if under_hypervisor { cpuid(0x4000_0010, 0)[0] } else { 0 };
    (khz != 0).then(|| u64::from(khz) * 1000)
}

/// Measures the cycle counter and the APIC's timer while the CPU sleeps: against ACPI's timer, or
/// else against the cycle counter whose frequency is `known`.
fn measure(pm: Option<u16>, known: Option<u64>) -> Option<(u64, u64)> {
    // SAFETY: reading the timer's port has no effect.
    let pm_now = || pm.map(|port| u64::from(unsafe { ind(port) } & 0xff_ffff));
    if pm.is_none() && known.is_none() {
        return None;
    }
    let (tsc_start, pm_start) = (cycles(), pm_now());
    let mut ticks = 0;
    // A machine whose timers stand still must get on too.
    for _ in 0..1000 {
        apic::set_count(NAP);
        if apic::has_deadline() {
            core::hint::spin_loop();
        } else {
            interrupt::wait();
            ticks += u64::from(NAP - apic::count());
        }
        let tsc = cycles() - tsc_start;
        let passed = match (pm_now(), pm_start) {
            (Some(now), Some(start)) => {
                let pm = now.wrapping_sub(start) & 0xff_ffff;
                (pm >= PM_TICKS).then_some((pm, PM_HZ))
            }
            _ => known.filter(|hz| tsc >= hz / 500).map(|hz| (tsc, hz)),
        };
        if let Some((passed, hz)) = passed {
            return Some((scaled(tsc, hz, passed), scaled(ticks, hz, passed)));
        }
    }
    None
}

fn scaled(value: u64, by: u64, over: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(by) / u128::from(over.max(1))).unwrap_or(u64::MAX)
}

/// The cycle counter's frequency in Hz.
pub fn frequency() -> u64 {
    FREQUENCY.load(Ordering::Relaxed)
}

/// Nanoseconds since the image was started; never goes back.
pub fn now() -> u64 {
    let passed = cycles().wrapping_sub(START.load(Ordering::Relaxed));
    let ns = (u128::from(passed) * u128::from(SCALE.load(Ordering::Relaxed))) >> 32;
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Sets this CPU's timer to a time of [`now`]; `u64::MAX` stops it.
pub fn set_timer(at: u64) {
    let hz = if apic::has_deadline() { frequency() } else { APIC_HZ.load(Ordering::Relaxed) };
    match (apic::has_deadline(), at) {
        (true, u64::MAX) => apic::set_deadline(0),
        (false, u64::MAX) => apic::set_count(0),
        (true, at) => {
            let cycle = scaled(at, hz, NS).saturating_add(START.load(Ordering::Relaxed));
            apic::set_deadline(cycle.max(1));
        }
        (false, at) => {
            let ticks = scaled(at.saturating_sub(now()), hz, NS);
            apic::set_count(u32::try_from(ticks).unwrap_or(u32::MAX).max(1));
        }
    }
}
