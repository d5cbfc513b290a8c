//! The mode on a backend that follows a script, and a host of vectors; and the front before it.

use super::*;
use crate::config::{HvtConfig, HvtResource, HypervisorConfig, ModeSpecificConfig, ResourceKind};
use crate::host::{BlockStore, Clock, Console, HostError, HostErrorKind, NetPort, WaitSet};
use crate::memory::{Gpa, GuestMemory, Perms};
use crate::mode::races::{Ran, start_and_stop};
use crate::mode::{Hypervisor, Reason, VcpuExit};
use crate::modes::hvt::fixture::{self, Ram};
use crate::modes::hvt::solo5_abi::{HYPERCALL_PIO_BASE, Halt, Hypercall};
use crate::syscall::{Images, RawExit, Syscalls, dispatch, encode, errno};
use crate::vcpu::{
    BackendCaps, BackendError, BackendVcpu, BackendVm, ExitHandler, VcpuState, VmEntry, VmExit,
    VmSpec,
};
use crate::vm::{Limits, State, Usage};
use alloc::string::{String, ToString};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use zerocopy::FromBytes;

/// Runs a script in place of a guest: each exit once, then it halts with status 7.
#[derive(Default)]
struct Script {
    exits: Vec<VmExit>,
    /// Instead: is interrupted for ever.
    endless: bool,
}

struct ScriptVm {
    ram: Ram,
    script: Arc<Script>,
}

struct ScriptVcpu {
    step: usize,
    script: Arc<Script>,
}

impl Backend for Arc<Script> {
    type Vm = ScriptVm;

    fn name(&self) -> &'static str {
        "script"
    }

    fn capabilities(&self) -> BackendCaps {
        BackendCaps { doorbells: false, answers_locally: false, lowest_gpa: Gpa(0), max_vcpus: 1 }
    }

    fn create_vm(&self, spec: VmSpec) -> Result<ScriptVm, BackendError> {
        Ok(ScriptVm { ram: fixture::ram(0..spec.memory), script: self.clone() })
    }
}

impl BackendVm for ScriptVm {
    type Vcpu = ScriptVcpu;

    fn memory(&self) -> &GuestMemory {
        &self.ram.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.ram.memory
    }

    fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        Ok(self.ram.memory.protect(range, perms)?)
    }

    fn cycle_frequency(&self) -> Result<u64, BackendError> {
        Ok(1_000_000_000)
    }

    fn create_vcpu(
        &self,
        _: VcpuState,
        _: Arc<dyn ExitHandler>,
    ) -> Result<ScriptVcpu, BackendError> {
        let halt = Halt { cookie: Gpa(0), exit_status: 7, reserved: 0 };
        self.ram.memory.write_obj(HALT_ARGUMENT, &halt)?;
        Ok(ScriptVcpu { step: 0, script: self.script.clone() })
    }
}

/// In the image's data, where a guest may write.
const HALT_ARGUMENT: Gpa = Gpa(0x10_5000);

impl BackendVcpu for ScriptVcpu {
    fn run(&mut self, _: VmEntry) -> Result<VmExit, BackendError> {
        if self.script.endless {
            std::thread::yield_now();
            return Ok(VmExit::Interrupted);
        }
        let exit = self.script.exits.get(self.step).cloned();
        self.step += 1;
        let port = HYPERCALL_PIO_BASE + Hypercall::Halt as u16;
        let argument = u32::try_from(HALT_ARGUMENT.0).unwrap();
        Ok(exit.unwrap_or(VmExit::Io { port, size: 4, write: Some(argument) }))
    }
}

/// A host that counts what it opened and what is still open.
#[derive(Default)]
struct Vectors {
    open: Arc<AtomicU32>,
}

struct Opened(Arc<AtomicU32>, Vec<u8>);

impl Opened {
    fn new(open: &Arc<AtomicU32>, bytes: Vec<u8>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone(), bytes)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HvtHost for Vectors {
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HostError> {
        let bytes = match path {
            "unikernel" => fixture::image(),
            "plain" => fixture::image_with(&[]),
            "manifest" => fixture::manifest(&[("other", 1)]),
            "junk" => b"#!/bin/sh".to_vec(),
            _ => return Err(HostError::new(HostErrorKind::Other, "there is no such file")),
        };
        Ok(Box::new(Opened::new(&self.open, bytes)))
    }

    fn session(&self, _: VmId, _: &str) -> Result<Box<dyn HvtSession>, HostError> {
        Ok(Box::new(Session(Opened::new(&self.open, vec![]))))
    }
}

struct Session(Opened);

impl HvtSession for Session {
    fn block(&mut self, path: &str) -> Result<Box<dyn BlockStore>, HostError> {
        let size = if path == "odd" { 513 } else { 4096 };
        Ok(Box::new(Opened::new(&self.0.0, vec![0; size])))
    }

