//! vCPUs on CPUs, with the processor's part by a script.

use super::*;
use crate::testing::{Board, board};
use crate::x86_64::cpu::{Live, release};
use crate::x86_64::cpuid::Cpuid;
use crate::x86_64::msr::Msrs;
use crate::x86_64::processor::privileged::taken_writes;
use crate::x86_64::processor::rdtsc;
use crate::x86_64::tsc::Speed;
use crate::x86_64::vcpu::Vcpu;
use crate::x86_64::vm::{Kind, VmHandle, from_zero};
use core::cell::RefCell;
use enter::at_entry;
use hypervisor::vcpu::machine::CpuidEntry;
use hypervisor::vcpu::machine::tsc::HostTsc;
use hypervisor::vcpu::{VcpuState, VmEntry, VmExit};
use std::rc::Rc;
use std::vec::Vec;

const TSC_RATIO: u32 = 0xc000_0104;
/// The frequency of [`Board`].
const HOST_KHZ: u32 = 1_000_000;

const ALL: Features = Features {
    asids: 16,
    nrip_save: true,
    decode_assists: true,
    tsc_rate: true,
    page_1gb: true,
    rdtscp: true,
    ibpb: true,
};

type Guest = Vcpu<Board, Svm<Board>>;

struct Rig {
    board: &'static Board,
    shared: Arc<Shared<Board>>,
}

impl Rig {
    fn new(features: Features) -> Self {
        let board = board();
        Self { board, shared: Arc::new(Shared::new(board, features).unwrap()) }
    }

    /// The vCPU of a VM of its own.
    fn guest(&self, tsc_khz: Option<u32>) -> Result<Guest, BackendError> {
        let ram = from_zero(0x10_0000);
        let vm = VmHandle::new(self.board, &self.shared, Kind::Machine, &ram, tsc_khz)?;
        let row = CpuidEntry { leaf: 1, subleaf: None, registers: [0; 4] };
        Vcpu::new(&vm.vm, Cpuid::new(&[row]), &VcpuState::X86(X86State::default()))
    }
}

fn run(guest: &mut Guest) {
    assert_eq!(guest.run(VmEntry::Continue), Ok(VmExit::Interrupted));
}

/// The ratio that was written last, at each entry.
fn ratios_at_entry() -> Rc<RefCell<Vec<u64>>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let own = seen.clone();
    // SAFETY: a recorded register.
    at_entry(move |_| own.borrow_mut().push(unsafe { rdmsr(TSC_RATIO) }));
    seen
}

#[test]
fn each_vcpu_has_its_own_ratio_and_only_changes_are_written() {
    const HALF: u64 = 1 << 31;
    const ONE: u64 = 1 << 32;
    const DOUBLE: u64 = 1 << 33;
    let rig = Rig::new(ALL);
    let seen = ratios_at_entry();
    let [slow, fast, plain, near] = [0, 1, 2, 3];
    let asked = [Some(HOST_KHZ / 2), Some(HOST_KHZ * 2), None, Some(HOST_KHZ + 250)];
    let mut guests = asked.map(|khz| rig.guest(khz).unwrap());
    assert!(taken_writes(TSC_RATIO).is_empty(), "before anybody runs");
    for (guest, written) in [
        // Nobody knows what the firmware has left there.
        (slow, &[HALF][..]),
        (slow, &[]),
        (fast, &[DOUBLE]),
        (slow, &[HALF]),
        (plain, &[ONE]),
        (near, &[]),
        (fast, &[DOUBLE]),
        (fast, &[]),
    ] {
        run(&mut guests[guest]);
        assert_eq!(taken_writes(TSC_RATIO), written);
    }
    assert_eq!(seen.take(), [HALF, HALF, DOUBLE, HALF, ONE, ONE, DOUBLE, DOUBLE]);
    let [slow, fast, ..] = &mut guests;
    // The host has the CPU in between: its counter is not scaled, so nothing is put back.
    release(rig.board);
    run(fast);
    release(rig.board);
    assert!(taken_writes(TSC_RATIO).is_empty());
    // Another CPU has a register of its own.
    rig.board.go_to(1);
    run(fast);
    assert_eq!(taken_writes(TSC_RATIO), [DOUBLE]);
    release(rig.board);
    rig.board.go_to(0);
    run(slow);
    run(fast);
    assert_eq!(taken_writes(TSC_RATIO), [HALF, DOUBLE]);
}

#[test]
fn a_processor_without_ratios_is_not_asked_for_one() {
    let rig = Rig::new(Features { tsc_rate: false, ..ALL });
    run(&mut rig.guest(None).unwrap());
    run(&mut rig.guest(Some(HOST_KHZ - 250)).unwrap());
    assert!(taken_writes(TSC_RATIO).is_empty());
    let text = rig.guest(Some(HOST_KHZ - 251)).err().unwrap().text;
    assert!(text.contains("`tsc_khz` of 999749") && text.contains("1000000 kHz"), "{text}");
}

#[test]
fn a_guests_counter_is_scaled_where_it_is_computed() {
    let rig = Rig::new(ALL);
    for (khz, slower) in [(HOST_KHZ / 8, 8), (HOST_KHZ, 1)] {
        let began = rdtsc();
        let guest = rig.guest(Some(khz)).unwrap();
        let (before, first, between) = (rdtsc(), guest.cycles(), rdtsc());
        let (second, after) = (guest.cycles(), rdtsc());
        // It began at 0 with its VM.
        assert!(first <= (between - began) / slower + 1, "{first}");
        let passed = second.checked_sub(first).unwrap();
        assert!(passed <= (after - before) / slower + 1, "{passed}");
    }
}

#[test]
fn a_guest_sets_its_counter_in_its_own_cycles() {
    const TSC: u32 = 0x10;
    const TSC_ADJUST: u32 = 0x3b;
    let rig = Rig::new(ALL);
    let host = HostTsc { hz: 1_000_000_000, scales: true };
    let mut svm = Svm::new(&rig.shared, HostPhys(0)).unwrap();
    svm.set_tsc_ratio(Speed::new(host, Some(100_000_000)).unwrap().ratio);
    let (mut msrs, cpuid) = (Msrs::default(), Cpuid::new(&[]));
    let mut area = std::boxed::Box::new([0u64; 512]);
    // SAFETY: 4096 bytes.
    let mut live = unsafe { Live::new(area.as_mut_ptr().cast(), 1) };
    let before = rdtsc();
    assert_eq!(msrs.write(TSC, 1 << 40, &mut svm, &mut live, &cpuid), Some(Ok(())));
    let now = msrs.read(TSC, &svm, &live, &cpuid).unwrap().unwrap();
    let most = (1 << 40) + 100 * (rdtsc() - before);
    assert!((1 << 40..=most).contains(&now), "{now:#x}");
    let moved = msrs.read(TSC_ADJUST, &svm, &live, &cpuid).unwrap().unwrap();
    assert_eq!(moved, svm.tsc_offset());
    assert_eq!(msrs.write(TSC_ADJUST, 0, &mut svm, &mut live, &cpuid), Some(Ok(())));
    assert_eq!(svm.tsc_offset(), 0);
}
