//! Local APICs by the manual: registers, priorities, destinations, modes, and anything at all.

use super::registers::number as n;
use super::*;
use crate::device::{MsiMessage, Width};
use crate::modes::type1::fixture::{Bell, clock};
use alloc::sync::Arc;
use alloc::vec::Vec;
use proptest::prelude::*;

struct At(u64);

impl Instant for At {
    fn ns(&self) -> u64 {
        self.0
    }
    fn cycles(&self) -> u64 {
        self.0
    }
    fn frequency(&self) -> u64 {
        1_000_000_000
    }
}

const NOW: At = At(1000);

struct Bench {
    apics: Vec<LocalApic>,
    bus: Arc<ApicBus>,
}

/// So many APICs, enabled, as xAPICs.
fn bench(count: u32) -> Bench {
    let clock = clock();
    let inboxes: Vec<_> =
        (0..count).map(|_| Arc::new(Inbox::new(Bell::new(clock.clone())))).collect();
    let bus = Arc::new(ApicBus::new(inboxes.clone()));
    let apics = (0..).zip(inboxes).map(|(id, inbox)| LocalApic::new(id, 40, bus.clone(), inbox));
    let mut bench = Bench { apics: apics.collect(), bus };
    for index in 0..bench.apics.len() {
        bench.write(index, n::SVR, 0x1ff);
    }
    bench
}

impl Bench {
    fn write(&mut self, index: usize, register: u8, value: u32) -> Option<u8> {
        let offset = u64::from(register) << 4;
        self.apics[index].write_page(offset, Width::Long, value.into(), &NOW)
    }

    fn read(&mut self, index: usize, register: u8) -> u32 {
        let offset = u64::from(register) << 4;
        u32::try_from(self.apics[index].read_page(offset, Width::Long, &NOW)).unwrap()
    }

    /// Which APICs have got the vector since the last call.
    fn got(&mut self, vector: u8) -> Vec<usize> {
        let take = |apic: &mut LocalApic| {
            apic.accept();
            let found = apic.deliverable() == Some(vector);
            if found {
                apic.begin(vector);
                apic.end();
            }
            found
        };
        let apics = self.apics.iter_mut().enumerate();
        apics.filter_map(|(index, apic)| take(apic).then_some(index)).collect()
    }

    fn x2apic(&mut self) {
        for apic in &mut self.apics {
            apic.set_base(apic.base() | 0xc00).unwrap();
        }
    }

    fn message(&self, address: u64, data: u32) {
        self.bus.deliver(&Interrupt::from(MsiMessage { device: 0, address, data }));
    }
}

#[test]
fn registers_after_reset() {
    let mut bench = bench(2);
    bench.apics[1].reset();
    let expected = [
        (n::ID, 1 << 24),
        (n::VERSION, 0x5_0014),
        (n::TPR, 0),
        (n::LDR, 0),
        (n::DFR, u32::MAX),
        (n::SVR, 0xff),
        (n::LVT_TIMER, 0x1_0000),
        (n::LVT_ERROR, 0x1_0000),
        (n::DIVIDE, 0),
    ];
    for (register, value) in expected {
        assert_eq!(bench.read(1, register), value, "{register:#x}");
    }
    assert_eq!(bench.apics[0].base(), 0xfee0_0900);
    assert_eq!(bench.apics[1].base(), 0xfee0_0800);
    // While it is disabled by software its local vector table stays masked.
    bench.write(1, n::LVT_TIMER, 0x30);
    assert_eq!(bench.read(1, n::LVT_TIMER), 0x1_0030);
}

