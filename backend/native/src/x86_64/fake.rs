//! A vendor for tests: registers in memory, exits from a script.

use super::cpu::Cpu;
use super::decode::Seg;
use super::memory::Npt;
use super::regs::Gprs;
use super::tsc::Ratio;
use super::vendor::{Injection, Reason, Vendor};
use crate::HostPhys;
use crate::testing::Board;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hypervisor::vcpu::{BackendError, Segment, X86State};

/// What happens at an entry.
pub(crate) type Script = fn(&mut Fake, &mut Gprs) -> Reason;

#[derive(Default)]
pub(crate) struct Fake {
    pub state: X86State,
    pub script: VecDeque<Script>,
    pub reason: Option<Reason>,
    pub interrupted: Option<Injection>,
    pub injected: Vec<Option<Injection>>,
    pub next_injection: Option<Injection>,
    pub next_rip: Option<u64>,
    pub cr2: u64,
    pub pat: u64,
    pub dr6: u64,
    pub dr7: u64,
    pub cpl: u8,
    pub tpr: u8,
    pub tsc_offset: u64,
    pub shadow: bool,
    pub window: bool,
    pub nmi_end: bool,
    pub debug_exits: bool,
    pub flushes: usize,
}

impl Vendor<Board> for Fake {
    type Tables = Npt;
    type Shared = bool;

    fn new(_: &Arc<bool>, _: HostPhys) -> Option<Self> {
        Some(Self::default())
    }

    /// It is all that its vCPUs share.
    fn scales_tsc(shared: &bool) -> bool {
        *shared
    }

    fn largest_leaf(_: &bool) -> u8 {
        18
    }

    fn enable(_: &bool, _: &mut Cpu) -> bool {
        true
    }

    fn reset(&mut self, state: &X86State) {
        self.state = *state;
    }

    unsafe fn arrive(&mut self, _: &mut Cpu, _: Ratio) {}

    unsafe fn enter(&mut self, _: &mut Cpu, gprs: &mut Gprs) {
        let event = self.next_injection.take();
        self.injected.push(event);
        let act = self.script.pop_front().unwrap_or(|_, _| Reason::Host);
        self.reason = Some(act(self, gprs));
    }

    fn interrupted(&mut self) -> Option<Injection> {
        self.interrupted.take()
    }

    fn reason(&mut self) -> Reason {
        self.reason.take().unwrap()
    }

    fn describe(&self, reason: Reason) -> BackendError {
        BackendError::new(alloc::format!("{reason:?}"))
    }

    fn inject(&mut self, event: Injection) {
        self.next_injection = Some(event);
    }

    fn next_rip(&self) -> Option<u64> {
        self.next_rip
    }

    fn instruction(&self) -> Option<&[u8]> {
        None
    }

    fn rip(&self) -> u64 {
        self.state.rip
    }

    fn set_rip(&mut self, value: u64) {
        self.state.rip = value;
    }

    fn rflags(&self) -> u64 {
        self.state.rflags
    }

    fn set_rflags(&mut self, value: u64) {
        self.state.rflags = value;
    }

    fn cr0(&self) -> u64 {
        self.state.cr0
    }

    fn cr3(&self) -> u64 {
        self.state.cr3
    }

    fn cr4(&self) -> u64 {
        self.state.cr4
    }

    fn set_cr4(&mut self, value: u64) {
        self.state.cr4 = value;
    }

    fn set_cr2(&mut self, value: u64) {
        self.cr2 = value;
    }

    fn efer(&self) -> u64 {
        self.state.efer
    }

    fn set_efer(&mut self, value: u64) {
        self.state.efer = value;
    }

    fn pat(&self) -> u64 {
        self.pat
    }

    fn set_pat(&mut self, value: u64) {
        self.pat = value;
    }

    fn dr6(&self) -> u64 {
        self.dr6
    }

    fn set_dr6(&mut self, value: u64) {
        self.dr6 = value;
    }

    fn dr7(&self) -> u64 {
        self.dr7
    }

    fn cpl(&self) -> u8 {
        self.cpl
    }

    fn segment(&self, which: Seg) -> Segment {
        if which == Seg::Cs { self.state.cs } else { self.state.data }
    }

    fn task_priority(&self) -> u8 {
        self.tpr
    }

    fn set_task_priority(&mut self, value: u8) {
        self.tpr = value;
    }

    fn tsc_offset(&self) -> u64 {
        self.tsc_offset
    }

    fn set_tsc_offset(&mut self, value: u64) {
        self.tsc_offset = value;
    }

    fn shadow(&self) -> bool {
        self.shadow
    }

    fn clear_shadow(&mut self) {
        self.shadow = false;
    }

    fn set_window(&mut self, wanted: bool) {
        self.window = wanted;
    }

    fn set_nmi_end(&mut self, wanted: bool) {
        self.nmi_end = wanted;
    }

    fn set_debug_exits(&mut self, wanted: bool) {
        self.debug_exits = wanted;
    }

    fn flush(&mut self) {
        self.flushes += 1;
    }
}
