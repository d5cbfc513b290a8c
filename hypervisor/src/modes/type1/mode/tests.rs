//! The mode on guests that are Rust functions, with all of the machine in between.

use super::*;
use crate::config::{ModeSpecificConfig, Type1Config, VmConfig};
use crate::device::{Effect, Effects, WorkRef};
use crate::host::Clock;
use crate::memory::Gpa;
use crate::mode::VcpuExit;
use crate::mode::races::{Ran, start_and_stop};
use crate::modes::type1::fixture::{
    BEGIN, Bell, Cpu, JumpingClock, Scripted, ScriptedHost, Seen, clock, kernel,
};
use crate::modes::type1::layout::{COM1, IO_APIC, LOCAL_APIC, RESET_PORT};
use crate::vcpu::machine::{CpuidEntry, Event};
use crate::vm::{Ledger, Limits, State};
use alloc::string::ToString;
use alloc::vec;
use core::sync::atomic::{AtomicU32, Ordering};
use std::thread;

type Mode = Type1<Scripted, ScriptedHost>;

struct Bench {
    mode: Mode,
    seen: Arc<Seen>,
    clock: Arc<JumpingClock>,
    bells: Vec<Arc<Bell>>,
}

fn bench(vcpus: usize, program: impl Fn(u32, &mut Cpu) + Send + Sync + 'static) -> Bench {
    let clock = clock();
    let bells: Vec<_> = (0..vcpus).map(|_| Bell::new(clock.clone())).collect();
    let seen = Arc::new(Seen::default());
    let cpuid = vec![CpuidEntry { leaf: 1, subleaf: None, registers: [0x663, 0, 0, 0] }];
    let backend =
        Scripted { program: Arc::new(program), clock: clock.clone(), bells: bells.clone(), cpuid };
    let host = ScriptedHost {
        clock: clock.clone(),
        bells: bells.clone(),
        seen: seen.clone(),
        kernel: kernel(),
    };
    let config = ModeConfig { ledger: Ledger::new(Limits::NONE), clock: clock.clone() };
    Bench { mode: Type1::init(&config, Type1Lent { backend, host }).unwrap(), seen, clock, bells }
}

fn config(vcpus: u32) -> VmConfig {
    let type1 = Type1Config { kernel: Some("kernel".into()), debug: true, ..Default::default() };
    VmConfig {
        vcpus,
        memory: 4 << 20,
        mode_config: ModeSpecificConfig::Type1(type1),
        ..VmConfig::new("machine")
    }
}

impl Bench {
    /// Makes a VM and runs all of its vCPUs to their end.
    fn run(&self, config: VmConfig) -> (VmId, Vec<VcpuExit>) {
        let count = config.vcpus;
        let vm = self.mode.create_vm(config).unwrap();
        self.mode.start_vm(vm).unwrap();
        let ends = self.run_all(vm, count);
        (vm, ends)
    }

