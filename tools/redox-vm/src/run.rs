//! `redox-vm run`: which backend, and on it the VM.

use crate::Backend;
use crate::description::Description;
use crate::{hvt, qemu, type1};
use backend_kvm::Kvm;
use backend_kvm::pc::KvmPcs;
use clap::ValueEnum;
use hypervisor::mode::ModeKind;
use hypervisor::vcpu::VmSpec;
use redox_hvt::tell;
use std::ffi::OsString;
use std::path::PathBuf;

/// Options of `redox-vm run`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The VM's description
    pub config: PathBuf,
    /// How its vCPUs run
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
    /// Write counters as JSON when the guest ends; `-` is standard output
    #[arg(long, value_name = "FILE|-")]
    pub stats: Option<OsString>,
    /// Where the reader of standard output has gone: end the guest, or drop what it prints
    ///
    /// By default a whole machine goes on; a unikernel ends, unless SIGPIPE was ignored.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub console_gone: Option<ConsoleGone>,
    /// Say which mode and backend are used and why, and how this process confines itself
    #[arg(short, long)]
    pub verbose: bool,
}

/// What becomes of a guest whose console nobody reads any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConsoleGone {
    /// It ends with status 1
    End,
    /// It goes on
    Continue,
}

/// Runs the VM and gives the status to exit with.
///
/// # Errors
/// In words for a person.
pub fn run(options: &Options, start_ns: u64) -> Result<i32, String> {
    let description = Description::read(&options.config)?;
    if options.verbose {
        tell::warn(description.resolved);
    }
    match (description.mode(), options.backend) {
        (ModeKind::VirtIO, _) => Err("mode virtio has no backend yet: a VM of mode type1 \
                                     has virtio disks and networks"
            .to_owned()),
        (_, Backend::Qemu) => qemu::run(&description, options),
        (ModeKind::Hvt, _) => hvt::run(&description.vm, options, start_ns),
        (ModeKind::Type1, Backend::Sandbox) => {
            Err("the sandbox runs unikernels only: use --backend=kvm or --backend=qemu".to_owned())
        }
        (ModeKind::Type1, _) => type1(&description, options, start_ns),
    }
}

/// A whole machine: on KVM, or, with `auto`, on what needs no hardware.
fn type1(description: &Description, options: &Options, start_ns: u64) -> Result<i32, String> {
    let kvm = match options.backend {
        Backend::Kvm => Kvm::open().and_then(KvmPcs::new).map_err(|e| e.to_string())?,
        _ => match type1_backend() {
            Ok(kvm) => kvm,
            Err(why) => {
                if options.verbose {
                    tell::warn(format_args!("not on KVM: {why}"));
                }
                qemu::is_there().map_err(|e| format!("{e}; not on KVM either: {why}"))?;
                return qemu::run(description, options);
            }
        },
    };
    if options.verbose {
        tell::warn("backend: kvm (it runs guests at hardware speed, or was asked for)");
    }
    type1::run(&description.vm, kvm, options, start_ns)
}

/// Memory of a VM that is only tried: what the trial needs.
const TRIAL: VmSpec = VmSpec { memory: 2 << 20 };

/// KVM, where it runs whole machines at hardware speed.
///
/// # Errors
/// Why not.
pub fn type1_backend() -> Result<KvmPcs, String> {
    backend_kvm::host_can_virtualize().map_err(|e| e.to_string())?;
    let kvm = Kvm::open().map_err(|e| e.to_string())?;
    kvm.create_vm_probed(TRIAL).map_err(|e| e.to_string())?;
    KvmPcs::new(kvm).map_err(|e| e.to_string())
}
