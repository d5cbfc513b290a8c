//! The Linux host of Type 1 mode: [`LinuxHost`].
//!
//! Order: [`LinuxHost::new`]; make the VM, which opens its kernel, disks and networks and begins
//! what serves them; give up privileges, with [`LinuxHost::rules`] of what stays;
//! [`LinuxHost::start`], which starts the threads; run the vCPUs; [`LinuxHost::finish`], which
//! writes what the guest has written last. One host has one console, so it is meant for one VM.

mod arrivals;
mod serial;
mod thread;

use crate::begin::begin;
use crate::blob::{FileBlob, OpenError};
use crate::block::FileBlock;
use crate::clock::HostClock;
use crate::confine::Rule;
use crate::net::{NetError, Port, machine_id};
use crate::terminal::Keys;
use arrivals::Arrivals;
use hypervisor::host::mac::stable_mac;
use hypervisor::host::{Blob, BlockStore, HostError, HostErrorKind, NetPort, Notices};
use hypervisor::modes::type1::host::{
    Arrival, ConsoleInput, Lent, Type1Host, Type1Session, VcpuThread,
};
use hypervisor::vm::VmId;
use rustix::io::Errno;
use serial::{Input, Output};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use thread::Thread;

/// What a network without a name is.
const DEFAULT_INTERFACE: &str = "user";

/// Linux, as a host of one whole machine.
pub struct LinuxHost {
    shared: Arc<Shared>,
}

/// What a thread does.
type Work = Box<dyn FnOnce() + Send>;

struct Shared {
    /// The signal that makes a thread leave its guest.
    kick_signal: i32,
    output: Output,
    state: Mutex<State>,
    leave: Box<dyn Fn() + Send + Sync>,
    /// What is called when nobody reads the console any more.
    lost: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    work: Vec<(&'static str, Work)>,
    /// Kernels and the like, kept open: when the guest resets its machine, nothing can be opened
    /// any more.
    files: BTreeMap<String, Arc<FileBlob>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinuxHost {
    /// A host whose vCPU threads are kicked by `kick_signal`, which the backend names, and whose
    /// console is standard input and output. `leave` is called when the person at a terminal
    /// types the sequence that leaves; see [`crate::terminal`].
    pub fn new(kick_signal: i32, leave: impl Fn() + Send + Sync + 'static) -> Self {
        let (output, leave) = (Output::stdout(), Box::new(leave));
        let (state, lost) = (Mutex::default(), OnceLock::new());
        let shared = Shared { kick_signal, output, state, leave, lost };
        Self { shared: Arc::new(shared) }
    }

    /// Calls this when the console cannot be written to any more. The machine goes on without one
    /// unless that ends it.
    pub fn on_console_lost(&self, lost: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.lost.set(Box::new(lost));
    }

    /// The same host, for the mode.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }

    /// The system calls that serving the VM takes, once it is made.
    pub fn rules(&self) -> Vec<Rule> {
        let park = "wait for work, and for locks";
        let mut rules = self.shared.state().rules.clone();
        rules.extend(self.shared.output.rules());
        rules.extend([
            Rule::any(libc::SYS_futex, park),
            Rule::any(libc::SYS_tgkill, "kick a vCPU out of its guest"),
            Rule::on_fd(libc::SYS_read, 0, "what is typed"),
        ]);
        rules
    }

    /// Starts the threads that serve the console and the networks, and waits until they run. They
    /// last as long as the process.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start(&self) -> std::io::Result<()> {
        let output = Arc::clone(&self.shared);
        begin("console output", STACK, move || {
            output.output.serve(|error| {
                let error = failed(error, "writing to the console");
                StandardError.notice(format_args!("{error}; what the guest prints is dropped"));
                output.lost.get().inspect(|lost| lost());
            });
        })?;
        let work = std::mem::take(&mut self.shared.state().work);
        work.into_iter().try_for_each(|(name, work)| begin(name, STACK, work))
    }

    /// Writes what the guest has written last; it writes no more after that.
    pub fn finish(&self) {
        self.shared.output.finish();
    }
}

/// Bytes of a thread's stack: none of them calls anything deep.
const STACK: usize = 256 << 10;

impl Type1Host for LinuxHost {
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HostError> {
        let mut state = self.shared.state();
        if let Some(open) = state.files.get(path) {
            return Ok(Box::new(Arc::clone(open)));
        }
        let blob = FileBlob::open(OsStr::new(path)).map_err(|e| unopened(e, "opening the file"))?;
        state.rules.extend(blob.rules());
        let blob = Arc::new(blob);
        state.files.insert(path.to_owned(), Arc::clone(&blob));
        Ok(Box::new(blob))
    }

