//! One run of one unikernel, from the options to the exit status.

use crate::args::{BackendChoice, ConsoleGone, Options};
use crate::attach::{self, Devices};
use crate::choose::{Chosen, choose};
use crate::confine::{self, Keep};
use crate::dumpcore::CoreDirectory;
use crate::events::Events;
use crate::gdb;
use crate::report::StatsFile;
use crate::ring::{Serving, serve};
use crate::troubles::Troubles;
use crate::{FAILURE, tell};
use backend_kvm::Kvm;
use backend_sandbox::{Sandbox, SandboxConfig};
use host_linux::blob::FileBlob;
use host_linux::clock::HostClock;
use host_linux::confine::{Rule, privileges};
use host_linux::console::FdConsole;
use host_linux::gdb::GdbPort;
use host_linux::signals;
use host_linux::wait::{Epoll, OnSignal};
use host_program::inherited;
use hypervisor::debug::DebugVcpu;
use hypervisor::memory::Gpa;
use hypervisor::modes::hvt::arch::GuestArch;
use hypervisor::modes::hvt::cmdline::CommandLine;
use hypervisor::modes::hvt::image::Image;
use hypervisor::modes::hvt::layout::Layout;
use hypervisor::modes::hvt::service::{HostEvents, Resources};
use hypervisor::modes::hvt::solo5_abi::EXIT_ABORT;
use hypervisor::modes::hvt::tender::{Guest, GuestSpec};
use hypervisor::vcpu::{Answer, Backend, BackendVm, Ending, VmSpec};
use rustix::fd::{BorrowedFd, RawFd};
use std::cell::Cell;
use std::sync::Arc;

/// Signals that the tender acts on.
const SIGNALS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1];

/// A ring wants a CPU of its own: its thread and the guest each spin while they wait for the
/// other.
fn parallel() -> bool {
    std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1)
}

/// Whether the guest goes on where nobody reads its console.
fn goes_on(options: &Options) -> bool {
    match options.console_gone {
        Some(wanted) => wanted == ConsoleGone::Continue,
        None => inherited::pipe_was_ignored(),
    }
}

/// Everything about a run but the backend.
struct Run<'a> {
    options: &'a Options,
    image: Image,
    blob: FileBlob,
    cmdline: CommandLine,
    devices: Devices,
    core: Option<CoreDirectory>,
    events: Arc<Events>,
    gdb: Option<GdbPort>,
    troubles: Option<Arc<Troubles>>,
    /// Whether the guest runs in a process of its own.
    beside: Cell<bool>,
}

/// Runs the unikernel; gives the status to exit with.
///
/// # Errors
/// What is wrong, in words for a person.
pub fn run(options: &Options, start_ns: u64) -> Result<i32, String> {
    privileges::check_personality()?;
    signals::install(&SIGNALS);
    let gdb = options.gdb.as_ref().map(gdb::open).transpose()?;
    let shown = options.kernel.display();
    let blob =
        FileBlob::open(&options.kernel).map_err(|e| format!("{shown}: Could not open: {e}"))?;
    let arch = GuestArch::X86_64;
    let mut image = Image::read(&blob, arch).map_err(|e| format!("{shown}: {e}"))?;
    // Nothing else has failures to tell.
    let tells = !options.devices.is_empty() || goes_on(options);
    let troubles = tells.then(Troubles::new).transpose()?.map(Arc::new);
    let devices = attach::attach(&options.devices, &mut image.manifest, troubles.as_ref())?;
    let cmdline = CommandLine::new(&options.arguments).map_err(|e| e.to_string())?;
    let core = options.dumpcore.as_deref().map(CoreDirectory::open).transpose()?;
    let stats = options.stats.as_deref().map(|path| StatsFile::open(path, options.files()));
    let stats = stats.transpose()?;
    let events = Arc::new(Events::new(stats, start_ns)?);
    let beside = Cell::new(false);
    let run = Run { options, image, blob, cmdline, devices, core, events, gdb, troubles, beside };
    match choose(options.backend)? {
        Chosen::Kvm(kvm) => run.on_kvm(&kvm),
        Chosen::Sandbox(why) => run.in_sandbox(&why),
    }
}

