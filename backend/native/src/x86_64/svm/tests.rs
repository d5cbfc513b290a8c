//! vCPUs on CPUs, with the processor's part by a script.

use super::block::Block;
use super::clean::{Clean, GROUPS};
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

#[test]
#[should_panic(expected = "its thread has to release them")]
fn a_vcpu_is_not_dropped_while_another_cpu_has_its_registers() {
    let rig = Rig::new(ALL);
    let [mut released, mut live] = [None, None].map(|tsc| rig.guest(tsc).unwrap());
    run(&mut released);
    release(rig.board);
    rig.board.go_to(1);
    drop(released);
    run(&mut live);
    rig.board.go_to(0);
    drop(live);
}

/// The earliest deadline there is says "at once": it has passed in any case.
#[test]
fn every_deadline_ends_a_run_that_of_zero_too() {
    for at in [0, 1, u64::MAX] {
        let rig = Rig::new(ALL);
        let mut guest = rig.guest(None).unwrap();
        guest.set_deadline(Some(at));
        for runs in 1..3 {
            run(&mut guest);
            assert_eq!(rig.board.wishes(), runs, "{at}");
        }
    }
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
    let ratio = Speed::new(host, Some(100_000_000)).unwrap().ratio;
    let (mut msrs, cpuid) = (Msrs::default(), Cpuid::new(&[]));
    let mut area = std::boxed::Box::new([0u64; 512]);
    // SAFETY: 4096 bytes.
    let mut live = unsafe { Live::new(area.as_mut_ptr().cast(), 1) };
    let before = rdtsc();
    assert_eq!(msrs.write(TSC, 1 << 40, &mut svm, ratio, &mut live, &cpuid), Some(Ok(())));
    let now = msrs.read(TSC, &svm, ratio, &live, &cpuid).unwrap().unwrap();
    let most = (1 << 40) + 100 * (rdtsc() - before);
    assert!((1 << 40..=most).contains(&now), "{now:#x}");
    let moved = msrs.read(TSC_ADJUST, &svm, ratio, &live, &cpuid).unwrap().unwrap();
    assert_eq!(moved, svm.tsc_offset());
    assert_eq!(msrs.write(TSC_ADJUST, 0, &mut svm, ratio, &mut live, &cpuid), Some(Ok(())));
    assert_eq!(svm.tsc_offset(), 0);
}

/// A VMCB of zeros in memory of the test's.
fn block() -> Block {
    let frame = board().alloc(0).unwrap();
    // SAFETY: a frame of zeros that nobody frees.
    unsafe { Block::new(board().virt(frame).cast()) }
}

#[test]
fn a_setter_clears_its_groups_bit_and_no_other() {
    let mut block = block();
    for (name, set, group) in Block::SETTERS {
        block.ran();
        let before = block.control.vmcb_clean;
        assert_eq!(before, Clean::all().bits());
        let old = bytes(&block);
        set(&mut block);
        assert_eq!(block.control.vmcb_clean, before & !group.bits(), "{name}");
        // What it has written is in that group.
        let of = |(of, _): &&(Clean, _)| of == group;
        let (_, ranges) = GROUPS.iter().find(of).unwrap();
        for (at, (new, old)) in bytes(&block).iter().zip(&old).enumerate() {
            let inside = ranges.iter().any(|range| range.contains(&at));
            assert!(new == old || inside || (0xc0..0xc4).contains(&at), "{name} at {at:#x}");
        }
    }
    let without = [Clean::IOPM, Clean::DT, Clean::SEG, Clean::LBR];
    for group in Clean::all().iter().filter(|group| !without.contains(group)) {
        assert!(Block::SETTERS.iter().any(|(_, _, of)| *of == group), "{group:?}");
    }
    block.ran();
    block.rewrite();
    assert_eq!(block.control.vmcb_clean, 0, "where any field may have been written");
}

fn bytes(block: &Block) -> Vec<u8> {
    let at: *const vmcb::Vmcb = &raw const **block;
    // SAFETY: a whole VMCB of integers.
    unsafe { core::slice::from_raw_parts(at.cast(), 4096) }.to_vec()
}

