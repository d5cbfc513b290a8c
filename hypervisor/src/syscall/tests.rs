//! Every call, every wrong field, anything at all.

use super::*;
use crate::config::{
    HvtConfig, HvtResource, HypervisorConfig, ManifestSource, ModeSpecificConfig, ResourceKind,
    Transport, Type1Config, Type1Console, Type1Disk, Type1Module, Type1Net, VirtioConfig,
    VirtioDevice, Virtualization, VmConfig,
};
use crate::host::{Blob, Clock, HostError};
use crate::mode::{Hypervisor, ModeKind, VcpuExit, VmInfo};
use crate::sync::Mutex;
use crate::vcpu::{VmExit, line};
use crate::vm::{Exits, Limits, Snapshot, State};
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::offset_of;
use proptest::prelude::*;

/// Notes what it is asked.
#[derive(Default)]
struct Notes {
    configs: Mutex<Vec<VmConfig>>,
    regions: Mutex<Vec<MemoryRegion>>,
    others: Mutex<Vec<(u32, u32, u32)>>,
}

fn one() -> VmId {
    VmId::new(1).unwrap()
}

impl Notes {
    fn note(&self, vm: VmId, a: u32, b: u32) {
        self.others.lock().push((vm.get(), a, b));
    }
}

impl Calls for Notes {
    fn query_modes(&self) -> ModeFlags {
        ModeFlags::HVT
    }
    fn vm_create(&self, config: VmConfig) -> Result<VmId, CallError> {
        self.configs.lock().push(config);
        Ok(one())
    }
    fn vm_start(&self, vm: VmId) -> Result<(), CallError> {
        self.note(vm, 2, 0);
        Ok(())
    }
    fn vm_stop(&self, vm: VmId) -> Result<(), CallError> {
        self.note(vm, 3, 0);
        Ok(())
    }
    fn vm_destroy(&self, vm: VmId) -> Result<(), CallError> {
        self.note(vm, 4, 0);
        Ok(())
    }
    fn vm_info(&self, id: VmId) -> Result<VmInfo, CallError> {
        let mut exits = Exits::default();
        (0..6).for_each(|_| exits.count(&VmExit::Halt));
        let snapshot = Snapshot {
            state: State::Running,
            memory: 4096,
            vcpus: 2,
            created_ns: 1,
            started_ns: Some(2),
            stopped_ns: None,
            ran_ns: 5,
            exits,
        };
        Ok(VmInfo { id, mode: ModeKind::Hvt, name: "é".repeat(40), snapshot })
    }
    fn vcpu_create(&self, vm: VmId, config: VcpuConfig) -> Result<VcpuId, CallError> {
        self.note(vm, 6, config.index);
        Ok(VcpuId(config.index))
    }
    fn vcpu_run(&self, vm: VmId, vcpu: VcpuId) -> Result<VcpuExit, CallError> {
        self.note(vm, 7, vcpu.0);
        Ok(VcpuExit::Fault(line(format_args!("it did it"))))
    }
    fn map_memory(&self, _: VmId, region: MemoryRegion) -> Result<(), CallError> {
        self.regions.lock().push(region);
        Ok(())
    }
    fn inject_interrupt(&self, vm: VmId, vcpu: VcpuId, vector: u32) -> Result<(), CallError> {
        self.note(vm, vcpu.0, vector);
        Ok(())
    }
}

fn call(calls: &Notes, number: u32, arguments: [u64; 3], input: &[u8]) -> Result<u64, CallError> {
    dispatch(calls, number, arguments, input, &mut [0; 256])
}