    fn net(
        &mut self,
        handle: u32,
        interface: &str,
        _: Option<[u8; 6]>,
    ) -> Result<Box<dyn NetPort>, HostError> {
        assert_eq!((handle, interface), (2, "tap0"));
        Ok(Box::new(Opened::new(&self.0.0, vec![])))
    }

    fn lend(&mut self) -> Result<Lent, HostError> {
        let open = || Box::new(Opened::new(&self.0.0, vec![]));
        let kick = Arc::new(Inside::default());
        Ok(Lent { console: open(), clock: open(), wait: open(), kick })
    }

    fn spawn(&self, _: Box<dyn FnOnce() + Send>) -> Result<Box<dyn Task>, HostError> {
        Err(HostError::new(HostErrorKind::Other, "there are no threads"))
    }
}

#[derive(Default)]
struct Inside(AtomicBool);

impl Kick for Inside {
    fn enter(&self) {
        assert!(!self.0.swap(true, Ordering::Relaxed));
    }
    fn leave(&self) {
        assert!(self.0.swap(false, Ordering::Relaxed));
    }
    fn kick(&self) {}
}

impl Blob for Opened {
    fn len(&self) -> u64 {
        self.1.len() as u64
    }
    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        Blob::read_at(&self.1[..], offset, to)
    }
}

impl BlockStore for Opened {
    fn capacity(&self) -> u64 {
        self.1.len() as u64
    }
    fn read_at(&self, _: u64, _: GuestSlice<'_>) -> Result<(), HostError> {
        Ok(())
    }
    fn write_at(&self, _: u64, _: GuestSlice<'_>) -> Result<(), HostError> {
        Ok(())
    }
    fn flush(&self) -> Result<(), HostError> {
        Ok(())
    }
}

impl NetPort for Opened {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn mtu(&self) -> u16 {
        1500
    }
    fn send(&self, _: GuestSlice<'_>) -> Result<(), HostError> {
        Ok(())
    }
    fn receive(&self, _: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        Ok(None)
    }
}

impl Console for Opened {
    fn write(&self, _: GuestSlice<'_>) -> Result<(), HostError> {
        Ok(())
    }
}

impl Clock for Opened {
    fn wall_ns(&self) -> u64 {
        0
    }
    fn monotonic_ns(&self) -> u64 {
        0
    }
}

impl WaitSet for Opened {
    fn wait(&self, _: u64) -> Result<u64, HostError> {
        Ok(0)
    }
}

struct World {
    hypervisor: Hypervisor,
    open: Arc<AtomicU32>,
}

fn world(script: Script) -> World {
    let clock = Arc::new(Opened(Arc::new(AtomicU32::new(1)), vec![]));
    let mut hypervisor = Hypervisor::new(HypervisorConfig::default(), Limits::NONE, clock);
    let host = Vectors::default();
    let open = host.open.clone();
    let lent = HvtLent { backend: Arc::new(script), host, arch: GuestArch::X86_64 };
    hypervisor.add::<Hvt<Arc<Script>, Vectors>>(lent).unwrap();
    World { hypervisor, open }
}

fn block(name: Option<&str>, path: &str) -> HvtResource {
    let kind = ResourceKind::Block { path: path.into(), sector_size: 512 };
    HvtResource { name: name.map(String::from), kind }
}

fn net(name: Option<&str>) -> HvtResource {
    let kind = ResourceKind::Net { interface: "tap0".into(), mac: None };
    HvtResource { name: name.map(String::from), kind }
}

fn config(unikernel: &str, resources: Vec<HvtResource>) -> VmConfig {
    let hvt = HvtConfig { unikernel: Some(unikernel.into()), resources, ..HvtConfig::default() };
    VmConfig { memory: 4 << 20, mode_config: ModeSpecificConfig::Hvt(hvt), ..VmConfig::new("test") }
}

fn full() -> VmConfig {
    config("unikernel", vec![net(None), block(None, "disk")])
}