    fn session(&self, _: VmId, name: &str) -> Result<Box<dyn Type1Session>, HostError> {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        Ok(Box::new(Session { shared, name, arrivals: Arrivals::new()? }))
    }
}

/// One VM's side.
struct Session {
    shared: Arc<Shared>,
    name: String,
    arrivals: Arrivals,
}

impl Type1Session for Session {
    fn disk(&mut self, path: &str, read_only: bool) -> Result<Box<dyn BlockStore>, HostError> {
        let disk = FileBlock::open_as(OsStr::new(path), read_only)
            .map_err(|e| unopened(e, "opening the disk"))?;
        self.shared.state().rules.extend(disk.machine_rules());
        Ok(Box::new(disk))
    }

    fn net(
        &mut self,
        index: u32,
        interface: Option<&str>,
        mac: Option<[u8; 6]>,
        arrived: Arc<dyn Arrival>,
    ) -> Result<Box<dyn NetPort>, HostError> {
        let mac = mac.unwrap_or_else(|| stable_mac(&machine_id(), &self.name, index));
        let interface = interface.unwrap_or(DEFAULT_INTERFACE);
        let port = Port::attach(interface, Some(mac)).map_err(refused)?;
        self.shared.state().rules.extend(port.rules());
        self.arrivals.add(port.fd(), arrived)?;
        Ok(port.into_box())
    }

    fn lend(&mut self, vcpus: u32, input: Arc<dyn ConsoleInput>) -> Result<Lent, HostError> {
        let shared = Arc::clone(&self.shared);
        let leave = move || (shared.leave)();
        let input = Input::new(input, Keys::of_stdin(), Box::new(leave));
        let mut state = self.shared.state();
        state.work.push(("console input", Box::new(move || input.serve())));
        if let Some((rules, work)) = self.arrivals.take() {
            state.rules.extend(rules);
            state.work.push(("networks", work));
        }
        let thread = |_| -> Arc<dyn VcpuThread> { Arc::new(Thread::new(self.shared.kick_signal)) };
        Ok(Lent {
            console: Box::new(self.shared.output.share()),
            notices: Arc::new(StandardError),
            clock: Arc::new(HostClock::new()),
            vcpus: (0..vcpus).map(thread).collect(),
        })
    }
}

/// Each notice is a line on standard error, written at once.
struct StandardError;

impl Notices for StandardError {
    fn notice(&self, text: std::fmt::Arguments<'_>) {
        let line = format!("redox-vm: {text}\n");
        // There is nobody to tell where that fails.
        let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
    }
}

/// The core's errors own no text.
fn unopened(error: OpenError, what: &'static str) -> HostError {
    match error {
        OpenError::System(errno) => failed(errno, what),
        OpenError::InUse => HostError::new(
            HostErrorKind::Denied,
            "another guest uses it: stop that one, or give each its own copy",
        ),
        OpenError::Kind(_) => HostError::new(
            HostErrorKind::Other,
            "this is neither a file nor a block device, one of which is needed",
        ),
    }
}

fn failed(errno: Errno, what: &'static str) -> HostError {
    HostError::from_errno(errno.raw_os_error(), what)
}

/// The core's errors own no text: a person gets it here.
fn refused(error: NetError) -> HostError {
    match error {
        NetError::System(errno) => failed(errno, "attaching the network"),
        NetError::Step(step, errno) => failed(errno, step),
        NetError::Port(_, errno) => failed(errno, "a port of this machine to forward"),
        NetError::Missing(_) => {
            HostError::new(HostErrorKind::Other, "no such interface: make it with `ip tuntap add`")
        }
        NetError::NotTap(_) => HostError::new(
            HostErrorKind::Other,
            "this is no TAP interface with one queue: `ip tuntap add NAME mode tap`",
        ),
        NetError::Down(_) => {
            HostError::new(HostErrorKind::Io, "the interface is down: `ip link set NAME up`")
        }
        NetError::Foreign(_) => HostError::new(
            HostErrorKind::Denied,
            "the interface is not yours: `ip tuntap add NAME mode tap user $USER`",
        ),
        NetError::InUse => {
            HostError::new(HostErrorKind::Other, "another program has the interface")
        }
        NetError::NoPasst => HostError::new(
            HostErrorKind::Other,
            "a user-mode network needs the program passt: install the package passt",
        ),
        NetError::Descriptor(_) => {
            HostError::new(HostErrorKind::Other, "that is not the number of an open descriptor")
        }
        NetError::UserOption(_) => HostError::new(
            HostErrorKind::Other,
            "an unknown option of a user-mode network: use tcp=HOST:GUEST, udp=HOST:GUEST, \
             address=A.B.C.D/BITS, gateway=A.B.C.D or host",
        ),
        NetError::UdpNeedsHost(_) => HostError::new(
            HostErrorKind::Other,
            "a UDP port of this machine that is forwarded to itself needs the option host, or \
             another address",
        ),
        NetError::TapFlags(_) => HostError::new(
            HostErrorKind::Other,
            "that TAP must be opened with IFF_TAP and IFF_NO_PI, without IFF_VNET_HDR",
        ),
    }
}

#[cfg(test)]
mod tests;
