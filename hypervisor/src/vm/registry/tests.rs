//! Lives of VMs, alone, at the limits, and from several threads.

use super::*;
use crate::vcpu::VmExit;
use crate::vm::{Exits, Limits, Usage};
use alloc::string::ToString;
use core::sync::atomic::{AtomicU64, Ordering};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::thread;

#[derive(Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn wall_ns(&self) -> u64 {
        0
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.fetch_add(10, Ordering::Relaxed)
    }
}

fn vms(limits: Limits) -> (Arc<Ledger>, Vms<u32>) {
    let ledger = Ledger::new(limits);
    (ledger.clone(), Vms::new(ledger, Arc::new(Ticks::default())))
}

fn request(memory: u64, vcpus: u32) -> VmRequest {
    VmRequest { name: "test".into(), memory, vcpus }
}

fn create(vms: &Vms<u32>, memory: u64, vcpus: u32) -> Result<VmId, VmError> {
    vms.create(request(memory, vcpus), |id| Ok(id.get())).map(|vm| vm.id())
}

#[test]
fn a_life_with_its_accounts() {
    let (ledger, vms) = vms(Limits::NONE);
    let id = create(&vms, 4096, 2).unwrap();
    let vm = vms.get(id).unwrap();
    assert_eq!((vm.state(), vm.inner, vm.name()), (State::Created, id.get(), "test"));
    vms.start(id).unwrap();
    let mut exits = Exits::default();
    (0..3).for_each(|_| exits.count(&VmExit::Halt));
    vm.accounts.add(&exits);
    vms.stop(id).unwrap();
    vms.start(id).unwrap();
    vms.stop(id).unwrap();
    let expected = Snapshot {
        state: State::Stopped,
        memory: 4096,
        vcpus: 2,
        created_ns: 0,
        started_ns: Some(30),
        stopped_ns: Some(40),
        ran_ns: 20,
        exits,
    };
    assert_eq!(vm.snapshot(), expected);
    assert_eq!(ledger.usage(), Usage { vms: 1, memory: 4096, vcpus: 2 });
    vms.destroy(id).unwrap();
    // The handle is still held, and counts for nothing.
    assert_eq!(ledger.usage(), Usage::default());
    assert_eq!(vm.state(), State::Destroyed);
    assert_eq!(vms.get(id).unwrap_err(), VmError::NoSuchVm(id));
}

#[test]
fn illegal_steps_say_what_to_do() {
    let (_, vms) = vms(Limits::NONE);
    let id = create(&vms, 1, 1).unwrap();
    assert_eq!(
        vms.stop(id).unwrap_err().to_string(),
        "VM 1 is created, so it cannot stop: start it first"
    );
    assert!(vms.get(id).unwrap().check_running().is_err());
    vms.start(id).unwrap();
    assert_eq!(vms.get(id).unwrap().check_running(), Ok(1));
    assert_eq!(
        vms.destroy(id).unwrap_err().to_string(),
        "VM 1 is running, so it cannot be destroyed: stop it first"
    );
    assert_eq!(vms.get(id).unwrap().state(), State::Running);
}

#[test]
fn the_end_of_an_old_run_does_not_stop_a_new_one() {
    let (_, vms) = vms(Limits::NONE);
    let id = create(&vms, 1, 1).unwrap();
    let (vm, _) = vms.start(id).unwrap();
    let old = vm.check_running().unwrap();
    assert_eq!(vms.stop(id).unwrap().1, old);
    vms.end_run(&vm, old);
    vms.start(id).unwrap();
    vms.end_run(&vm, old);
    assert_eq!(vm.state(), State::Running);
    vms.end_run(&vm, vm.check_running().unwrap());
    assert_eq!(vm.state(), State::Stopped);
}