fn refused(config: VmConfig) -> String {
    let world = world(Script::default());
    let text = world.hypervisor.create_vm(config, None).unwrap_err().to_string();
    assert_eq!(world.hypervisor.ledger().usage(), Usage::default(), "{text}");
    assert_eq!(world.open.load(Ordering::Relaxed), 0, "{text}");
    text
}

#[test]
fn a_guests_life() {
    let exits = vec![VmExit::Interrupted, VmExit::Interrupted];
    let World { hypervisor, open } = world(Script { exits, endless: false });
    let id = hypervisor.create_vm(full(), None).unwrap();
    let hvt = hypervisor.mode(ModeKind::Hvt).unwrap();
    let mut vcpu = hvt.create_vcpu(id, VcpuConfig::default()).unwrap();
    assert_eq!((vcpu.vm(), vcpu.id()), (id, VcpuId(0)));
    assert!(vcpu.run().unwrap_err().to_string().contains("start it first"));
    hvt.start_vm(id).unwrap();
    assert_eq!(vcpu.run().unwrap(), VcpuExit::Exit { status: 7, cookie: None });
    let info = hvt.vm(id).unwrap();
    assert_eq!((info.snapshot.state, info.snapshot.exits.total()), (State::Stopped, 3));
    hvt.start_vm(id).unwrap();
    assert!(vcpu.run().unwrap_err().to_string().contains("create it again"));
    hvt.stop_vm(id).unwrap();
    hvt.destroy_vm(id).unwrap();
    assert!(hypervisor.mode_of(id).is_err());
    assert!(open.load(Ordering::Relaxed) > 0);
    drop(vcpu);
    assert_eq!(open.load(Ordering::Relaxed), 0);
}

#[test]
fn a_vcpu_is_made_once() {
    let World { hypervisor, .. } = world(Script::default());
    let id = hypervisor.create_vm(full(), None).unwrap();
    let hvt = hypervisor.mode_of(id).unwrap();
    assert!(hvt.create_vcpu(id, VcpuConfig { index: 1 }).is_err());
    let vcpu = hvt.create_vcpu(id, VcpuConfig::default()).unwrap();
    assert!(hvt.create_vcpu(id, VcpuConfig::default()).is_err());
    drop(vcpu);
}

#[test]
fn a_running_guest_is_stopped_from_another_thread_and_goes_on() {
    let World { hypervisor, .. } = world(Script { exits: vec![], endless: true });
    let id = hypervisor.create_vm(full(), None).unwrap();
    let hvt = hypervisor.mode_of(id).unwrap();
    let mut vcpu = hvt.create_vcpu(id, VcpuConfig::default()).unwrap();
    for _ in 0..3 {
        hvt.start_vm(id).unwrap();
        let before = hvt.vm(id).unwrap().snapshot.exits;
        let ending = std::thread::scope(|scope| {
            let thread = scope.spawn(|| vcpu.run().unwrap());
            while hvt.vm(id).unwrap().snapshot.exits == before {
                std::thread::yield_now();
            }
            hvt.stop_vm(id).unwrap();
            thread.join().unwrap()
        });
        assert_eq!(ending, VcpuExit::Interrupted);
        assert_eq!(hvt.vm(id).unwrap().snapshot.state, State::Stopped);
    }
}

#[test]
fn starts_and_stops_at_once_leave_nothing_running() {
    let World { hypervisor, .. } = world(Script { exits: vec![], endless: true });
    let id = hypervisor.create_vm(full(), None).unwrap();
    let hvt = hypervisor.mode_of(id).unwrap();
    let mut vcpu = hvt.create_vcpu(id, VcpuConfig::default()).unwrap();
    start_and_stop(
        300,
        || hvt.start_vm(id).unwrap(),
        || hvt.stop_vm(id).is_ok(),
        || match vcpu.run() {
            Ok(VcpuExit::Interrupted) => Ran::Stopped,
            Ok(other) => panic!("{other:?}"),
            Err(_) => Ran::Refused,
        },
    );
    assert_eq!(hvt.vm(id).unwrap().snapshot.state, State::Stopped);
    hvt.destroy_vm(id).unwrap();
}

