//! In place of instructions of ring 0, for tests: registers of this thread, and the order of
//! writes to model-specific ones.

#![allow(unsafe_code)]

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::thread_local;
use std::vec::Vec;

#[derive(Default)]
struct Registers {
    msrs: BTreeMap<u32, u64>,
    written: Vec<(u32, u64)>,
    debug: [u64; 4],
    xcr0: u64,
}

thread_local! {
    static REGISTERS: RefCell<Registers> = RefCell::default();
}

/// What was written to model-specific register `index` since the last call, in order.
pub(crate) fn taken_writes(index: u32) -> Vec<u64> {
    let all = REGISTERS.with_borrow_mut(|r| core::mem::take(&mut r.written));
    all.into_iter().filter(|(written, _)| *written == index).map(|(_, value)| value).collect()
}

/// As the real one.
///
/// # Safety
/// As for the real one.
pub(crate) unsafe fn rdmsr(index: u32) -> u64 {
    REGISTERS.with_borrow(|r| r.msrs.get(&index).copied().unwrap_or(0))
}

/// As the real one.
///
/// # Safety
/// As for the real one.
pub(crate) unsafe fn wrmsr(index: u32, value: u64) {
    REGISTERS.with_borrow_mut(|r| {
        r.msrs.insert(index, value);
        r.written.push((index, value));
    });
}

/// As the real one.
///
/// # Safety
/// As for the real one.
pub(crate) unsafe fn xgetbv() -> u64 {
    REGISTERS.with_borrow(|r| r.xcr0.max(1))
}

/// As the real one.
///
/// # Safety
/// As for the real one.
pub(crate) unsafe fn xsetbv(value: u64) {
    REGISTERS.with_borrow_mut(|r| r.xcr0 = value);
}

/// As the real one.
///
/// # Safety
/// As for the real one.
pub(crate) unsafe fn debug_addresses() -> [u64; 4] {
    REGISTERS.with_borrow(|r| r.debug)
}

/// As the real one.
///
/// # Safety
/// As for the real one.
pub(crate) unsafe fn set_debug_addresses(values: [u64; 4]) {
    REGISTERS.with_borrow_mut(|r| r.debug = values);
}
