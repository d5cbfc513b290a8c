//! The proposal's examples word for word, every kind of mistake, and anything at all.

use super::*;
use crate::config::{
    HvtConfig, HvtResource, ManifestSource, ModeSpecificConfig, ResourceKind, Transport,
    Type1Config, Type1Console, Type1Disk, Type1Module, Type1Net, VirtioConfig, VirtioDevice,
    Virtualization,
};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use proptest::prelude::*;

const TYPE1: &str = r#"[vm]
name = "linux-vm"
mode = "type1"
vcpus = 4
memory = "2G"

[vm.type1]
# Type 1 specific config
virtualization = "vmx"  # or "svm", "el2", "h-ext"
nested = false
"#;

const VIRTIO: &str = r#"[vm]
name = "virtio-vm"
mode = "virtio"
vcpus = 2
memory = "1G"

[vm.virtio]
# VirtIO specific config
transport = "pci"  # or "mmio"

[[vm.virtio.devices]]
type = "net"
driver = "virtio-net"

[[vm.virtio.devices]]
type = "blk"
driver = "virtio-blk"
path = "/path/to/disk.img"
"#;

const HVT: &str = r#"[vm]
name = "mirageos-unikernel"
mode = "hvt"
memory = "64M"

[vm.hvt]
# HVT specific config
unikernel = "/path/to/unikernel.hvt"
manifest = "auto"  # or path to manifest

[[vm.hvt.resources]]
type = "block"
path = "/path/to/data.img"

[[vm.hvt.resources]]
type = "net"
interface = "tap0"
"#;

fn refused(text: &str) -> String {
    ConfigFile::parse(text).expect_err(text).to_string()
}

#[test]
fn the_type_1_example() {
    let vm = VmConfig::from_toml(TYPE1).unwrap();
    let type1 = Type1Config { virtualization: Some(Virtualization::Vmx), ..Type1Config::default() };
    let expected = VmConfig {
        mode: Some(ModeKind::Type1),
        vcpus: 4,
        memory: 2 << 30,
        mode_config: ModeSpecificConfig::Type1(type1),
        ..VmConfig::new("linux-vm")
    };
    assert_eq!(vm, expected);
    assert_eq!(vm.validate(ModeKind::Type1), Ok(()));
}

#[test]
fn vcpus_are_pinned_one_by_one() {
    let vm = |cpus| VmConfig::from_toml(&TYPE1.replace("memory", &format!("{cpus}\nmemory")));
    assert_eq!(vm("cpus = [3, 0x1, 0, 0]").unwrap().cpus, [3, 1, 0, 0]);
    assert!(vm("cpus = []").unwrap().cpus.is_empty() && vm("").unwrap().cpus.is_empty());
}

#[test]
fn everything_of_type_1() {
    let more = r#"kernel = "/vmlinuz"
initrd = "/initrd"
modules = [{ path = "/linux", cmdline = "quiet ro" }, { path = "/more" }]
cmdline = "console=ttyS0"
firmware = "/bios.bin"
tsc_khz = 2000000
console = "none"
debug = true
[[vm.type1.disks]]
path = "/disk.img"
read_only = true
[[vm.type1.disks]]
path = "/other.img"
[[vm.type1.nets]]
[[vm.type1.nets]]
interface = "tap0"
mac = "02:00:00:00:00:01"
"#;
    let text = format!("{TYPE1}{more}");
    let vm = VmConfig::from_toml(&text).unwrap();
    assert_eq!(vm.boot_image(), Some("/vmlinuz"));
    let disk = |path: &str, read_only| Type1Disk { path: path.into(), read_only };
    let module = |path: &str, text: &str| Type1Module { path: path.into(), cmdline: text.into() };
    let net = |interface: Option<&str>, mac| Type1Net { interface: interface.map(Into::into), mac };
    let expected = Type1Config {
        virtualization: Some(Virtualization::Vmx),
        nested: false,
        kernel: Some("/vmlinuz".into()),
        initrd: Some("/initrd".into()),
        modules: vec![module("/linux", "quiet ro"), module("/more", "")],
        cmdline: "console=ttyS0".into(),
        firmware: Some("/bios.bin".into()),
        tsc_khz: Some(2_000_000),
        disks: vec![disk("/disk.img", true), disk("/other.img", false)],
        nets: vec![net(None, None), net(Some("tap0"), Some([2, 0, 0, 0, 0, 1]))],
        console: Type1Console::None,
        debug: true,
    };
    assert_eq!(vm.type1(), expected);
    assert_eq!(vm.validate(ModeKind::Type1), Ok(()));
    let cases = [
        ("\"none\"", "\"vga\"", "unknown `console` \"vga\" at line 17"),
        ("\"console=ttyS0\"", &format!("\"{}\"", "x".repeat(2048)), "bad value \"xxx"),
        ("tsc_khz = 2000000", "tsc_khz = 99_999", "`tsc_khz` of 99999 is out of range at line 16"),
        ("tsc_khz = 2000000", "tsc_khz = 1e6", "`tsc_khz` is a number with a fraction"),
        (
            "tsc_khz",
            "tsc_mhz",
            "unknown key `tsc_mhz` at line 16, column 1: did you mean `tsc_khz`?",
        ),
        ("path = \"/disk.img\"", "", "missing key `path` in [vm.type1.disks] at line 19"),
        ("02:00:00:00:00:01", "01:00:00:00:00:01", "bad value \"01:00:00:00:00:01\" for `mac`"),
    ];
    for (what, instead, expected) in cases {
        let told = refused(&text.replacen(what, instead, 1));
        assert!(told.starts_with(expected), "{told}");
    }
    let many = "[[vm.type1.disks]]\npath = \"x\"\n".repeat(30);
    assert!(refused(&format!("{text}{many}")).contains("at most 31 entries"));
}