    fn run_all(&self, vm: VmId, count: u32) -> Vec<VcpuExit> {
        let vcpu = |index| self.mode.create_vcpu(vm, VcpuConfig { index }).unwrap();
        let vcpus: Vec<_> = (0..count).map(vcpu).collect();
        let threads = vcpus.into_iter().map(|mut vcpu| thread::spawn(move || vcpu.run().unwrap()));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    fn console(&self) -> alloc::string::String {
        alloc::string::String::from_utf8(self.seen.console.lock().unwrap().clone()).unwrap()
    }
}

const OFF: VcpuExit = VcpuExit::Exit { status: 0, cookie: None };

#[test]
fn a_guest_says_hello_and_turns_itself_off() {
    let bench = bench(1, |_, cpu| {
        b"hello".iter().for_each(|byte| cpu.out(COM1, *byte));
        cpu.off();
    });
    let (vm, ends) = bench.run(config(1));
    assert_eq!((ends, bench.console()), (vec![OFF], "hello".into()));
    let info = bench.mode.vm(vm).unwrap();
    assert_eq!((info.snapshot.state, info.snapshot.exits.total()), (State::Stopped, 6));
    bench.mode.destroy_vm(vm).unwrap();
}

const SVR: u64 = LOCAL_APIC.start + 0xf0;
const EOI: u64 = LOCAL_APIC.start + 0xb0;
const ICR: u64 = LOCAL_APIC.start + 0x300;
const ICR_HIGH: u64 = LOCAL_APIC.start + 0x310;

/// The first vCPU starts the others, as an operating system does; each reports by an interrupt.
#[test]
fn four_processors_start_and_interrupt_each_other() {
    let bench = bench(4, |index, cpu| {
        cpu.write(SVR, 0x1ff);
        cpu.interrupts(true);
        if index > 0 {
            let crate::vcpu::VcpuState::X86(state) = cpu.state;
            assert_eq!((state.cs.base, state.rip), (0x9a000, 0));
            cpu.write(ICR_HIGH, 0);
            cpu.write(ICR, 0x4040 + index);
            cpu.halt();
            return;
        }
        cpu.write(ICR, 0xc_4500);
        cpu.write(ICR, 0xc_469a);
        cpu.write(ICR, 0xc_469a);
        let mut seen = Vec::new();
        while seen.len() < 3 {
            // Ends of interrupts let the next one in.
            if cpu.events.is_empty() {
                cpu.halt();
            }
            for event in core::mem::take(&mut cpu.events) {
                let Event::Interrupt { vector } = event else { panic!("{event:?}") };
                seen.push(vector);
                cpu.write(EOI, 0);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0x41, 0x42, 0x43]);
        cpu.off();
    });
    assert_eq!(bench.run(config(4)).1, vec![OFF; 4]);
}

#[test]
fn clock_and_deadline_follow_the_tsc_that_is_asked_for() {
    // Nanoseconds to a cycle are 1/2, and 1/2 times 8.
    let cases = [(None, 0, 500u64), (Some(2_000_100), 0, 500), (Some(250_000), 3, 4000)];
    for (tsc_khz, shift, ms) in cases {
        let bench = bench(1, move |_, cpu| {
            cpu.write(SVR, 0x1ff);
            cpu.interrupts(true);
            assert!(cpu.wrmsr(0x4b56_4d01, 0x6001));
            let word = |at: u64| cpu.memory().load_u32(Gpa(0x6000 + at), Ordering::SeqCst);
            assert_eq!((word(24), word(28)), (Ok(1 << 31), Ok(0x100 | shift)));
            cpu.write(LOCAL_APIC.start + 0x320, 0x4_0051);
            assert!(cpu.wrmsr(0x6e0, 1_000_000_000));
            cpu.halt();
            cpu.off();
        });
        let mut config = config(1);
        let ModeSpecificConfig::Type1(type1) = &mut config.mode_config else { unreachable!() };
        type1.tsc_khz = tsc_khz;
        assert_eq!(bench.run(config).1, [OFF]);
        assert_eq!(bench.clock.monotonic_ns() - BEGIN, ms * 1_000_000, "{tsc_khz:?}");
    }
}

/// Ticks by the local APIC's timer, by the PIT through the I/O APIC, and by the PIT through the
/// 8259 pair, while the processor is halted and while it computes.
#[test]
fn timers_tick() {
    let bench = bench(1, |_, cpu| {
        cpu.write(SVR, 0x1ff);
        cpu.interrupts(true);
        let tick = |vector: u8| [Event::Interrupt { vector }];
        // Periodic, every 2 * 50,000 ns.
        cpu.write(LOCAL_APIC.start + 0x320, 0x2_0050);
        cpu.write(LOCAL_APIC.start + 0x380, 50_000);
        for _ in 0..10 {
            cpu.halt();
            assert_eq!(core::mem::take(&mut cpu.events), tick(0x50));
            cpu.write(EOI, 0);
            assert_eq!(cpu.spin(), tick(0x50));
            cpu.write(EOI, 0);
        }
        cpu.write(LOCAL_APIC.start + 0x380, 0);
        // TSC-deadline.
        cpu.write(LOCAL_APIC.start + 0x320, 0x4_0051);
        assert!(cpu.wrmsr(0x6e0, 1_000_000_000));
        cpu.halt();
        assert_eq!(core::mem::take(&mut cpu.events), tick(0x51));
        assert_eq!(cpu.rdmsr(0x6e0), Some(0));
        cpu.write(EOI, 0);
        // The PIT at 100 Hz to pin 2.
        cpu.write(IO_APIC.start, 0x14);
        cpu.write(IO_APIC.start + 0x10, 0x52);
        cpu.out(0x43, 0x34);
        cpu.out(0x40, 0x9c);
        cpu.out(0x40, 0x2e);
        for _ in 0..5 {
            cpu.halt();
            assert_eq!(core::mem::take(&mut cpu.events), tick(0x52));
            cpu.write(EOI, 0);
        }
        // The same by the 8259 pair.
        cpu.write(IO_APIC.start + 0x10, 0x1_0052);
        for (port, value) in [(0x20, 0x11), (0x21, 0x60), (0x21, 4), (0x21, 1), (0x21, 0xfe)] {
            cpu.out(port, value);
        }
        cpu.write(LOCAL_APIC.start + 0x350, 0x700);
        for _ in 0..5 {
            cpu.halt();
            assert_eq!(core::mem::take(&mut cpu.events), tick(0x60));
            cpu.out(0x20, 0x20);
        }
        cpu.off();
    });
    assert_eq!(bench.run(config(1)).1, [OFF]);
}

/// What is typed comes as an interrupt, however the guest waits for it.
#[test]
fn input_wakes_a_halted_processor() {
    let bench = bench(1, |_, cpu| {
        cpu.write(SVR, 0x1ff);
        cpu.write(IO_APIC.start, 0x18);
        cpu.write(IO_APIC.start + 0x10, 0x34);
        cpu.out(COM1 + 4, 0xb);
        cpu.out(COM1 + 1, 1);
        cpu.out(0xe9, b'?');
        cpu.out(0xe9, b'\n');
        // Not before the halt, as `sti; hlt` does it.
        cpu.interrupts(true);
        cpu.halt();
        assert_eq!(cpu.events, [Event::Interrupt { vector: 0x34 }]);
        while cpu.input(COM1 + 5) & 1 != 0 {
            let byte = cpu.input(COM1);
            cpu.out(COM1, byte.to_ascii_uppercase());
        }
        cpu.off();
    });
    let vm = bench.mode.create_vm(config(1)).unwrap();
    bench.mode.start_vm(vm).unwrap();
    let mut vcpu = bench.mode.create_vcpu(vm, VcpuConfig { index: 0 }).unwrap();
    let run = thread::spawn(move || vcpu.run().unwrap());
    while !bench.console().contains('?') {
        thread::yield_now();
    }
    let input = bench.seen.input.lock().unwrap().clone().unwrap();
    assert_eq!(input.type_in(b"typed"), 5);
    assert_eq!(run.join().unwrap(), OFF);
    assert_eq!(bench.console(), "?\nTYPED");
}

/// Reset by each way that a guest has: every processor and device starts anew.
#[test]
fn every_kind_of_reset_starts_anew() {
    let lives = Arc::new(AtomicU32::new(0));
    let count = lives.clone();
    let bench = bench(2, move |index, cpu| {
        if index > 0 {
            // Busy when the reset comes.
            cpu.spin();
            return;
        }
        assert_eq!((cpu.read(SVR), cpu.input(0x92)), (0xff, 2));
        cpu.write(SVR, 0x1ff);
        cpu.write(ICR, 0xc_4500);
        cpu.write(ICR, 0xc_4601);
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => cpu.out(RESET_PORT, 6),
            1 => cpu.out(0x64, 0xfe),
            2 => cpu.out(0x92, 0xf1),
            3 => cpu.triple_fault(),
            _ => cpu.off(),
        }
        cpu.spin();
    });
    assert_eq!(bench.run(config(2)).1, [OFF, OFF]);
    assert_eq!(lives.load(Ordering::SeqCst), 5);
}