#[test]
fn the_highest_comes_first_and_only_what_is_above_the_priority() {
    let mut bench = bench(1);
    for vector in [0x31, 0x45, 0x42] {
        bench.message(0xfee0_0000, vector);
    }
    let apic = &mut bench.apics[0];
    apic.accept();
    assert_eq!(apic.deliverable(), Some(0x45));
    apic.begin(0x45);
    assert_eq!(apic.deliverable(), None, "0x42 is of the same class");
    bench.message(0xfee0_0000, 0x52);
    let apic = &mut bench.apics[0];
    apic.accept();
    assert_eq!(apic.deliverable(), Some(0x52));
    apic.begin(0x52);
    assert_eq!((apic.end(), apic.deliverable()), (None, None));
    assert_eq!((apic.end(), apic.deliverable()), (None, Some(0x42)));
    apic.set_task_priority(0x40);
    assert_eq!((apic.deliverable(), apic.held_by_priority()), (None, Some(4)));
    apic.set_task_priority(0x30);
    assert_eq!((apic.deliverable(), apic.held_by_priority()), (Some(0x42), None));
    apic.begin(0x42);
    assert_eq!(bench.read(0, n::PPR), 0x40);
    assert_eq!(bench.read(0, n::ISR + 2), 1 << 2);
    assert_eq!(bench.read(0, n::IRR + 1), 1 << 0x11);
}

#[test]
fn the_end_of_a_level_is_told() {
    let mut bench = bench(1);
    bench.message(0xfee0_0000, 0xc031);
    bench.message(0xfee0_0000, 0x42);
    bench.apics[0].accept();
    for vector in [0x42, 0x31] {
        bench.apics[0].begin(vector);
    }
    assert_eq!(bench.read(0, n::TMR + 1), 1 << 0x11);
    assert!(bench.apics[0].end_is_silent(), "0x42 is an edge and nothing waits");
    assert_eq!(bench.write(0, n::EOI, 0), None);
    assert!(!bench.apics[0].end_is_silent(), "0x31 is a level");
    assert_eq!(bench.write(0, n::EOI, 0), Some(0x31));
    assert_eq!(bench.write(0, n::EOI, 0), None);
}

#[test]
fn logical_destinations_of_xapics() {
    let mut bench = bench(4);
    for (index, logical) in [1u32, 2, 4, 8].into_iter().enumerate() {
        bench.write(index, n::LDR, logical << 24);
    }
    let send = |bench: &mut Bench, to: u32, command: u32| {
        bench.write(0, n::ICR_HIGH, to << 24);
        bench.write(0, n::ICR, command);
        bench.got(0x41)
    };
    assert_eq!(send(&mut bench, 0b1010, 0x4841), [1, 3]);
    assert_eq!(send(&mut bench, 0xff, 0x4841), [0, 1, 2, 3]);
    assert_eq!(send(&mut bench, 2, 0x4041), [2]);
    assert_eq!(send(&mut bench, 0xff, 0x4041), [0, 1, 2, 3]);
    assert_eq!(send(&mut bench, 9, 0x4041), [0usize; 0]);
    assert_eq!(send(&mut bench, 0, 0x4_4041), [0]);
    assert_eq!(send(&mut bench, 0, 0x8_4041), [0, 1, 2, 3]);
    assert_eq!(send(&mut bench, 0, 0xc_4041), [1, 2, 3]);
    // The cluster model: cluster 0 and 1, members 1 and 2.
    for (index, logical) in [0x01u32, 0x02, 0x11, 0x12].into_iter().enumerate() {
        bench.write(index, n::DFR, 0x0fff_ffff);
        bench.write(index, n::LDR, logical << 24);
    }
    assert_eq!(send(&mut bench, 0x13, 0x4841), [2, 3]);
    assert_eq!(send(&mut bench, 0x02, 0x4841), [1]);
    assert_eq!(send(&mut bench, 0xff, 0x4841), [0, 1, 2, 3]);
}

#[test]
fn the_lowest_priority_takes_turns_among_the_enabled() {
    let mut bench = bench(4);
    for index in 0..4 {
        bench.write(index, n::LDR, 1 << (24 + index));
    }
    bench.write(2, n::SVR, 0xff);
    let mut counts = [0; 4];
    for _ in 0..30 {
        bench.message(0xfee0_f004, 0x141);
        let got = bench.got(0x41);
        assert_eq!(got.len(), 1);
        counts[got[0]] += 1;
    }
    assert_eq!(counts, [10, 10, 0, 10]);
}