#[test]
fn the_virtio_example() {
    let vm = VmConfig::from_toml(VIRTIO).unwrap();
    let devices = vec![
        VirtioDevice::Net { interface: None, mac: None },
        VirtioDevice::Blk { path: "/path/to/disk.img".into(), read_only: false },
    ];
    let virtio = VirtioConfig { transport: Transport::Pci, devices };
    let expected = VmConfig {
        mode: Some(ModeKind::VirtIO),
        vcpus: 2,
        memory: 1 << 30,
        mode_config: ModeSpecificConfig::VirtIO(virtio),
        ..VmConfig::new("virtio-vm")
    };
    assert_eq!(vm, expected);
}

#[test]
fn the_hvt_example() {
    let vm = VmConfig::from_toml(HVT).unwrap();
    let block = ResourceKind::Block { path: "/path/to/data.img".into(), sector_size: 512 };
    let net = ResourceKind::Net { interface: "tap0".into(), mac: None };
    let hvt = HvtConfig {
        unikernel: Some("/path/to/unikernel.hvt".into()),
        manifest: ManifestSource::Embedded,
        resources: vec![
            HvtResource { name: None, kind: block },
            HvtResource { name: None, kind: net },
        ],
        ..HvtConfig::default()
    };
    let expected = VmConfig {
        mode: Some(ModeKind::Hvt),
        memory: 64 << 20,
        mode_config: ModeSpecificConfig::Hvt(hvt),
        ..VmConfig::new("mirageos-unikernel")
    };
    assert_eq!(vm, expected);
    assert_eq!(vm.boot_image(), Some("/path/to/unikernel.hvt"));
}

#[test]
fn everything_else_that_can_be_said() {
    let file = ConfigFile::parse(
        r#"[hypervisor]
default_mode = "virtio"
[vm]
name = "u"
image = "u.hvt"
memory = 0x200_0000
[vm.hvt]
manifest = "mft.json"
args = ["--ipv4=10.0.0.2/24", "-l", "debug"]
net_ring = false
resources = [
  { type = "block", name = "disk0", path = "d", sector_size = "4K" },
  { type = "net", name = "net0", interface = "@5", mac = "02:00:00:00:00:01" },
]"#,
    )
    .unwrap();
    assert_eq!(file.hypervisor.default_mode, ModeKind::VirtIO);
    let vm = file.vm.unwrap();
    assert_eq!((vm.mode, vm.explicit_mode()), (None, Some(ModeKind::Hvt)));
    assert_eq!((vm.memory, vm.boot_image()), (32 << 20, Some("u.hvt")));
    let hvt = vm.hvt();
    assert_eq!(hvt.manifest, ManifestSource::Path("mft.json".into()));
    assert_eq!(hvt.cmdline, "--ipv4=10.0.0.2/24 -l debug");
    assert!(!hvt.net_ring);
    let block = ResourceKind::Block { path: "d".into(), sector_size: 4096 };
    assert_eq!(hvt.resources[0], HvtResource { name: Some("disk0".into()), kind: block });
    assert_eq!(hvt.resources[1].name.as_deref(), Some("net0"));
}

#[test]
fn an_empty_file_is_all_defaults() {
    let file = ConfigFile::parse("").unwrap();
    assert_eq!(file, ConfigFile { hypervisor: HypervisorConfig::default(), vm: None });
    assert!(VmConfig::from_toml("").unwrap_err().to_string().starts_with("missing key `name`"));
    let vm = VmConfig::from_toml("vm.name = 'x'").unwrap();
    assert_eq!((vm.vcpus, vm.memory, vm.explicit_mode()), (1, 512 << 20, None));
}

