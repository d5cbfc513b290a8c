//! What only one processor's loop knows: priorities, paravirtual help, and many of them at once.

use crate::config::{ModeSpecificConfig, Type1Config, VcpuConfig, VmConfig};
use crate::memory::Gpa;
use crate::mode::{HypervisorMode, ModeConfig, VcpuExit};
use crate::modes::type1::fixture::{Bell, Cpu, Scripted, ScriptedHost, clock, kernel};
use crate::modes::type1::layout::LOCAL_APIC;
use crate::modes::type1::mode::{Type1, Type1Lent};
use crate::vcpu::machine::{CpuidEntry, Event};
use crate::vm::{Ledger, Limits};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const OFF: VcpuExit = VcpuExit::Exit { status: 0, cookie: None };

fn run(vcpus: usize, program: impl Fn(u32, &mut Cpu) + Send + Sync + 'static) {
    run_with(vcpus, |_| program);
}

/// The same for a program that knows the vCPUs' threads.
fn run_with<P: Fn(u32, &mut Cpu) + Send + Sync + 'static>(
    vcpus: usize,
    program: impl FnOnce(Vec<Arc<Bell>>) -> P,
) {
    let clock = clock();
    let bells: Vec<_> = (0..vcpus).map(|_| Bell::new(clock.clone())).collect();
    let program = program(bells.clone());
    let cpuid = alloc::vec![CpuidEntry { leaf: 1, subleaf: None, registers: [0x663, 0, 0, 0] }];
    let program = Arc::new(program);
    let backend = Scripted { program, clock: clock.clone(), bells: bells.clone(), cpuid };
    let seen = Arc::default();
    let host = ScriptedHost { clock: clock.clone(), bells, seen, kernel: kernel() };
    let config = ModeConfig { ledger: Ledger::new(Limits::NONE), clock };
    let mode = Type1::init(&config, Type1Lent { backend, host }).unwrap();
    let type1 = Type1Config { kernel: Some("kernel".into()), ..Type1Config::default() };
    let count = u32::try_from(vcpus).unwrap();
    let vm = mode
        .create_vm(VmConfig {
            vcpus: count,
            memory: 4 << 20,
            mode_config: ModeSpecificConfig::Type1(type1),
            ..VmConfig::new("machine")
        })
        .unwrap();
    mode.start_vm(vm).unwrap();
    let threads: Vec<_> = (0..count)
        .map(|index| {
            let mut vcpu = mode.create_vcpu(vm, VcpuConfig { index }).unwrap();
            thread::spawn(move || vcpu.run().unwrap())
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), OFF);
    }
}

const SVR: u64 = LOCAL_APIC.start + 0xf0;
const TPR: u64 = LOCAL_APIC.start + 0x80;
const EOI: u64 = LOCAL_APIC.start + 0xb0;
const ICR: u64 = LOCAL_APIC.start + 0x300;
/// To itself.
const SELF: u32 = 0x4_4000;

/// Works until so many others are ready.
fn await_others(cpu: &mut Cpu, ready: &AtomicU32, count: u32) {
    while ready.load(Ordering::SeqCst) < count {
        cpu.read(SVR);
        thread::yield_now();
    }
}

fn interrupt(vector: u8) -> [Event; 1] {
    [Event::Interrupt { vector }]
}

fn taken(cpu: &mut Cpu) -> Vec<Event> {
    core::mem::take(&mut cpu.events)
}

#[test]
fn an_interrupt_waits_for_the_flag_and_for_the_priority() {
    run(1, |_, cpu| {
        cpu.write(SVR, 0x1ff);
        cpu.write(ICR, SELF | 0x41);
        cpu.write(ICR, SELF | 0x52);
        assert_eq!(taken(cpu), [], "interrupts are off");
        cpu.interrupts(true);
        cpu.write(TPR, 0);
        assert_eq!(taken(cpu), interrupt(0x52));
        cpu.write(TPR, 0x50);
        cpu.write(EOI, 0);
        assert_eq!(taken(cpu), [], "0x41 is below the task's priority");
        // CR8 is written without an exit; it shows in the register.
        cpu.cr8(3);
        assert_eq!(cpu.spin(), interrupt(0x41));
        assert_eq!(cpu.read(TPR), 0x30);
        cpu.write(EOI, 0);
        cpu.off();
    });
}

#[test]
fn a_halt_with_interrupts_off_is_ended_by_an_nmi() {
    let ready = AtomicU32::new(0);
    run(2, move |index, cpu| {
        cpu.write(SVR, 0x1ff);
        if index == 1 {
            cpu.write(ICR, SELF | 0x41);
            ready.store(1, Ordering::SeqCst);
            cpu.halt();
            assert_eq!(taken(cpu), [Event::Nmi]);
            cpu.off();
            return;
        }
        cpu.write(ICR, 0xc_4500);
        cpu.write(ICR, 0xc_4608);
        await_others(cpu, &ready, 1);
        cpu.write(ICR, 0xc_4400);
        cpu.interrupts(true);
        cpu.halt();
    });
}