/// Groups do not share a byte, and those of the manual's table are where it says (AMD APM vol. 2
/// §15.15.3, appendix B).
#[test]
fn groups_are_apart() {
    let mut owner = [None; 4096];
    for (group, ranges) in &GROUPS {
        for at in ranges.iter().cloned().flatten() {
            assert_eq!(owner[at].replace(*group), None, "{at:#x}");
        }
    }
    for (at, group) in [
        (0x00, Some(Clean::I)),
        (0x3f, Some(Clean::I)),
        (0x40, Some(Clean::IOPM)),
        (0x4f, Some(Clean::IOPM)),
        (0x50, Some(Clean::I)),
        (0x58, Some(Clean::ASID)),
        (0x5c, None),
        (0x60, Some(Clean::TPR)),
        (0x68, None),
        (0x90, Some(Clean::NP)),
        (0xa8, None),
        (0xb0, Some(Clean::NP)),
        (0x400, Some(Clean::SEG)),
        (0x43f, Some(Clean::SEG)),
        (0x440, None),
        (0x460, Some(Clean::DT)),
        (0x470, None),
        (0x480, Some(Clean::DT)),
        (0x490, None),
        (0x4cb, Some(Clean::SEG)),
        (0x4d0, Some(Clean::CRX)),
        (0x548, Some(Clean::CRX)),
        (0x55f, Some(Clean::CRX)),
        (0x560, Some(Clean::DRX)),
        (0x56f, Some(Clean::DRX)),
        (0x570, None),
        (0x578, None),
        (0x5d8, None),
        (0x5f8, None),
        (0x640, Some(Clean::CR2)),
        (0x668, Some(Clean::NP)),
        (0x670, Some(Clean::LBR)),
    ] {
        assert_eq!(owner[at], group, "{at:#x}");
    }
}

/// The bits at each entry.
fn bits_at_entry() -> Rc<RefCell<Vec<u32>>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let own = seen.clone();
    at_entry(move |vmcb| own.borrow_mut().push(vmcb.control.vmcb_clean));
    seen
}

#[test]
fn what_a_cpu_has_not_seen_is_dirty() {
    let rig = Rig::new(ALL);
    let seen = bits_at_entry();
    let mut one = rig.guest(None).unwrap();
    let mut other = rig.guest(None).unwrap();
    let all = Clean::all().bits();
    let expect = |guest: &mut Guest, bits: u32, why: &str| {
        run(guest);
        assert_eq!(seen.take(), [bits], "{why}");
    };
    expect(&mut one, 0, "never run");
    expect(&mut one, all, "run here, and nobody else since");
    one.set_task_priority(0x20);
    expect(&mut one, all & !Clean::TPR.bits(), "written since");
    expect(&mut one, all, "which this run has read");
    expect(&mut other, 0, "never run");
    expect(&mut one, 0, "another was here");
    release(rig.board);
    expect(&mut one, 0, "the host was here");
    release(rig.board);
    rig.board.go_to(1);
    expect(&mut one, 0, "on another CPU");
    expect(&mut one, all, "still there");
    release(rig.board);
    rig.board.go_to(0);
    expect(&mut one, 0, "back on a CPU that has an older state");
    one.reset(&VcpuState::X86(X86State::default()));
    expect(&mut one, 0, "written as a whole");
    // The same place in memory may become another VM's.
    drop(one);
    let mut next = rig.guest(None).unwrap();
    expect(&mut next, 0, "never run");
}

/// The audit finds what a setter that forgot its bit would do.
#[test]
fn a_field_that_was_written_without_its_bit_is_found() {
    let found = |write: fn(&mut vmcb::Vmcb), cpu: u32, last: bool| {
        let mut block = block();
        block.ran();
        let at = block.audit_exit(0);
        let vmcb = block.rewrite();
        write(vmcb);
        vmcb.control.vmcb_clean = Clean::all().bits();
        let entry = || block.audit_entry(cpu, if last { at } else { 0 });
        std::panic::catch_unwind(core::panic::AssertUnwindSafe(entry)).is_err()
    };
    let nothing: fn(&mut vmcb::Vmcb) = |_| ();
    assert!(!found(nothing, 0, true));
    assert!(!found(|vmcb| vmcb.save.rip = 1, 0, true), "VMRUN reads it always");
    assert!(found(nothing, 1, true) && found(nothing, 0, false), "not this CPU's last");
    let forgotten: [fn(&mut vmcb::Vmcb); 7] = [
        |vmcb| vmcb.control.tsc_offset = 1,
        |vmcb| vmcb.control.intercept_1 = 1,
        |vmcb| vmcb.control.guest_asid = 1,
        |vmcb| vmcb.save.cr4 = 1,
        |vmcb| vmcb.save.cs.limit = 1,
        |vmcb| vmcb.save.g_pat = 1,
        |vmcb| vmcb.save.dbgctl = 1,
    ];
    assert!(forgotten.into_iter().all(|write| found(write, 0, true)));
}