/// The same by system calls: 2 starts, 3 stops, 6 makes a vCPU, 7 runs it.
#[test]
fn starts_and_stops_at_once_by_system_calls() {
    let World { hypervisor, .. } = world(Script { exits: vec![], endless: true });
    let calls = Syscalls::new(hypervisor, NoImages);
    let call = |number, vm, input: &[u8]| {
        let mut output = [0; 256];
        let result = dispatch(&calls, number, [vm, 0, 0], input, &mut output);
        result.map(|value| (value, output)).map_err(|error| error.errno())
    };
    let config = VmConfig { image: Some("plain".into()), memory: 4 << 20, ..VmConfig::new("x") };
    assert_eq!(call(1, 0, &encode(&config).unwrap()).unwrap().0, 1);
    call(6, 1, &[]).unwrap();
    start_and_stop(
        300,
        || assert_eq!(call(2, 1, &[]).unwrap().0, 0),
        || call(3, 1, &[]).is_ok(),
        || match call(7, 1, &[]) {
            Ok((_, output)) => {
                let (exit, _) = RawExit::read_from_prefix(&output).unwrap();
                assert_eq!(exit.kind, 2, "it was stopped");
                Ran::Stopped
            }
            Err(errno) => {
                assert_eq!(errno, crate::syscall::errno::EBUSY);
                Ran::Refused
            }
        },
    );
    call(4, 1, &[]).unwrap();
}