fn hvt() -> VmConfig {
    let block = ResourceKind::Block { path: "disk".into(), sector_size: 4096 };
    let net = ResourceKind::Net { interface: "tap0".into(), mac: Some([2, 0, 0, 0, 0, 9]) };
    let hvt = HvtConfig {
        unikernel: None,
        manifest: ManifestSource::Path("m".into()),
        resources: vec![
            HvtResource { name: Some("storage".into()), kind: block },
            HvtResource { name: None, kind: net },
        ],
        cmdline: "--verbose".into(),
        net_ring: false,
    };
    VmConfig {
        mode: Some(ModeKind::Hvt),
        memory: 64 << 20,
        image: Some("u.hvt".into()),
        mode_config: ModeSpecificConfig::Hvt(hvt),
        ..VmConfig::new("unikernel")
    }
}

fn virtio() -> VmConfig {
    let devices = vec![
        VirtioDevice::Net { interface: None, mac: None },
        VirtioDevice::Blk { path: "d".into(), read_only: true },
        VirtioDevice::Console,
        VirtioDevice::Fs { path: "/".into(), tag: "root".into() },
        VirtioDevice::Gpu,
    ];
    let virtio = VirtioConfig { transport: Transport::Mmio, devices };
    VmConfig { mode_config: ModeSpecificConfig::VirtIO(virtio), ..VmConfig::new("v") }
}

fn type1() -> VmConfig {
    let type1 = Type1Config {
        virtualization: Some(Virtualization::HExt),
        nested: true,
        kernel: Some("/boot/vmlinuz".into()),
        initrd: Some("/boot/initrd".into()),
        modules: ["", "quiet", &"é".repeat(300)]
            .map(|text| Type1Module { path: "/module".into(), cmdline: text.into() })
            .into(),
        cmdline: "console=ttyS0".into(),
        firmware: Some("/firmware".into()),
        tsc_khz: Some(2_100_000),
        disks: [true, false].map(|read_only| Type1Disk { path: "disk".into(), read_only }).into(),
        nets: vec![
            Type1Net { interface: None, mac: Some([2, 0, 0, 0, 0, 1]) },
            Type1Net { interface: Some("tap0".into()), mac: None },
        ],
        console: Type1Console::None,
        debug: true,
    };
    let mode_config = ModeSpecificConfig::Type1(type1);
    VmConfig {
        mode: Some(ModeKind::Type1),
        vcpus: 4,
        cpus: vec![3, 0, 1023, 3],
        mode_config,
        ..VmConfig::new("t")
    }
}

#[test]
fn structures_have_no_padding_and_these_sizes() {
    assert_eq!(size_of::<RawVmConfig>(), 120);
    assert_eq!(offset_of!(RawVmConfig, name), 16);
    assert_eq!(offset_of!(RawVmConfig, mode_config), 80);
    assert_eq!(size_of::<RawModeConfig>(), 16);
    assert_eq!(size_of::<RawEntry>(), 344);
    assert_eq!(size_of::<RawVmInfo>(), 104);
    assert_eq!(size_of::<RawExit>(), 192);
    assert_eq!(size_of::<RawPerms>(), 4);
    for (number, call) in Call::ALL.into_iter().enumerate() {
        assert_eq!(call as usize, number);
    }
}

#[test]
fn descriptions_come_through() {
    let calls = Notes::default();
    let configs = [hvt(), virtio(), type1(), VmConfig::new("plain")];
    for config in &configs {
        assert_eq!(call(&calls, 1, [0; 3], &encode(config).unwrap()).unwrap(), 1);
    }
    assert_eq!(*calls.configs.lock(), configs);
}