/// A line in place of another of the examples, and what the refusal says.
#[test]
fn every_mistake_has_its_own_words() {
    let cases = [
        (
            HVT,
            "memory = \"64M\"",
            "memroy = \"64M\"",
            "unknown key `memroy` at line 4, column 1: did you mean `memory`?",
        ),
        (
            HVT,
            "memory = \"64M\"",
            "colour = 1",
            "unknown key `colour` at line 4, column 1: [vm] has `name`, `mode`",
        ),
        (
            HVT,
            "[vm]",
            "[hypervsor]\n[vm]",
            "unknown key `hypervsor` at line 1, column 2: did you mean `hypervisor`?",
        ),
        (
            HVT,
            "mode = \"hvt\"",
            "mode = \"hvm\"",
            "unknown `mode` \"hvm\" at line 3, column 8: did you mean \"hvt\"?",
        ),
        (
            HVT,
            "\"block\"",
            "\"tape\"",
            "unknown `type` \"tape\" at line 12, column 8: use one of \"block\", \"net\"",
        ),
        (
            HVT,
            "name = \"mirageos-unikernel\"",
            "",
            "missing key `name` in [vm] at line 1, column 1: add name = \"my-vm\"",
        ),
        (
            HVT,
            "\"mirageos-unikernel\"",
            "\"\"",
            "bad value \"\" for `name` at line 2, column 8: write 1 to 63 bytes",
        ),
        (
            HVT,
            "interface = \"tap0\"",
            "",
            "missing key `interface` in [vm.hvt.resources] at line 15",
        ),
        (
            HVT,
            "path = \"/path/to/data.img\"",
            "interface = \"tap0\"",
            "\"block\" has no `interface` at line 13, column 1: remove it",
        ),
        (
            HVT,
            "\"64M\"",
            "\"64X\"",
            "bad value \"64X\" for `memory` at line 4, column 10: not a size",
        ),
        (HVT, "\"64M\"", "\"10000\"", "bad value \"10000\" for `memory`"),
        (
            HVT,
            "\"64M\"",
            "\"32T\"",
            "`memory` of 32T is out of range at line 4, column 10: allowed is 4K to 16T",
        ),
        (
            HVT,
            "\"64M\"",
            "-1",
            "`memory` of -1 is out of range at line 4, column 10: allowed is 4K",
        ),
        (
            HVT,
            "\"64M\"",
            "\"1T\"",
            "`memory` of 1T is out of range at line 4, column 10: allowed is 4K to 4G",
        ),
        (
            HVT,
            "\"64M\"",
            "64.5",
            "`memory` is a number with a fraction at line 4, column 10: write a size",
        ),
        (
            HVT,
            "memory",
            "memory = \"1M\"\nmemory",
            "duplicate key `memory` at line 5, column 1: remove one",
        ),
        (
            HVT,
            "memory",
            "vcpus = 2\nmemory",
            "`vcpus` of 2 is out of range at line 4, column 1: allowed is 1: a unikernel",
        ),
        (
            HVT,
            "memory",
            "image = 'x'\nmemory",
            "both `vm.image` and `vm.hvt.unikernel` are given at line 4, column 1",
        ),
        (
            HVT,
            "unikernel = \"/path/to/unikernel.hvt\"",
            "",
            "missing key `unikernel` in [vm.hvt] at line 1, column 1",
        ),
        (
            HVT,
            "mode = \"hvt\"",
            "mode = \"type1\"",
            "[vm.hvt] does not belong to a VM of mode \"type1\" at line 6, column 1: remove",
        ),
        (
            HVT,
            "[vm.hvt]",
            "[vm.type1]\n[vm.hvt]",
            "[vm.type1] does not belong to a VM of mode \"hvt\" at line 6",
        ),
        (
            HVT,
            "manifest",
            "cmdline = 'a'\nargs = ['b']\nmanifest",
            "both `cmdline` and `args` are given at line 10",
        ),
        (
            HVT,
            "manifest",
            "args = ['b', 1]\nmanifest",
            "`args` is a whole number at line 9, column 14",
        ),
        (
            HVT,
            "type = \"net\"",
            "type = \"net\"\nmac = \"03:00:00:00:00:00\"",
            "bad value \"03:00:00:00:00:00\" for `mac` at line 17, column 7",
        ),
        (
            HVT,
            "type = \"net\"",
            "type = \"net\"\nname = \"a b\"",
            "bad value \"a b\" for `name` at line 17",
        ),
        (
            HVT,
            "path = \"/path/to/data.img\"",
            "path = 'd'\nsector_size = 513",
            "bad value \"513\" for `sector_size`",
        ),
        (
            HVT,
            "[[vm.hvt.resources]]\ntype = \"b",
            "[vm.hvt.resources]\ntype = \"b",
            "duplicate key `resources` at line 15",
        ),
        (
            TYPE1,
            "vcpus = 4",
            "vcpus = 256",
            "`vcpus` of 256 is out of range at line 4, column 9: allowed is 1 to 255",
        ),
        (
            TYPE1,
            "vcpus = 4",
            "vcpus = 4\ncpus = [0, 1, 2]",
            "bad value \"list of 3\" for `cpus` at line 5, column 1: write one CPU for each vCPU, \
             of which this VM has 4",
        ),
        (
            TYPE1,
            "vcpus = 4",
            "cpus = [0, 1024]",
            "`cpus` of 1024 is out of range at line 4, column 12: allowed is 0 to 1023",
        ),
        (TYPE1, "vcpus = 4", "cpus = [-1]", "`cpus` of -1 is out of range at line 4, column 9"),
        (
            TYPE1,
            "vcpus = 4",
            "cpus = 0",
            "`cpus` is a whole number at line 4, column 8: write a list",
        ),
        (TYPE1, "vcpus = 4", "cpus = ['0-3']", "`cpus` is a text at line 4, column 9"),
        (TYPE1, "vcpus = 4", "vcpus = 0", "`vcpus` of 0 is out of range"),
        (
            TYPE1,
            "vcpus = 4",
            "vcpus = \"4\"",
            "`vcpus` is a text at line 4, column 9: write a whole number",
        ),
        (
            TYPE1,
            "vcpus = 4",
            "vcpus = 99999999999999999999",
            "`vcpus` of 99999999999999999999 is out",
        ),
        (
            TYPE1,
            "\"vmx\"",
            "\"vxm\"",
            "unknown `virtualization` \"vxm\" at line 9, column 18: did you mean \"vmx\"?",
        ),
        (TYPE1, "false", "\"no\"", "`nested` is a text at line 10, column 10: write true or false"),
        (
            VIRTIO,
            "\"virtio-blk\"",
            "\"virtio-net\"",
            "bad value \"virtio-net\" for `driver` at line 17, column 10: write \"virtio-blk\"",
        ),
        (
            VIRTIO,
            "path = \"/path/to/disk.img\"",
            "",
            "missing key `path` in [vm.virtio.devices] at line 15",
        ),
        (
            VIRTIO,
            "\"pci\"",
            "\"pcie\"",
            "unknown `transport` \"pcie\" at line 9, column 13: did you mean \"pci\"?",
        ),
        (VIRTIO, "mode = \"virtio\"", "mode = virtio", "not TOML at line 3, column 8: "),
    ];
    for (example, line, instead, expected) in cases {
        assert!(example.contains(line), "{line}");
        let text = refused(&example.replacen(line, instead, 1));
        assert!(text.starts_with(expected), "found:    {text}\nexpected: {expected}");
    }
}