#[test]
fn what_a_guest_may_not_do_ends_it() {
    let mmio = |gpa| VmExit::Mmio { gpa: Gpa(gpa), size: 8, write: None };
    let bad = [
        (VmExit::Io { port: 0x80, size: 1, write: Some(1) }, "Invalid guest port access"),
        (mmio(0xffff_f000), "where there is no memory"),
        // What a KVM says that only emulates, of an instruction that it does not know.
        (mmio(0x10_4000), "guest memory at 0x104000 by an instruction"),
    ];
    for (exit, told) in bad {
        let World { hypervisor, .. } = world(Script { exits: vec![exit], endless: false });
        let id = hypervisor.create_vm(full(), None).unwrap();
        let hvt = hypervisor.mode_of(id).unwrap();
        let mut vcpu = hvt.create_vcpu(id, VcpuConfig::default()).unwrap();
        hvt.start_vm(id).unwrap();
        let VcpuExit::Fault(text) = vcpu.run().unwrap() else { panic!("{told}") };
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn destroying_a_vm_that_never_ran_gives_everything_back() {
    let World { hypervisor, open } = world(Script::default());
    let id = hypervisor.create_vm(full(), None).unwrap();
    assert_eq!(hypervisor.vms().len(), 1);
    let usage = Usage { vms: 1, memory: 4 << 20, vcpus: 1 };
    assert_eq!(hypervisor.ledger().usage(), usage);
    hypervisor.mode_of(id).unwrap().destroy_vm(id).unwrap();
    assert_eq!(open.load(Ordering::Relaxed), 0);
    assert_eq!(hypervisor.ledger().usage(), Usage::default());
}

#[test]
fn resources_and_devices_match_one_to_one() {
    let named = vec![block(Some("storage"), "disk"), net(Some("service"))];
    let World { hypervisor, .. } = world(Script::default());
    hypervisor.create_vm(config("unikernel", named), None).unwrap();
    hypervisor.create_vm(config("plain", vec![]), None).unwrap();
    let cases = [
        (vec![net(None)], "device 'storage' of type"),
        (vec![net(None), block(Some("storag"), "d")], "'storag'; declared are: storage"),
        (vec![net(Some("storage"))], "'storage'; declared are: service"),
        (vec![net(None), net(None)], "one NET_BASIC resource is left over"),
        (vec![net(None), block(None, "odd")], "must be block aligned"),
    ];
    for (resources, expected) in cases {
        let text = refused(config("unikernel", resources));
        assert!(text.contains(expected), "found: {text}\nexpected: {expected}");
    }
}

#[test]
fn a_manifest_of_its_own_replaces_the_images() {
    let with = |path: &str, resources| {
        let mut config = config("plain", resources);
        if let ModeSpecificConfig::Hvt(hvt) = &mut config.mode_config {
            hvt.manifest = ManifestSource::Path(path.into());
        }
        config
    };
    let World { hypervisor, .. } = world(Script::default());
    hypervisor.create_vm(with("manifest", vec![block(Some("other"), "disk")]), None).unwrap();
    assert!(refused(with("manifest", vec![])).contains("'other'"));
    assert!(refused(with("junk", vec![])).starts_with("manifest junk: "));
}

#[test]
fn every_refusal_leaves_nothing() {
    assert!(refused(config("nowhere", vec![])).starts_with("image nowhere: there is no such"));
    assert!(refused(config("junk", vec![])).starts_with("junk: "));
    assert!(refused(VmConfig { vcpus: 2, ..full() }).contains("one vCPU"));
    assert!(refused(VmConfig { memory: 8 << 30, ..full() }).contains("4K to 4G"));
    let none = VmConfig { mode: Some(ModeKind::Hvt), ..VmConfig::new("none") };
    assert!(refused(none).starts_with("no unikernel is named"));
}

#[test]
fn what_unikernels_have_not_is_said() {
    let World { hypervisor, .. } = world(Script::default());
    let id = hypervisor.create_vm(full(), None).unwrap();
    let hvt = hypervisor.mode_of(id).unwrap();
    let text = hvt.inject_interrupt(id, VcpuId(0), 32).unwrap_err().to_string();
    assert!(text.starts_with("mode hvt has no interrupts"), "{text}");
    let region = MemoryRegion { range: 0..4096, perms: Perms::READ };
    assert!(hvt.map_memory(id, region).is_err());
}

#[test]
fn the_rule_of_modes() {
    let World { hypervisor, .. } = world(Script::default());
    let resolve = |config: &VmConfig, image: Option<&[u8]>| {
        let image = image.map(|image| Opened(Arc::new(AtomicU32::new(1)), image.to_vec()));
        hypervisor.resolve(config, image.as_ref().map(|image| image as &dyn Blob))
    };
    let mut disk = vec![0; 1024];
    disk[512..520].copy_from_slice(b"EFI PART");
    let plain = VmConfig::new("x");
    let explicit = VmConfig { mode: Some(ModeKind::VirtIO), ..plain.clone() };
    let found = resolve(&explicit, Some(&disk)).unwrap();
    assert_eq!((found.mode, found.reason), (ModeKind::VirtIO, Reason::Explicit));
    assert_eq!(resolve(&full(), Some(&disk)).unwrap().reason, Reason::Explicit);
    assert_eq!(resolve(&plain, Some(&disk)).unwrap().mode, ModeKind::Type1);
    assert_eq!(resolve(&plain, Some(&fixture::image())).unwrap().mode, ModeKind::Hvt);
    let found = resolve(&plain, Some(b"what?")).unwrap();
    assert_eq!((found.mode, found.reason), (ModeKind::Hvt, Reason::Default));
    assert_eq!(resolve(&plain, None).unwrap().reason, Reason::Default);
    assert!(resolve(&plain, Some(b"QFI\xfb")).is_err());
}

#[test]
fn a_mode_without_backend_says_so_once_and_clearly() {
    let config = VmConfig { mode: Some(ModeKind::Type1), ..VmConfig::new("linux") };
    assert_eq!(
        refused(config),
        "mode type1 has no backend here, so unmodified operating systems cannot run; \
         use mode = \"hvt\" for Solo5 unikernels"
    );
}

struct NoImages;

impl Images for NoImages {
    fn open(&self, _: &str) -> Result<Box<dyn Blob>, HostError> {
        Ok(Box::new(Opened(Arc::new(AtomicU32::new(1)), fixture::image_with(&[]))))
    }
}

#[test]
fn a_guests_life_by_system_calls() {
    let World { hypervisor, open } = world(Script::default());
    let calls = Syscalls::new(hypervisor, NoImages);
    let mut output = [0; 256];
    let mut call = |number, arguments, input: &[u8]| {
        let result = dispatch(&calls, number, arguments, input, &mut output);
        (result.map_err(|error| error.errno()), output)
    };
    // Neither mode nor table: the image tells.
    let config = VmConfig { image: Some("plain".into()), memory: 4 << 20, ..VmConfig::new("x") };
    assert_eq!(call(1, [0; 3], &encode(&config).unwrap()).0, Ok(1));
    assert_eq!(call(6, [1, 0, 0], &[]).0, Ok(0));
    assert_eq!(call(7, [1, 0, 0], &[]).0, Err(errno::EBUSY));
    assert_eq!(call(2, [1, 0, 0], &[]).0, Ok(0));
    let (result, output) = call(7, [1, 0, 0], &[]);
    let (exit, _) = RawExit::read_from_prefix(&output).unwrap();
    assert_eq!((result, exit.kind, exit.status), (Ok(0), 0, 7));
    assert_eq!(call(8, [1, 0, 4096], &1u32.to_le_bytes()).0, Err(errno::EOPNOTSUPP));
    assert_eq!(call(4, [1, 0, 0], &[]).0, Ok(0));
    assert_eq!(call(7, [1, 0, 0], &[]).0, Err(errno::ESRCH));
    assert_eq!(open.load(Ordering::Relaxed), 0);
}