#[test]
fn every_other_call() {
    let calls = Notes::default();
    assert_eq!(call(&calls, 0, [0; 3], &[]).unwrap(), 4);
    for number in 2..=4 {
        assert_eq!(call(&calls, number, [1, 0, 0], &[]).unwrap(), 0);
    }
    assert_eq!(call(&calls, 6, [1, 3, 0], &[]).unwrap(), 3);
    assert_eq!(call(&calls, 9, [1, 2, 33], &[]).unwrap(), 0);
    assert_eq!(*calls.others.lock(), [(1, 2, 0), (1, 3, 0), (1, 4, 0), (1, 6, 3), (1, 2, 33)]);
    assert_eq!(call(&calls, 8, [1, 4096, 8192], &5u32.to_le_bytes()).unwrap(), 0);
    let region = MemoryRegion { range: 4096..8192, perms: Perms::READ | Perms::EXEC };
    assert_eq!(*calls.regions.lock(), [region]);

    let mut output = [0xff; 200];
    dispatch(&calls, 5, [1, 0, 0], &[], &mut output).unwrap();
    let (info, _) = RawVmInfo::read_from_prefix(&output).unwrap();
    assert_eq!((info.id, info.mode, info.state, info.exits), (1, 3, 1, 6));
    // Cut between two characters.
    assert_eq!(info.name[..62], *"é".repeat(31).as_bytes());
    assert_eq!(info.name[62..], [0, 0]);

    dispatch(&calls, 7, [1, 0, 0], &[], &mut output).unwrap();
    let (exit, _) = RawExit::read_from_prefix(&output).unwrap();
    assert_eq!((exit.kind, &exit.line[..10]), (1, &b"it did it\0"[..]));
}

#[test]
fn arguments_are_checked_one_by_one() {
    let calls = Notes::default();
    let cases: [(u32, [u64; 3], &[u8], &str); 13] = [
        (10, [0; 3], &[], "there is no system call 10"),
        (u32::MAX, [0; 3], &[], "there is no system call"),
        (0, [1, 0, 0], &[], "a reserved argument is set"),
        (2, [1, 1, 0], &[], "a reserved argument is set"),
        (2, [0; 3], &[], "VM is 0x0"),
        (2, [1 << 32, 0, 0], &[], "VM is 0x100000000"),
        (2, [1, 0, 0], &[0], "the input has 1 bytes: pass 0"),
        (6, [1, 1 << 40, 0], &[], "index is"),
        (8, [1, 1, 4096], &[0; 4], "first address is 0x1"),
        (8, [1, 4096, 4096], &[0; 4], "end is 0x1000"),
        (8, [1, 0, 4096], &[8, 0, 0, 0], "permissions is 0x8"),
        (8, [1, 0, 4096], &[0; 3], "the input has 3 bytes: pass 4"),
        (9, [1, 0, 1 << 32], &[], "vector is"),
    ];
    for (number, arguments, input, expected) in cases {
        let text = call(&calls, number, arguments, input).unwrap_err().to_string();
        assert!(text.starts_with(expected), "found: {text}\nexpected: {expected}");
    }
    for (number, length) in [(5, 103), (7, 191)] {
        let error = dispatch(&calls, number, [1, 0, 0], &[], &mut vec![0; length]).unwrap_err();
        assert!(matches!(error, CallError::Output { .. }));
    }
    assert!(calls.others.lock().is_empty() && calls.regions.lock().is_empty());
}