#[test]
fn an_x2apic_has_its_registers_in_msrs() {
    let mut bench = bench(20);
    assert_eq!(bench.apics[0].read_msr(n::ID, &NOW), Err(Refused));
    bench.x2apic();
    assert_eq!(bench.apics[0].page(), None);
    let msr = |bench: &mut Bench, index: usize, register, value| {
        bench.apics[index].write_msr(register, value, &NOW)
    };
    assert_eq!(bench.apics[17].read_msr(n::ID, &NOW), Ok(17));
    assert_eq!(bench.apics[17].read_msr(n::LDR, &NOW), Ok(0x1_0002));
    for (to, command, expected) in [
        (0x1_0006, 0x0841, Vec::from([17, 18])),
        (5, 0x0041, Vec::from([5])),
        (u64::from(u32::MAX), 0x0041, (0..20).collect()),
        (0xff, 0x0041, Vec::new()),
    ] {
        assert_eq!(msr(&mut bench, 0, n::ICR, to << 32 | command), Ok(None));
        assert_eq!(bench.got(0x41), expected, "{to:#x}");
    }
    assert_eq!(msr(&mut bench, 3, n::SELF_IPI, 0x41), Ok(None));
    assert_eq!(bench.got(0x41), [3]);
    for (register, value) in [
        (n::EOI, 1),
        (n::ESR, 1),
        (n::TPR, 0x100),
        (n::SVR, 0x1_0000),
        (n::ICR, 1 << 20),
        (n::LVT_TIMER, 1 << 20),
        (n::LVT_TIMER, 1 << 40),
        (n::ID, 0),
        (n::LDR, 0),
        (n::DFR, 0),
        (n::ICR_HIGH, 0),
        (0x2f, 0),
    ] {
        assert_eq!(msr(&mut bench, 0, register, value), Err(Refused), "{register:#x}");
    }
    assert_eq!(bench.apics[0].read_msr(n::SELF_IPI, &NOW), Err(Refused));
}

#[test]
fn modes_change_only_as_the_manual_allows() {
    let mut bench = bench(1);
    let apic = &mut bench.apics[0];
    let base = 0xfee0_0100;
    let (off, x, x2, bad) = (base, base | 0x800, base | 0xc00, base | 0x400);
    for (from, allowed, refused) in [
        (x, Vec::from([x, x2, off]), Vec::from([bad])),
        (x2, Vec::from([x2, off]), Vec::from([x, bad])),
        (off, Vec::from([off, x]), Vec::from([x2, bad])),
    ] {
        let mut reach = |to: u64| {
            apic.reset();
            if from == x2 || from == off {
                apic.set_base(from).unwrap();
            }
            apic.set_base(to)
        };
        assert!(allowed.into_iter().all(|to| reach(to).is_ok()), "{from:#x}");
        assert!(refused.into_iter().all(|to| reach(to).is_err()), "{from:#x}");
    }
    apic.reset();
    assert!(apic.set_base(x | 1).is_err() && apic.set_base(x | 1 << 60).is_err());
    assert!(apic.set_base(x | 1 << 40).is_err(), "this processor has 40 bits");
    apic.set_base(x | 1 << 39).unwrap();
    apic.set_base(0xd000_0800).unwrap();
    assert_eq!((apic.page(), apic.base()), (Some(0xd000_0000), 0xd000_0900));
}

#[test]
fn errors_are_latched() {
    let mut bench = bench(1);
    bench.write(0, n::LVT_ERROR, 0x33);
    bench.write(0, n::ICR, 0x4_4005);
    assert_eq!(bench.read(0, n::ESR), 0);
    bench.write(0, n::ESR, 0);
    assert_eq!(bench.read(0, n::ESR), 1 << 5);
    assert_eq!(bench.apics[0].deliverable(), Some(0x33));
    bench.write(0, n::ESR, 0);
    assert_eq!(bench.read(0, n::ESR), 0);
    bench.read(0, 0x3a);
    bench.write(0, n::ESR, 0);
    assert_eq!(bench.read(0, n::ESR), 1 << 7);
}

