//! Type 1 mode: a whole machine on KVM, its serial line on this terminal.
//!
//! Order: make the machine; start the threads; give up privileges; let the vCPUs go; wait for
//! their end. vCPU threads wait before their first run until everything is given up.

mod confine;
mod end;
mod signals;

use crate::files;
use crate::obstacles;
use crate::run::{ConsoleGone, Options};
use crate::stats::StatsFile;
use backend_kvm::pc::{KvmPcs, kick_signal};
use end::End;
use host_linux::begin::begin;
use host_linux::clock::HostClock;
use host_linux::pin;
use host_linux::terminal::RawTerminal;
use host_linux::type1::LinuxHost;
use hypervisor::config::{HypervisorConfig, VcpuConfig, VmConfig};
use hypervisor::mode::{Hypervisor, HypervisorMode, ModeKind, Vcpu, VcpuExit};
use hypervisor::modes::type1::mode::{Type1, Type1Lent};
use hypervisor::vm::{Limits, VmId};
use redox_hvt::{FAILURE, tell};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};

/// Bytes of a vCPU thread's stack.
const STACK: usize = 256 << 10;

/// Runs the machine and gives the status to exit with.
///
/// # Errors
/// In words for a person.
pub fn run(vm: &VmConfig, kvm: KvmPcs, options: &Options, start_ns: u64) -> Result<i32, String> {
    pin::check(vm).map_err(|e| format!("{}: {e}", vm.name))?;
    obstacles::cut_disks(vm).iter().for_each(tell::warn);
    signals::block();
    // A child process comes with it: before there are threads, or a machine to inherit.
    let terminal = RawTerminal::stdin().map_err(|e| format!("cannot set the terminal: {e}"))?;
    let terminal = Arc::new(Mutex::new(terminal));
    let end = Arc::new(End::default());
    let left = Arc::clone(&end);
    let host = LinuxHost::new(kick_signal(), move || left.leave());
    if options.console_gone == Some(ConsoleGone::End) {
        let lost = Arc::clone(&end);
        host.on_console_lost(move || lost.by_failure());
    }
    let (mode, id) = make(vm, kvm, host.share())?;
    end.of(Arc::clone(&mode), id);
    let inputs = || files::all(vm).into_iter().chain([options.config.clone()]);
    let stats = options.stats.as_deref().map(|path| StatsFile::open(path, inputs()));
    let stats = stats.transpose()?;
    let vcpus = (0..vm.vcpus).map(|index| mode.create_vcpu(id, VcpuConfig { index }));
    let vcpus = vcpus.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;

    confine::walls(options.verbose);
    host.start().map_err(|e| format!("no thread for the console: {e}"))?;
    signals::start(&end, &terminal).map_err(|e| format!("no thread for signals: {e}"))?;
    let go = Arc::new(Barrier::new(vcpus.len() + 1));
    let ends = start(vcpus, vm, &go)?;
    confine::filter(&host, &terminal, stats.as_ref(), options.verbose)?;

    mode.start_vm(id).map_err(|e| e.to_string())?;
    end.started();
    let boot_ns = host_linux::clock::monotonic_ns();
    go.wait();
    // A vCPU that finds its machine stopped before it has run reports an error.
    let ending = wait(&ends, vm.vcpus, &*mode, id)
        .or_else(|e| if end.is_wanted() { Ok(VcpuExit::Interrupted) } else { Err(e) });
    host.finish();
    drop(terminal.lock().map(|mut terminal| terminal.take()));
    if let (Some(stats), Ok(info)) = (stats, mode.vm(id)) {
        stats.write("kvm", &info.snapshot, start_ns, boot_ns);
    }
    Ok(status(&ending?, &end))
}

/// The mode with one machine in it.
fn make(
    vm: &VmConfig,
    backend: KvmPcs,
    host: LinuxHost,
) -> Result<(Arc<dyn HypervisorMode>, VmId), String> {
    let clock = Arc::new(HostClock::new());
    let mut hypervisor = Hypervisor::new(HypervisorConfig::default(), Limits::NONE, clock);
    let lent = Type1Lent { backend, host };
    hypervisor.add::<Type1<KvmPcs, LinuxHost>>(lent).map_err(|e| e.to_string())?;
    let mode = Arc::clone(hypervisor.mode(ModeKind::Type1).map_err(|e| e.to_string())?);
    let id = mode.create_vm(vm.clone()).map_err(|e| format!("{}: {e}", vm.name))?;
    Ok((mode, id))
}

/// What a vCPU's run came to.
type Outcome = Result<VcpuExit, String>;

/// A thread for each vCPU, on its CPU where it has one, which runs and waits at `go`.
fn start(
    vcpus: Vec<Box<dyn Vcpu>>,
    vm: &VmConfig,
    go: &Arc<Barrier>,
) -> Result<Receiver<Outcome>, String> {
    let (tell, ends) = channel();
    for vcpu in vcpus {
        let (go, tell) = (Arc::clone(go), tell.clone());
        let (name, cpu) = (format!("vCPU {}", vcpu.id()), vm.cpu_of(vcpu.id().0));
        let begin = || begin(&name, STACK, move || serve(vcpu, &go, &tell));
        pin::during(cpu, begin).map_err(|e| format!("no thread for a vCPU: {e}; ask for fewer"))?;
    }
    Ok(ends)
}

fn serve(mut vcpu: Box<dyn Vcpu>, go: &Barrier, tell: &Sender<Outcome>) {
    go.wait();
    let ending = vcpu.run().map_err(|e| format!("vCPU {}: {e}", vcpu.id()));
    // The end of a thread, and of what belongs to it, takes system calls that nothing else needs.
    std::mem::forget(vcpu);
    let _ = tell.send(ending);
}

/// Waits for all vCPUs; the first failure is the machine's.
fn wait(ends: &Receiver<Outcome>, vcpus: u32, mode: &dyn HypervisorMode, id: VmId) -> Outcome {
    let mut first = None;
    for ending in ends.iter().take(usize::try_from(vcpus).unwrap_or(0)) {
        if ending.is_err() {
            // The others shall not go on alone. That it has ended already is no error.
            let _ = mode.stop_vm(id);
        }
        match &first {
            Some(Err(_)) => {}
            Some(Ok(_)) if ending.is_ok() => {}
            _ => first = Some(ending),
        }
    }
    first.unwrap_or_else(|| Err("no vCPU came to an end".to_owned()))
}

fn status(ending: &VcpuExit, end: &End) -> i32 {
    match ending {
        VcpuExit::Exit { status, .. } => *status,
        VcpuExit::Fault(text) => {
            tell::warn(text);
            FAILURE
        }
        VcpuExit::Interrupted => match end.signal() {
            None if end.has_failed() => FAILURE,
            None => 0,
            Some(signal) => {
                tell::warn(format_args!("Exiting on signal {signal}"));
                FAILURE
            }
        },
    }
}