#[test]
fn an_end_told_by_memory_costs_no_exit() {
    run(1, |_, cpu| {
        const FLAG: u64 = 0x5000;
        cpu.write(SVR, 0x1ff);
        cpu.interrupts(true);
        assert!(cpu.wrmsr(0x4b56_4d04, FLAG | 1));
        assert_eq!(cpu.rdmsr(0x4b56_4d04), Some(FLAG | 1));
        for vector in [0x41, 0x42, 0x41] {
            cpu.write(ICR, SELF | u32::from(vector));
            assert_eq!(taken(cpu), interrupt(vector));
            assert_eq!(cpu.memory().load_u32(Gpa(FLAG), Ordering::SeqCst), Ok(1));
            // The guest's end of interrupt: test and clear.
            cpu.memory().store_u32(Gpa(FLAG), 0, Ordering::SeqCst).unwrap();
        }
        assert_eq!(cpu.read(LOCAL_APIC.start + 0x120), 0, "nothing is in service");
        // With another interrupt waiting, the end has to be told.
        cpu.write(ICR, SELF | 0x52);
        taken(cpu);
        cpu.write(ICR, SELF | 0x51);
        assert_eq!(cpu.memory().load_u32(Gpa(FLAG), Ordering::SeqCst), Ok(0));
        cpu.write(EOI, 0);
        assert_eq!(taken(cpu), interrupt(0x51));
        cpu.off();
    });
}

/// Whoever starts the processor next knows nothing of the flag.
#[test]
fn init_ends_the_use_of_the_flag_in_memory() {
    const FLAG: u64 = 0x5000;
    let starts = Arc::new(AtomicU32::new(0));
    run(2, move |index, cpu| {
        cpu.write(SVR, 0x1ff);
        if index == 1 {
            cpu.interrupts(true);
            if starts.load(Ordering::SeqCst) == 0 {
                assert!(cpu.wrmsr(0x4b56_4d04, FLAG | 1));
                starts.store(1, Ordering::SeqCst);
                cpu.spin();
                return;
            }
            assert_eq!(cpu.rdmsr(0x4b56_4d04), Some(0));
            cpu.write(ICR, SELF | 0x41);
            assert_eq!(taken(cpu), interrupt(0x41));
            assert_eq!(cpu.memory().load_u32(Gpa(FLAG), Ordering::SeqCst), Ok(0));
            cpu.off();
            return;
        }
        for starts_so_far in [1, 2] {
            cpu.write(ICR, 0xc_4500);
            cpu.write(ICR, 0xc_4608);
            if starts_so_far == 1 {
                await_others(cpu, &starts, 1);
            }
        }
        cpu.spin();
    });
}

#[test]
fn the_clock_and_the_hypercalls_are_kvms() {
    let ready = AtomicU32::new(0);
    run(2, move |index, cpu| {
        cpu.write(SVR, 0x1ff);
        if index == 1 {
            ready.store(1, Ordering::SeqCst);
            // Woken from a halt with interrupts off, as one that waits for a lock.
            cpu.halt();
            assert_eq!(taken(cpu), []);
            cpu.interrupts(true);
            cpu.halt();
            assert_eq!(taken(cpu), interrupt(0x61));
            cpu.off();
            return;
        }
        assert!(cpu.wrmsr(0x4b56_4d01, 0x6001));
        let word = |cpu: &Cpu, at: u64| cpu.memory().load_u32(Gpa(0x6000 + at), Ordering::SeqCst);
        assert_eq!(word(cpu, 0), Ok(2), "an even version");
        // 2 GHz: half a nanosecond to a cycle.
        assert_eq!((word(cpu, 24), word(cpu, 28)), (Ok(1 << 31), Ok(0x100)));
        assert!(cpu.wrmsr(0x4b56_4d00, 0x7000));
        assert_eq!(cpu.memory().load_u32(Gpa(0x7004), Ordering::SeqCst), Ok(1_700_000_000));
        // Where there is no memory nothing is written.
        assert!(cpu.wrmsr(0x4b56_4d01, 0xffff_0001));
        assert!(!cpu.wrmsr(0x4b56_4d02, 1), "no asynchronous faults");
        assert_eq!(cpu.rdmsr(0x4b56_4d03), None, "no steal time");
        cpu.write(ICR, 0xc_4500);
        cpu.write(ICR, 0xc_4608);
        await_others(cpu, &ready, 1);
        assert_eq!(cpu.hypercall(5, [0, 1, 0, 0]), 0);
        assert_eq!(cpu.hypercall(99, [0; 4]), (-1000i64).cast_unsigned());
        assert_eq!(cpu.hypercall(10, [0b110, 0, 0, 0x61]), 1, "there is no third");
        assert_eq!(cpu.hypercall(10, [1, 0, u64::MAX, 0x61]), 0);
        assert_eq!(cpu.hypercall(10, [1, 0, 0, 5]), (-22i64).cast_unsigned());
        cpu.interrupts(true);
        cpu.halt();
    });
}