#[test]
fn limits_hold_and_a_failed_build_leaves_nothing() {
    let (ledger, vms) = vms(Limits { vms: 2, memory: 100, vcpus: 3 });
    create(&vms, 60, 1).unwrap();
    let used = ledger.usage();
    let memory = VmError::TooMuchMemory { asked: 41, used: 60, limit: 100 };
    assert_eq!(create(&vms, 41, 1), Err(memory));
    assert!(create(&vms, u64::MAX, 1).is_err());
    assert_eq!(create(&vms, 1, 3), Err(VmError::TooManyVcpus { asked: 3, used: 1, limit: 3 }));
    let failed = vms.create(request(40, 2), |_| Err(VmError::Build("no image".into())));
    assert_eq!(failed.unwrap_err().to_string(), "no image");
    assert_eq!(ledger.usage(), used);
    create(&vms, 40, 2).unwrap();
    assert_eq!(create(&vms, 0, 0), Err(VmError::TooManyVms(2)));
}

#[test]
fn numbers_wrap_past_those_in_use() {
    let (ledger, vms) = vms(Limits::NONE);
    let ids: Vec<_> = (0..3).map(|_| create(&vms, 1, 1).unwrap().get()).collect();
    assert_eq!(ids, [1, 2, 3]);
    vms.destroy(VmId::new(2).unwrap()).unwrap();
    assert_eq!(create(&vms, 1, 1).unwrap().get(), 4);
    ledger.pretend_last(u32::MAX - 1);
    let ids: Vec<_> = (0..3).map(|_| create(&vms, 1, 1).unwrap().get()).collect();
    assert_eq!(ids, [u32::MAX, 2, 5]);
}

#[test]
fn two_modes_never_share_a_number() {
    let (ledger, one) = vms(Limits::NONE);
    let two: Vms<u32> = Vms::new(ledger, Arc::new(Ticks::default()));
    assert_ne!(create(&one, 1, 1), create(&two, 1, 1));
}

#[test]
fn several_threads() {
    let (ledger, vms) = vms(Limits { vms: 3, ..Limits::NONE });
    let live = |vms: &Vms<u32>| -> Vec<VmId> {
        let one_life = |_| {
            let id = create(vms, 1, 1).ok()?;
            vms.start(id).unwrap();
            vms.stop(id).unwrap();
            vms.destroy(id).unwrap();
            Some(id)
        };
        (0..200).filter_map(one_life).collect()
    };
    let ids: Vec<VmId> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| live(&vms))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    assert_eq!(ledger.usage(), Usage::default());
    assert!(vms.all().is_empty());
}

#[test]
fn one_of_two_racing_starts_wins() {
    let (_, vms) = vms(Limits::NONE);
    for _ in 0..100 {
        let id = create(&vms, 1, 1).unwrap();
        let won = thread::scope(|scope| {
            let other = scope.spawn(|| vms.start(id).is_ok());
            usize::from(vms.start(id).is_ok()) + usize::from(other.join().unwrap())
        });
        assert_eq!(won, 1);
    }
}

proptest! {
    /// Any steps in any order: the state is the table's, and the ledger adds up.
    #[test]
    fn any_order_of_steps(steps in prop::collection::vec((0u32..6, 0usize..4), 0..100)) {
        let (ledger, vms) = vms(Limits { vms: 4, ..Limits::NONE });
        let mut model: BTreeMap<u32, State> = BTreeMap::new();
        for (number, step) in steps {
            let Some(id) = VmId::new(number + 1) else { continue };
            let step = match step {
                0 => {
                    let created = create(&vms, 7, 2);
                    prop_assert_eq!(created.is_ok(), model.len() < 4);
                    if let Ok(id) = created {
                        prop_assert_eq!(model.insert(id.get(), State::Created), None);
                    }
                    continue;
                }
                1 => Step::Start,
                2 => Step::Stop,
                _ => Step::Destroy,
            };
            let done = match step {
                Step::Start | Step::Run => vms.start(id).map(|(vm, _)| vm),
                Step::Stop => vms.stop(id).map(|(vm, _)| vm),
                Step::Destroy => vms.destroy(id),
            };
            let next = model.get(&id.get()).and_then(|state| state.allows(step));
            prop_assert_eq!(done.is_ok(), next.is_some());
            match next {
                Some(State::Destroyed) => { model.remove(&id.get()); }
                Some(state) => { model.insert(id.get(), state); }
                None => {}
            }
            prop_assert_eq!(ledger.usage().memory, model.len() as u64 * 7);
        }
    }
}