impl Run<'_> {
    fn say_backend(&self, name: &'static str, why: &str) {
        self.events.set_backend(name);
        if self.options.verbose {
            tell::warn(format_args!("backend: {name} ({why})"));
        }
    }

    /// `ring` says whether the backend profits from a ring; only a guest with a network asks.
    fn layout(&self, ring: impl FnOnce() -> bool) -> Result<Layout, String> {
        let with_ring = self.image.manifest.has_net() && self.options.net_ring.unwrap_or_else(ring);
        let layout = Layout::new(self.options.memory, with_ring).map_err(|e| e.to_string())?;
        if let Some(bytes) = layout.adjusted {
            tell::warn(format_args!("adjusting memory to {bytes} bytes"));
        }
        Ok(layout)
    }

    /// The guest's host resources, with the descriptors and system calls that they take. Where
    /// they serve the guest in this very process, a wait of the guest's must hear of signals.
    fn resources(
        &mut self,
        on_signal: Option<Arc<dyn OnSignal>>,
    ) -> Result<(Resources, Vec<RawFd>, Vec<Rule>), String> {
        let console = match &self.troubles {
            Some(log) if goes_on(self.options) => {
                FdConsole::stdout().dispensable(Arc::<Troubles>::clone(log))
            }
            _ => FdConsole::stdout(),
        };
        let console = match &on_signal {
            Some(on_signal) => console.interruptible(Arc::clone(on_signal)),
            None => console,
        };
        // SAFETY: the devices, which own these descriptors, live as long as the process.
        #[allow(unsafe_code)]
        let borrow = |&(handle, fd): &(u32, RawFd)| (handle, unsafe { BorrowedFd::borrow_raw(fd) });
        let nets: Vec<_> = self.devices.nets.iter().map(borrow).collect();
        let wait = Epoll::new(&nets, std::mem::take(&mut self.devices.buffered))
            .map_err(|e| format!("Could not create wait set: {e}"))?;
        let wait = match on_signal {
            Some(on_signal) => wait.interruptible(on_signal),
            None => wait,
        };
        let mut descriptors = std::mem::take(&mut self.devices.descriptors);
        descriptors.push(console.fd());
        descriptors.extend(wait.fds());
        let mut rules = std::mem::take(&mut self.devices.rules);
        rules.extend(console.rules());
        rules.extend(wait.rules());
        let resources = Resources {
            console: Box::new(console),
            clock: Box::new(HostClock::new()),
            wait: Box::new(wait),
            devices: std::mem::take(&mut self.devices.devices),
        };
        Ok((resources, descriptors, rules))
    }

    fn spec(&self, layout: Layout) -> GuestSpec<'_> {
        GuestSpec {
            image: &self.image,
            blob: &self.blob,
            layout,
            cmdline: &self.cmdline,
            ring_without_doorbell: self.options.net_ring == Some(true),
        }
    }

    /// With `auto`, a KVM that fails its trial is no reason to fail.
    fn on_kvm(mut self, kvm: &Kvm) -> Result<i32, String> {
        let layout = self.layout(parallel)?;
        let memory = VmSpec { memory: layout.alloc };
        let vm = match self.options.backend {
            BackendChoice::Auto => match kvm.create_vm_probed(memory) {
                Ok(vm) => vm,
                Err(why) => return self.in_sandbox(&why.to_string()),
            },
            _ => kvm.create_vm(memory).map_err(|e| e.to_string())?,
        };
        self.say_backend("kvm", "it runs guests at hardware speed, or was asked for");
        let on_signal: Arc<dyn OnSignal> = Arc::<Events>::clone(&self.events);
        let (resources, _, mut rules) = self.resources(Some(on_signal))?;
        rules.extend(confine::kvm_rules());
        if self.gdb.is_some() {
            rules.extend(confine::kvm_debug_rules());
        }
        let events: Arc<dyn HostEvents> = Arc::<Events>::clone(&self.events);
        let stats = self.events.stats();
        let mut guest = Guest::in_vm(vm, kvm, &self.spec(layout), resources, events, stats)
            .map_err(|e| self.named(e))?;
        // SAFETY: the vCPU, and with it the page, lives until the process ends: `finish` forgets
        // the guest, and where it fails the process ends at once.
        #[allow(unsafe_code)]
        unsafe {
            signals::kick_byte(guest.vcpu.immediate_exit());
        }
        self.finish(guest, rules)
    }

    fn in_sandbox(mut self, why: &str) -> Result<i32, String> {
        self.say_backend("sandbox", why);
        self.beside.set(true);
        self.troubles.iter().for_each(|troubles| troubles.set_beside());
        // A submission would be a jump to the monitor, as a hypercall is, plus the copying.
        let layout = self.layout(|| false)?;
        let (resources, descriptors, rules) = self.resources(None)?;
        signals::block(&SIGNALS);
        let keep_code = self.gdb.is_some();
        if keep_code {
            signals::block(&[host_linux::gdb::SIGNAL]);
        }
        // One that has come before is noted, and would interrupt no wait any more.
        if matches!(self.events.interrupted(), Answer::End(_)) {
            return Ok(self.interrupted());
        }
        let backend = Sandbox::new(SandboxConfig { descriptors, rules, keep_code });
        let guest = self.guest(&backend, layout, resources)?;
        let mut rules = confine::supervisor_rules();
        if keep_code {
            rules.extend(backend_sandbox::debug_rules());
        }
        self.finish(guest, rules)
    }

    fn guest<B: Backend>(
        &self,
        backend: &B,
        layout: Layout,
        resources: Resources,
    ) -> Result<Guest<B::Vm>, String> {
        let events: Arc<dyn HostEvents> = Arc::<Events>::clone(&self.events);
        let stats = self.events.stats();
        Guest::new(backend, &self.spec(layout), resources, events, stats).map_err(|e| self.named(e))
    }

    fn named(&self, error: impl std::fmt::Display) -> String {
        format!("{}: {error}", self.options.kernel.display())
    }

    /// Gives up privileges, runs the guest, and tells how it ended.
    fn finish<V: BackendVm>(
        &mut self,
        mut guest: Guest<V>,
        mut rules: Vec<Rule>,
    ) -> Result<i32, String>
    where
        V::Vcpu: DebugVcpu,
    {
        let mut debugger = None;
        if let Some(port) = self.gdb.take() {
            let Some(link) = gdb::wait(port, &mut guest, &self.events)? else {
                return Ok(self.status(&Ending::Interrupted, &guest));
            };
            rules.extend(link.rules());
            debugger = Some(link);
        }
        let core_directory = self.core.as_ref().map(CoreDirectory::fd);
        // Capabilities and landlock are a thread's own: before there is a second one. The filter
        // comes after it, because it allows nothing of what a thread does to start.
        confine::walls(core_directory, self.options.verbose);
        let ring = guest.ring.take();
        let ring = ring.map(|ring| serve(ring, &guest, self.events.stats())).transpose()?;
        rules.extend(ring.iter().flat_map(Serving::rules));
        let keep = Keep { rules, core_directory, stats: self.events.stats_fd() };
        confine::filter(keep, self.options.verbose)?;
        self.events.booted();
        let ending = match debugger {
            None => guest.run().map(Some),
            Some(link) => gdb::run(link, &mut guest),
        };
        let ending = ending.map_err(|e| e.to_string())?;
        let interrupted = matches!(ending, Some(Ending::Interrupted));
        if let Some(ring) = ring {
            ring.drain();
        }
        self.events.write_stats();
        self.troubles.iter().for_each(|troubles| troubles.tell());
        let status = ending.map_or(FAILURE, |ending| self.status(&ending, &guest));
        if interrupted && self.beside.get() {
            // It still runs, and would hold its devices for a moment longer than this process.
            drop(guest);
        } else {
            // The process ends now: the kernel takes everything back at once, and faster.
            std::mem::forget(guest);
        }
        Ok(status)
    }

    fn status<V: BackendVm>(&self, ending: &Ending, guest: &Guest<V>) -> i32 {
        match ending {
            Ending::Exit { status, cookie } => {
                if *status == EXIT_ABORT {
                    self.dump(guest, *cookie);
                }
                *status
            }
            Ending::Fault(text) => {
                tell::warn(text);
                FAILURE
            }
            Ending::Interrupted => self.interrupted(),
        }
    }

    fn interrupted(&self) -> i32 {
        tell::warn(format_args!("Exiting on signal {}", self.events.last_signal()));
        FAILURE
    }

    fn dump<V: BackendVm>(&self, guest: &Guest<V>, cookie: Option<Gpa>) {
        let Some(core) = &self.core else { return };
        let memory = guest.vm.memory();
        match core.dump(memory, memory.end().0, cookie) {
            Ok(dumped) => {
                tell::warn(format_args!(
                    "dumpcore: dumped {} pages of total {} pages",
                    dumped.pages, dumped.total
                ));
                tell::warn(format_args!("dumpcore: dumping guest core to: {}", dumped.path));
            }
            Err(text) => tell::warn(text),
        }
    }
}