#[test]
fn start_up_and_nmi_reach_the_inbox() {
    let mut bench = bench(2);
    let inbox = bench.bus.inboxes()[1].clone();
    bench.write(0, n::ICR_HIGH, 1 << 24);
    for command in [0xc500, 0x8500, 0x4699, 0x469a, 0x4400] {
        bench.write(0, n::ICR, command);
    }
    let (requests, vector) = inbox.take();
    assert_eq!((requests, vector), (Requests::INIT | Requests::STARTUP | Requests::NMI, 0x99));
    // INIT voids a start-up that came before.
    bench.write(0, n::ICR, 0x4699);
    bench.write(0, n::ICR, 0xc500);
    assert_eq!(inbox.take(), (Requests::INIT, 0));
}

#[test]
fn the_pic_comes_through_lint0_or_past_an_apic_that_is_off() {
    let mut bench = bench(1);
    assert!(!bench.apics[0].takes_external());
    bench.write(0, n::LVT_TIMER + 3, 0x700);
    assert!(bench.apics[0].takes_external());
    bench.write(0, n::LVT_TIMER + 3, 0x1_0700);
    assert!(!bench.apics[0].takes_external());
    bench.apics[0].set_base(0xfee0_0000).unwrap();
    assert!(bench.apics[0].takes_external());
    assert_eq!(bench.apics[0].deliverable(), None);
}

#[test]
fn a_change_of_the_timers_mode_disarms_it() {
    let mut bench = bench(1);
    bench.write(0, n::LVT_TIMER, 0x4_0040);
    bench.apics[0].set_tsc_deadline(5000, &NOW);
    assert_eq!(bench.apics[0].deadline(), Some(5000));
    bench.write(0, n::INITIAL_COUNT, 7);
    assert_eq!(bench.read(0, n::INITIAL_COUNT), 0, "of no use in this mode");
    bench.write(0, n::LVT_TIMER, 0x40);
    assert_eq!((bench.apics[0].deadline(), bench.apics[0].tsc_deadline()), (None, 0));
    bench.write(0, n::INITIAL_COUNT, 70);
    bench.write(0, n::LVT_TIMER, 0x2_0040);
    assert_eq!(bench.apics[0].deadline(), Some(1140));
    bench.apics[0].set_tsc_deadline(5000, &NOW);
    assert_eq!(bench.apics[0].deadline(), Some(1140));
    bench.apics[0].expire(1140);
    assert_eq!(bench.apics[0].deliverable(), Some(0x40));
}

proptest! {
    /// Whatever a guest does with any of three APICs, by page or by MSR: no panic, and what is
    /// deliverable is above the processor's priority.
    #[test]
    fn any_use_has_an_answer(
        steps in prop::collection::vec((0u8..7, 0usize..3, any::<u8>(), any::<u64>()), 0..150),
    ) {
        let mut bench = bench(3);
        for (what, index, register, value) in steps {
            let apic = &mut bench.apics[index];
            let offset = (u64::from(register) << 4 | value & 0xf) & 0xfff;
            let width = Width::ALL[usize::from(register) & 3];
            match what {
                0 => { apic.read_page(offset, width, &NOW); }
                1 => { apic.write_page(offset, width, value & width.mask(), &NOW); }
                2 => { let _ = apic.read_msr(register & 0x3f, &NOW); }
                3 => { let _ = apic.write_msr(register & 0x3f, value & 0xffff_ffff, &NOW); }
                4 => { let _ = apic.set_base(value & 0xfee0_0f00 | 0xfee0_0000); }
                5 => apic.set_tsc_deadline(value, &NOW),
                _ => apic.expire(value),
            }
            apic.accept();
            if let Some(vector) = apic.deliverable() {
                let priority = apic.read_page(0xa0, Width::Long, &NOW);
                prop_assert!(!apic.is_wide() || priority < u64::from(vector));
                apic.begin(vector);
            }
        }
    }
}
