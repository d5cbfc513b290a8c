//! The console: a thread that reads what is typed and does what it says.

use crate::log::{self, line_plain as say};
use crate::terminal::{self, Typed};
use crate::vms::Machines;
use crate::{memory, power, serial, thread, time};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use host_baremetal::console::command::{self, Command};
use host_baremetal::console::editor::Event;
use host_baremetal::cpus::CpuSet;
use hypervisor::config::Bytes;
use hypervisor::mode::ModeKind;
use hypervisor::vm::{Cause, Exits};

macro_rules! say {
    ($($text:tt)*) => { say(format_args!($($text)*)) };
}

/// How often a guest's full buffer is tried again, and how long after: for a second in all.
const PATIENCE: u32 = 100;
const RETRY_NS: u64 = 10_000_000;
/// How long a VM that was stopped is waited for. It stops at its next exit.
const STOPPING_NS: u64 = 1_000_000_000;

/// Reads and carries out what is typed, for ever.
pub fn run(machines: &Arc<Machines>) {
    serial::receive_for(thread::current());
    terminal::begin_lines();
    loop {
        while let Some(byte) = serial::receive() {
            match terminal::typed(byte) {
                Typed::Line(Event::Line(line)) => {
                    if let Err(error) = carry_out(machines, &line) {
                        say!("{error}");
                    }
                    terminal::begin_lines();
                }
                Typed::Line(Event::Complete) => complete(machines),
                Typed::Line(Event::None | Event::Abandoned) => {}
                Typed::Guest(vm, byte) => type_in(machines, vm, byte),
            }
        }
        thread::park(None);
    }
}

/// Gives a guest a byte. A guest whose buffer stays full loses it, as on any serial line.
fn type_in(machines: &Machines, vm: u32, byte: u8) {
    for _ in 0..PATIENCE {
        if machines.type_in(vm, byte) {
            return;
        }
        thread::park(Some(time::now().saturating_add(RETRY_NS)));
    }
}

fn complete(machines: &Machines) {
    let names = machines.names();
    let vms: Vec<&str> = names.iter().map(|name| &name[..]).collect();
    let configs = machines.configs().unwrap_or_default();
    let line = terminal::so_far();
    terminal::complete(&command::completions(&line, &vms, &configs));
}

fn carry_out(machines: &Arc<Machines>, line: &str) -> Result<(), String> {
    let command = command::parse(line).map_err(|error| alloc::format!("{error}"))?;
    match command {
        Command::Nothing => {}
        Command::Help => command::help(&mut |line| say!("{line}")),
        Command::List => list(machines),
        Command::Configs => machines.configs()?.iter().for_each(|name| say!("  {name}")),
        Command::Create(config) => {
            let vm = machines.create(config)?;
            say!("VM {vm} is made: `start {vm}`");
        }
        Command::Start(vm) => machines.start(machines.find(vm)?)?,
        Command::Stop(vm) => {
            let vm = machines.find(vm)?;
            machines.stop(vm)?;
            // What it says of its end comes before the prompt.
            machines.wait(vm, time::now().saturating_add(STOPPING_NS));
        }
        Command::Destroy(vm) => machines.destroy(machines.find(vm)?)?,
        Command::Stats(vm) => stats(machines, vm)?,
        Command::Attach(vm) => {
            let vm = machines.find(vm)?;
            say!("attached to VM {vm}; Ctrl-] comes back");
            terminal::attach(vm.get());
        }
        Command::Modes => modes(machines),
        Command::Log(level) => log::set_level(level),
        Command::PowerOff => power::off(),
        Command::Reboot => power::reset(),
    }
    Ok(())
}

fn list(machines: &Machines) {
    let mut lines = machines.list().peekable();
    if lines.peek().is_none() {
        say!("there is no VM: `configs` lists the descriptions, `create` makes one");
    }
    for line in lines {
        let vm = line.info;
        let snapshot = vm.snapshot;
        say!(
            "{:4}  {:16}  {:6}  {:9}  {:3} vCPU{}  {:>6}  {}",
            vm.id.get(),
            vm.name,
            alloc::format!("{}", vm.mode),
            alloc::format!("{}", snapshot.state),
            snapshot.vcpus,
            pins(&line.cpus),
            alloc::format!("{}", Bytes(snapshot.memory)),
            line.ending
        );
    }
}

/// Where vCPUs are pinned to, if they are.
fn pins(cpus: &[u32]) -> String {
    let numbers: Vec<_> = cpus.iter().map(|cpu| alloc::format!("{cpu}")).collect();
    if numbers.is_empty() { String::new() } else { alloc::format!(" on {}", numbers.join(",")) }
}

fn stats(machines: &Machines, vm: Option<&str>) -> Result<(), String> {
    let only = vm.map(|vm| machines.find(vm)).transpose()?;
    for line in machines.list() {
        let snapshot = line.info.snapshot;
        if only.is_some_and(|only| only != line.info.id) {
            continue;
        }
        let present = match (snapshot.state, snapshot.started_ns) {
            (hypervisor::vm::State::Running, Some(started)) => time::now().saturating_sub(started),
            _ => 0,
        };
        say!(
            "{:4}  {:16}  ran {} ms, {} exits",
            line.info.id.get(),
            line.info.name,
            (snapshot.ran_ns + present) / 1_000_000,
            snapshot.exits.total()
        );
        tell_exits(line.info.mode, &snapshot.exits);
        for (vcpu, cpu) in machines.places(line.info.id) {
            say!("{:24}vCPU {vcpu}: CPU {cpu}", "");
        }
    }
    if only.is_none() {
        say!(
            "{} MiB free, {} MiB of them promised to VMs, {} threads, up {} ms",
            memory::free() >> 20,
            memory::promised() >> 20,
            thread::live(),
            time::now() / 1_000_000
        );
    }
    Ok(())
}

/// What a VM's exits were for, and which hypercalls there were, the rest of them without names.
fn tell_exits(mode: ModeKind, exits: &Exits) {
    let causes = Cause::ALL.iter().map(|cause| (cause.name(), exits.of(*cause)));
    let causes: Vec<_> = causes.filter(|(_, count)| *count > 0).collect();
    for line in causes.chunks(5) {
        tell_counts("", line);
    }
    let name = |number| mode.call_name(number).unwrap_or("others");
    let calls: Vec<_> = exits.calls().map(|(number, count)| (name(number), count)).collect();
    for line in calls.chunks(5) {
        tell_counts("hypercalls: ", line);
    }
}

fn tell_counts(lead: &str, counts: &[(&str, u64)]) {
    let counts: Vec<_> =
        counts.iter().map(|(name, count)| alloc::format!("{name} {count}")).collect();
    say!("{:24}{lead}{}", "", counts.join(", "));
}

fn modes(machines: &Machines) {
    for mode in machines.modes() {
        say!(
            "{}: backend {}, up to {} vCPUs and {} of memory for a VM",
            mode.mode,
            mode.backend,
            mode.max_vcpus,
            Bytes(mode.max_memory)
        );
    }
    match &machines.guest_cpus {
        Ok(guests) if *guests == CpuSet::ALL => {}
        Ok(guests) => say!("guests run on CPUs {guests}"),
        Err(error) => say!("{error}"),
    }
    crate::cpu::local::describe(&mut |text| say!("{text}"));
}