/// Work that a driver has made so that it never ends of itself.
struct Endless {
    left: AtomicU32,
    inbox: Arc<crate::modes::type1::apic::Inbox>,
}

impl crate::device::Work for Endless {
    fn run(self: Arc<Self>) -> Effects {
        let mut effects = Effects::new();
        if self.left.fetch_sub(1, Ordering::SeqCst) > 1 {
            effects.push(Effect::Work(WorkRef::new(self.clone())));
        } else {
            self.inbox.ask(crate::modes::type1::apic::Requests::NMI);
        }
        effects
    }
}

#[test]
fn a_halted_processor_gives_way_between_pieces_of_work() {
    const PIECES: u32 = 100;
    let bench = bench(1, |_, cpu| {
        cpu.halt();
        cpu.off();
    });
    let vm = bench.mode.create_vm(config(1)).unwrap();
    bench.mode.start_vm(vm).unwrap();
    let machine = bench.mode.machine(vm).unwrap();
    let inbox = machine.bus.inboxes()[0].clone();
    let work = Arc::new(Endless { left: AtomicU32::new(PIECES), inbox });
    let run = thread::spawn({
        let mut vcpu = bench.mode.create_vcpu(vm, VcpuConfig { index: 0 }).unwrap();
        move || vcpu.run().unwrap()
    });
    while !bench.bells[0].is_parked() {
        thread::yield_now();
    }
    let mut effects = Effects::new();
    effects.push(Effect::Work(WorkRef::new(work)));
    machine.board.apply(effects);
    assert_eq!(run.join().unwrap(), OFF);
    assert!(bench.bells[0].parks.load(Ordering::SeqCst) >= PIECES - 2);
}