#[test]
fn x2apic_and_memory_types_by_msr() {
    run(1, |_, cpu| {
        assert_eq!(cpu.rdmsr(0x1b), Some(0xfee0_0900));
        assert!(!cpu.wrmsr(0x80f, 0x1ff), "not in x2APIC mode yet");
        assert!(cpu.wrmsr(0x1b, 0xfee0_0d00));
        assert!(cpu.wrmsr(0x80f, 0x1ff));
        assert_eq!(cpu.read(SVR), u32::MAX, "no page any more");
        cpu.interrupts(true);
        assert!(cpu.wrmsr(0x83f, 0x41));
        assert_eq!(taken(cpu), interrupt(0x41));
        assert!(cpu.wrmsr(0x80b, 0));
        assert_eq!(cpu.rdmsr(0x811), Some(0));
        assert!(!cpu.wrmsr(0x8ff, 0));
        assert_eq!(cpu.rdmsr(0xfe), Some(0x508));
        assert_eq!(cpu.rdmsr(0x1234), None);
        cpu.off();
    });
}

#[test]
fn cpuid_follows_the_local_apic() {
    run(1, |_, cpu| {
        for (base, seen) in [(0xfee0_0100, false), (0xfee0_0900, true), (0xfee0_0d00, true)] {
            assert!(cpu.wrmsr(0x1b, base));
            assert_eq!(cpu.sees_apic(), seen, "{base:#x}");
        }
        cpu.off();
    });
}

/// Every processor sends to every other as fast as it can and counts what it gets: each interrupt
/// is sent when the one before has been taken, so none may be lost.
#[test]
fn a_storm_of_interrupts_loses_none() {
    const ROUNDS: u32 = 400;
    let (arrived, ready) = ([const { AtomicU32::new(0) }; 4], AtomicU32::new(0));
    run(4, move |index, cpu| {
        cpu.write(SVR, 0x1ff);
        if index == 0 {
            cpu.write(ICR, 0xc_4500);
            cpu.write(ICR, 0xc_4608);
            await_others(cpu, &ready, 3);
        } else {
            ready.fetch_add(1, Ordering::SeqCst);
        }
        cpu.interrupts(true);
        let next = (index + 1) % 4;
        let send = |cpu: &mut Cpu| {
            cpu.write(ICR + 0x10, next << 24);
            cpu.write(ICR, 0x4041);
        };
        let mine = usize::try_from(index).unwrap();
        // A token goes around: each waits in a halt or computing, in turn.
        if index == 0 {
            send(cpu);
        }
        let mut got = 0;
        while got < ROUNDS {
            let mut events = taken(cpu);
            if events.is_empty() {
                if got % 2 == 0 {
                    cpu.halt();
                    events = taken(cpu);
                } else {
                    events = cpu.spin();
                }
            }
            for event in events {
                assert_eq!(event, Event::Interrupt { vector: 0x41 });
                got += 1;
                arrived[mine].fetch_add(1, Ordering::SeqCst);
                cpu.write(EOI, 0);
                if index != 0 || got < ROUNDS {
                    send(cpu);
                }
            }
        }
        if index == 0 {
            assert!(arrived.iter().all(|count| count.load(Ordering::SeqCst) == ROUNDS));
            cpu.off();
        }
        cpu.spin();
    });
}

/// A processor that waits for a reset comes back from that late: it is started all the same.
#[test]
fn a_start_up_right_after_a_reset_is_not_lost() {
    const LOOKS: u32 = 100_000;
    let (life, started) = (AtomicU32::new(0), AtomicU32::new(0));
    run_with(2, |bells| {
        move |index, cpu: &mut Cpu| {
            if index == 1 {
                if started.fetch_add(1, Ordering::SeqCst) == 0 {
                    bells[1].hold(true);
                    cpu.triple_fault();
                }
                cpu.spin();
                return;
            }
            let lives = life.fetch_add(1, Ordering::SeqCst);
            cpu.write(SVR, 0x1ff);
            cpu.write(ICR, 0xc_4500);
            cpu.write(ICR, 0xc_4608);
            if lives == 0 {
                // It does not go on, so it is the last to come to the reset, and does it.
                while started.load(Ordering::SeqCst) == 0 || !bells[1].is_parked() {
                    thread::yield_now();
                }
                cpu.read(SVR);
                return;
            }
            bells[1].hold(false);
            let mut looks = 0;
            while started.load(Ordering::SeqCst) < 2 {
                looks += 1;
                assert!(looks < LOOKS, "the start-up is lost");
                thread::yield_now();
            }
            cpu.off();
        }
    });
}