#[test]
fn the_first_mistake_in_the_file_is_told() {
    let text = refused("[vm]\nzzz = 1\naaa = 2\n");
    assert!(text.starts_with("unknown key `zzz` at line 2"), "{text}");
}

#[test]
fn a_strangers_text_is_shown_cut_and_harmless() {
    let text = refused(&format!("\"\\u001b[2J{}\" = 1", "x".repeat(5000)));
    assert!(!text.contains('\u{1b}') && text.len() < 400, "{text}");
}

#[test]
fn length_and_nesting_are_bounded() {
    assert!(refused(&" ".repeat(MAX_LENGTH + 1)).contains("at most 65536 bytes"));
    for text in [format!("a = {}", "[".repeat(78)), "{a=".repeat(60), "a.".repeat(30_000)] {
        assert!(refused(&text).contains("nested too deeply: at most 16 levels"), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_has_an_answer(text: String) {
        let _ = ConfigFile::parse(&text);
    }

    /// The examples with any bytes of theirs replaced: still an answer, and a refusal has a place.
    #[test]
    fn any_damage_has_an_answer(
        which in 0usize..3,
        damage in prop::collection::vec((0usize..400, "[\\[\\]{}=\"'.#a-z0-9\n ]"), 1..6),
    ) {
        let mut text = String::from([TYPE1, VIRTIO, HVT][which]);
        for (at, with) in damage {
            let at = at % text.len();
            text.replace_range(at..=at, &with);
        }
        if let Err(error) = ConfigFile::parse(&text) {
            prop_assert!(error.place.is_some(), "{}", error);
        }
    }
}