#[test]
fn a_vm_is_stopped_and_goes_on_and_starts_anew_after_its_end() {
    let lives = Arc::new(AtomicU32::new(0));
    let count = lives.clone();
    let bench = bench(1, move |_, cpu| {
        let life = count.fetch_add(1, Ordering::SeqCst);
        cpu.out(0xe9, b'!');
        cpu.out(0xe9, b'\n');
        // It may be stopped before it computes: then the interrupt has come already.
        if life > 0 || cpu.events.is_empty() {
            cpu.spin();
        }
        cpu.off();
    });
    let vm = bench.mode.create_vm(config(1)).unwrap();
    let mut vcpu = bench.mode.create_vcpu(vm, VcpuConfig { index: 0 }).unwrap();
    assert!(vcpu.run().unwrap_err().to_string().contains("start it first"));
    bench.mode.start_vm(vm).unwrap();
    let run = thread::spawn(move || (vcpu.run().unwrap(), vcpu));
    while !bench.console().contains('!') {
        thread::yield_now();
    }
    bench.mode.stop_vm(vm).unwrap();
    let (end, mut vcpu) = run.join().unwrap();
    assert_eq!(end, VcpuExit::Interrupted);
    bench.mode.start_vm(vm).unwrap();
    // An interrupt lets it go on and end.
    bench.mode.inject_interrupt(vm, VcpuId(0), 0x20).unwrap();
    bench.mode.machine(vm).unwrap().bus.inboxes()[0].ask(crate::modes::type1::apic::Requests::NMI);
    assert_eq!(vcpu.run().unwrap(), OFF);
    assert_eq!(lives.load(Ordering::SeqCst), 1);
    bench.mode.start_vm(vm).unwrap();
    bench.mode.machine(vm).unwrap().bus.inboxes()[0].ask(crate::modes::type1::apic::Requests::NMI);
    let run = thread::spawn(move || vcpu.run().unwrap());
    while lives.load(Ordering::SeqCst) < 2 {
        thread::yield_now();
    }
    bench.mode.stop_vm(vm).unwrap();
    assert_eq!(run.join().unwrap(), VcpuExit::Interrupted);
    bench.mode.destroy_vm(vm).unwrap();
}

/// A stop that overtakes its start on the way to the machine ends that run all the same.
#[test]
fn starts_and_stops_at_once_leave_nothing_running() {
    let bench = bench(1, |_, cpu| {
        loop {
            cpu.spin();
        }
    });
    let vm = bench.mode.create_vm(config(1)).unwrap();
    let mut vcpu = bench.mode.create_vcpu(vm, VcpuConfig { index: 0 }).unwrap();
    start_and_stop(
        1000,
        || bench.mode.start_vm(vm).unwrap(),
        || bench.mode.stop_vm(vm).is_ok(),
        || match vcpu.run() {
            Ok(VcpuExit::Interrupted) => Ran::Stopped,
            Ok(other) => panic!("{other:?}"),
            Err(_) => Ran::Refused,
        },
    );
    assert_eq!(bench.mode.vm(vm).unwrap().snapshot.state, State::Stopped);
    bench.mode.destroy_vm(vm).unwrap();
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let bench = bench(2, |_, cpu| cpu.off());
    let refused = |config| bench.mode.create_vm(config).unwrap_err().to_string();
    let with = |change: fn(&mut Type1Config)| {
        let mut config = config(1);
        let ModeSpecificConfig::Type1(type1) = &mut config.mode_config else { unreachable!() };
        change(type1);
        config
    };
    assert!(refused(with(|type1| type1.nested = true)).contains("nested = false"));
    assert!(refused(with(|type1| type1.kernel = None)).starts_with("nothing to start"));
    assert!(refused(with(|type1| type1.kernel = Some("x".into()))).contains("no such file"));
    assert!(refused(config(3)).contains("1 to 2 with this backend"));
    let vm = bench.mode.create_vm(config(1)).unwrap();
    assert!(bench.mode.inject_interrupt(vm, VcpuId(1), 0x20).is_err());
    assert!(bench.mode.inject_interrupt(vm, VcpuId(0), 3).is_err());
    assert!(bench.mode.create_vcpu(vm, VcpuConfig { index: 1 }).is_err());
}

#[test]
fn firmware_starts_at_the_top_and_debug_exit_has_a_status() {
    let bench = bench(1, |_, cpu| {
        let crate::vcpu::VcpuState::X86(state) = cpu.state;
        assert_eq!((state.cs.base, state.rip, state.rdx), (0xffff_0000, 0xfff0, 0x663));
        cpu.out(0xf4, 3);
    });
    let mut config = config(1);
    let firmware = Some("firmware".into());
    let type1 = Type1Config { firmware, debug: true, ..Type1Config::default() };
    config.mode_config = ModeSpecificConfig::Type1(type1);
    assert_eq!(bench.run(config).1, [VcpuExit::Exit { status: 7, cookie: None }]);
}