#[test]
fn descriptions_are_checked_field_by_field() {
    let head = size_of::<RawVmConfig>();
    let entry = head + size_of::<RawEntry>();
    let mode_config = offset_of!(RawVmConfig, mode_config);
    let cases: [(VmConfig, usize, u8, &str); 19] = [
        (hvt(), 0, 4, "mode is 0x4"),
        (hvt(), offset_of!(RawVmConfig, name) + 63, b'x', "name is not a text"),
        (hvt(), offset_of!(RawVmConfig, name), 0xff, "name is not a text"),
        (hvt(), offset_of!(RawVmConfig, entries), 3, "the input has"),
        (hvt(), offset_of!(RawVmConfig, entries) + 3, 255, "the input has"),
        (hvt(), offset_of!(RawVmConfig, cmdline_length), 0, "the input has"),
        (type1(), offset_of!(RawVmConfig, cpus), 3, "the input has"),
        (type1(), offset_of!(RawVmConfig, reserved), 1, "a reserved reserved is set"),
        (hvt(), mode_config, 9, "mode_config.kind is 0x9"),
        (hvt(), mode_config, 0, "a reserved entry count is set"),
        (hvt(), mode_config + 4, 1, "a reserved mode_config.choice"),
        (hvt(), mode_config + 8, 2, "mode_config.flags is 0x2"),
        (hvt(), mode_config + 12, 1, "a reserved mode_config.tsc_khz"),
        (hvt(), head, 3, "entry.kind is 0x3"),
        (hvt(), head + offset_of!(RawEntry, flags), 2, "entry.flags is 0x2"),
        (hvt(), head + offset_of!(RawEntry, mac), 2, "a reserved entry.mac"),
        (hvt(), entry + offset_of!(RawEntry, sector_size), 1, "a reserved entry.sector_size"),
        (hvt(), entry + offset_of!(RawEntry, reserved), 1, "a reserved entry.reserved"),
        (type1(), mode_config + 4, 5, "mode_config.choice is 0x5"),
    ];
    for (config, at, byte, expected) in cases {
        let mut bytes = encode(&config).unwrap();
        bytes[at] = byte;
        let text = decode(&bytes).unwrap_err().to_string();
        assert!(text.starts_with(expected), "found: {text}\nexpected: {expected}");
    }
    let gpu = size_of::<RawVmConfig>() + 4 * size_of::<RawEntry>();
    let mut bytes = encode(&virtio()).unwrap();
    bytes[gpu + offset_of!(RawEntry, source)] = b'x';
    assert!(matches!(decode(&bytes), Err(CallError::Reserved("entry.source"))));
    assert!(decode(&[0; 119]).is_err());
    assert!(encode(&VmConfig::new("x".repeat(64))).is_err());
}

struct Nothing;

impl Images for Nothing {
    fn open(&self, _: &str) -> Result<Box<dyn Blob>, HostError> {
        Err(HostError::from_errno(2, "open"))
    }
}

impl Clock for Nothing {
    fn wall_ns(&self) -> u64 {
        0
    }
    fn monotonic_ns(&self) -> u64 {
        0
    }
}

#[test]
fn a_hypervisor_without_modes_says_so_by_number() {
    let config = HypervisorConfig::default();
    let hypervisor = Hypervisor::new(config, Limits::NONE, Arc::new(Nothing));
    let calls = Syscalls::new(hypervisor, Nothing);
    let errno_of = |number, arguments, input: &[u8]| {
        dispatch(&calls, number, arguments, input, &mut [0; 256]).unwrap_err().errno()
    };
    assert_eq!(dispatch(&calls, 0, [0; 3], &[], &mut []).unwrap(), 0);
    assert_eq!(errno_of(1, [0; 3], &encode(&hvt()).unwrap()), errno::EOPNOTSUPP);
    let image = VmConfig { image: Some("x".into()), ..VmConfig::new("x") };
    assert_eq!(errno_of(1, [0; 3], &encode(&image).unwrap()), errno::EIO);
    let many = VmConfig { vcpus: 0, ..type1() };
    assert_eq!(errno_of(1, [0; 3], &encode(&many).unwrap()), errno::EINVAL);
    assert_eq!(errno_of(2, [1, 0, 0], &[]), errno::ESRCH);
    assert_eq!(errno_of(7, [1, 0, 0], &[]), errno::ESRCH);
    assert_eq!(errno_of(77, [0; 3], &[]), errno::ENOSYS);
}

proptest! {
    #[test]
    fn any_call_has_an_answer(
        number in 0u32..12,
        arguments in prop::array::uniform3(prop_oneof![0u64..3, any::<u64>()]),
        input: Vec<u8>,
        room in 0usize..256,
    ) {
        let _ = dispatch(&Notes::default(), number, arguments, &input, &mut vec![0; room]);
    }

    /// What is taken at all says the same when it is written again.
    #[test]
    fn damaged_descriptions_have_one_meaning_or_none(
        which in 0usize..3,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = encode(&[hvt(), virtio(), type1()][which]).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(config) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&config).unwrap()).unwrap(), config);
        }
    }
}
