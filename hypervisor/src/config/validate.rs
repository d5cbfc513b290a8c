//! The rules that a description obeys wherever it came from: a file, a system call, a program.

use super::{
    Bytes, CPU_NUMBERS, ConfigError, HvtConfig, HvtResource, MEMORY_SIZES, ModeSpecificConfig,
    NAME_LENGTHS, PAGE_SIZE, Problem, ResourceKind, Type1Config, Type1Disk, VCPU_COUNTS,
    VirtioConfig, VmConfig,
};
use crate::mode::ModeKind;
use crate::modes::hvt::layout::{Layout, MAX_MEMORY};
use alloc::format;
use alloc::string::{String, ToString};

impl VmConfig {
    /// Checks everything that can be checked without a host, for a VM of this mode.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self, mode: ModeKind) -> Result<(), ConfigError> {
        self.check(mode).map_err(ConfigError::new)
    }

    /// Checks that the CPUs that it is pinned to are those of the machine at hand, of which
    /// `there` tells a person what it has. Whoever makes threads for vCPUs calls this first.
    ///
    /// # Errors
    /// [`Problem::NoCpu`] for the first that is not.
    pub fn check_cpus(
        &self,
        has: impl FnMut(u32) -> bool,
        there: impl core::fmt::Display,
    ) -> Result<(), ConfigError> {
        let mut has = has;
        match self.cpus.iter().copied().find(|cpu| !has(*cpu)) {
            None => Ok(()),
            Some(cpu) => Err(ConfigError::new(Problem::NoCpu { cpu, there: there.to_string() })),
        }
    }

    fn check(&self, mode: ModeKind) -> Result<(), Problem> {
        name(&self.name)?;
        vcpus(self.vcpus, Some(mode))?;
        cpus(&self.cpus, self.vcpus)?;
        memory(self.memory, Some(mode))?;
        if let Some(table) = self.mode_config.mode().filter(|table| *table != mode) {
            return Err(Problem::WrongMode { table, mode });
        }
        match &self.mode_config {
            ModeSpecificConfig::Hvt(hvt) => hvt.check(self.image.is_some()),
            ModeSpecificConfig::VirtIO(virtio) => {
                count("devices", virtio.devices.len(), VirtioConfig::MAX_DEVICES)
            }
            ModeSpecificConfig::Type1(type1) => type1.check(),
            ModeSpecificConfig::None => Ok(()),
        }
    }
}

impl HvtConfig {
    fn check(&self, has_image: bool) -> Result<(), Problem> {
        if has_image && self.unikernel.is_some() {
            return Err(one_image());
        }
        cmdline("cmdline", &self.cmdline, Self::MAX_CMDLINE)?;
        count("resources", self.resources.len(), Self::MAX_RESOURCES)?;
        for (i, resource) in self.resources.iter().enumerate() {
            resource.check()?;
            unique(resource, &self.resources[..i])?;
        }
        Ok(())
    }
}

impl HvtResource {
    fn check(&self) -> Result<(), Problem> {
        if let Some(name) = &self.name {
            device_name(name)?;
        }
        match &self.kind {
            ResourceKind::Block { path, sector_size: size } => {
                sector_size(u64::from(*size))?;
                filled("path", path)
            }
            ResourceKind::Net { interface, mac } => {
                unicast(mac.as_ref())?;
                filled("interface", interface)
            }
        }
    }
}

impl Type1Config {
    fn check(&self) -> Result<(), Problem> {
        cmdline("cmdline", &self.cmdline, Self::MAX_CMDLINE)?;
        let names = [("kernel", &self.kernel), ("initrd", &self.initrd)];
        for (key, name) in names.into_iter().chain([("firmware", &self.firmware)]) {
            name.as_ref().map_or(Ok(()), |name| filled(key, name))?;
        }
        count("modules", self.modules.len(), Self::MAX_MODULES)?;
        for module in &self.modules {
            filled("path", &module.path)?;
            cmdline("cmdline", &module.cmdline, Self::MAX_CMDLINE)?;
        }
        self.tsc_khz.map_or(Ok(()), tsc_khz)?;
        count("disks and nets", self.disks.len() + self.nets.len(), Self::MAX_DEVICES)?;
        for (i, disk) in self.disks.iter().enumerate() {
            filled("path", &disk.path)?;
            own(disk, &self.disks[..i])?;
        }
        for net in &self.nets {
            unicast(net.mac.as_ref())?;
            net.interface.as_ref().map_or(Ok(()), |name| filled("interface", name))?;
        }
        Ok(())
    }
}

/// A guest that writes one disk as two destroys what is on it.
fn own(disk: &Type1Disk, before: &[Type1Disk]) -> Result<(), Problem> {
    let shared = |other: &Type1Disk| other.path == disk.path;
    let written = |other: &Type1Disk| !(other.read_only && disk.read_only);
    if !before.iter().any(|other| shared(other) && written(other)) {
        return Ok(());
    }
    let rule = "two disks have it: give each its own, or write read_only = true for both".into();
    Err(Problem::Value { key: "path".into(), found: disk.path.clone(), rule })
}

fn tsc_khz(khz: u32) -> Result<(), Problem> {
    let known = Type1Config::TSC_KHZ;
    if known.contains(&khz) {
        return Ok(());
    }
    let range = format!("{} to {}", known.start(), known.end());
    Err(Problem::Range { key: "tsc_khz".into(), found: khz.to_string(), range })
}

/// Both places where an HVT image can be named were used.
pub(super) fn one_image() -> Problem {
    Problem::Conflict { one: "`vm.image`".into(), other: "`vm.hvt.unikernel`".into() }
}

/// Names of VMs: visible, and not longer than the system calls can carry.
pub(super) fn name(name: &str) -> Result<(), Problem> {
    let rule = if !NAME_LENGTHS.contains(&name.len()) {
        format!("write {} to {} bytes", NAME_LENGTHS.start(), NAME_LENGTHS.end())
    } else if name.chars().any(char::is_control) {
        "leave control characters out".into()
    } else {
        return Ok(());
    };
    Err(Problem::Value { key: "name".into(), found: name.into(), rule })
}

pub(super) fn vcpus(count: u32, mode: Option<ModeKind>) -> Result<(), Problem> {
    let unikernel = mode == Some(ModeKind::Hvt);
    let range = if unikernel { 1..=1 } else { VCPU_COUNTS };
    if range.contains(&count) {
        return Ok(());
    }
    let range = if unikernel {
        "1: a unikernel has one vCPU".into()
    } else {
        format!("{} to {}", range.start(), range.end())
    };
    Err(Problem::Range { key: "vcpus".into(), found: count.to_string(), range })
}

/// One CPU for each vCPU, or none at all.
pub(super) fn cpus(cpus: &[u32], vcpus: u32) -> Result<(), Problem> {
    let key = String::from("cpus");
    if let Some(cpu) = cpus.iter().find(|cpu| !CPU_NUMBERS.contains(cpu)) {
        let range = format!("{} to {}", CPU_NUMBERS.start(), CPU_NUMBERS.end());
        return Err(Problem::Range { key, found: cpu.to_string(), range });
    }
    if !cpus.is_empty() && u32::try_from(cpus.len()) != Ok(vcpus) {
        let found = format!("list of {}", cpus.len());
        let rule = format!("write one CPU for each vCPU, of which this VM has {vcpus}");
        return Err(Problem::Value { key, found, rule });
    }
    Ok(())
}

pub(super) fn memory(bytes: u64, mode: Option<ModeKind>) -> Result<(), Problem> {
    // Words only where they are wanted: a VM's creation passes here three times.
    let words = || (String::from("memory"), Bytes(bytes).to_string());
    let beyond = |range| {
        let (key, found) = words();
        Err(Problem::Range { key, found, range })
    };
    if mode == Some(ModeKind::Hvt) && Layout::new(bytes, false).is_err() {
        return beyond(format!("{} to {}: a unikernel", Bytes(PAGE_SIZE), Bytes(MAX_MEMORY)));
    }
    if !MEMORY_SIZES.contains(&bytes) {
        let (least, most) = (Bytes(*MEMORY_SIZES.start()), Bytes(*MEMORY_SIZES.end()));
        return beyond(format!("{least} to {most}"));
    }
    if !bytes.is_multiple_of(PAGE_SIZE) {
        let (key, found) = words();
        let rule = format!("write a multiple of {}", Bytes(PAGE_SIZE));
        return Err(Problem::Value { key, found, rule });
    }
    Ok(())
}

pub(super) fn cmdline(key: &str, text: &str, most: usize) -> Result<(), Problem> {
    let rule = if text.len() > most {
        format!("write at most {most} bytes")
    } else if text.contains('\0') {
        "leave the zero byte out: it ends a command line".into()
    } else {
        return Ok(());
    };
    Err(Problem::Value { key: key.into(), found: text.into(), rule })
}

pub(super) fn count(key: &str, found: usize, most: usize) -> Result<(), Problem> {
    if found <= most {
        return Ok(());
    }
    let range = format!("at most {most} entries");
    Err(Problem::Range { key: key.into(), found: found.to_string(), range })
}

/// Names in a manifest: letters and digits of ASCII (Solo5 `mft_abi.h`).
pub(super) fn device_name(name: &str) -> Result<(), Problem> {
    let fits = (1..=HvtConfig::MAX_NAME).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    let rule = format!("write 1 to {} letters and digits of ASCII", HvtConfig::MAX_NAME);
    Err(Problem::Value { key: "name".into(), found: name.into(), rule })
}

/// One device of the manifest is attached once.
pub(super) fn unique(resource: &HvtResource, before: &[HvtResource]) -> Result<(), Problem> {
    let Some(name) = resource.name.as_ref() else { return Ok(()) };
    if before.iter().all(|other| other.name.as_ref() != Some(name)) {
        return Ok(());
    }
    let rule = "give every resource its own device of the manifest".into();
    Err(Problem::Value { key: "name".into(), found: name.clone(), rule })
}

/// Sizes of sectors: what a manifest's 16 bits can say (Solo5 `mft_abi.h`).
pub(super) fn sector_size(bytes: u64) -> Result<(), Problem> {
    let fits = (512..=1 << 15).contains(&bytes) && bytes.is_power_of_two();
    if fits {
        return Ok(());
    }
    let rule = "write a power of two from 512 to 32K".into();
    Err(Problem::Value { key: "sector_size".into(), found: Bytes(bytes).to_string(), rule })
}

pub(super) fn filled(key: &str, text: &str) -> Result<(), Problem> {
    if !text.is_empty() && !text.contains('\0') {
        return Ok(());
    }
    let rule = "write what the host calls it".into();
    Err(Problem::Value { key: key.into(), found: text.into(), rule })
}

/// A station's own address is not a group's (IEEE 802.3 §3.2.3).
pub(super) fn unicast(mac: Option<&[u8; 6]>) -> Result<(), Problem> {
    match mac {
        Some(mac) if mac[0] & 1 != 0 => {
            let [a, b, c, d, e, f] = mac;
            let found = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            let rule = "write an address whose first byte is even".into();
            Err(Problem::Value { key: "mac".into(), found, rule })
        }
        _ => Ok(()),
    }
}

/// Reads `02:00:00:00:00:01`.
#[cfg(feature = "toml")]
pub(super) fn mac(text: &str) -> Result<[u8; 6], Problem> {
    let wrong = || Problem::Value {
        key: "mac".into(),
        found: text.into(),
        rule: "write six bytes in hexadecimal, such as \"02:00:00:00:00:01\"".into(),
    };
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().ok_or_else(wrong)?;
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(wrong)?;
    }
    if parts.next().is_some() {
        return Err(wrong());
    }
    unicast(Some(&mac))?;
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn hvt() -> VmConfig {
        let mut config = VmConfig::new("test");
        config.mode_config = ModeSpecificConfig::Hvt(HvtConfig::default());
        config
    }

    fn refused(config: &VmConfig, mode: ModeKind) -> String {
        config.validate(mode).unwrap_err().to_string()
    }

    #[test]
    fn a_unikernel_has_one_vcpu() {
        let mut config = hvt();
        assert_eq!(config.validate(ModeKind::Hvt), Ok(()));
        config.vcpus = 2;
        assert!(refused(&config, ModeKind::Hvt).contains("a unikernel has one vCPU"));
        config.mode_config = ModeSpecificConfig::None;
        assert_eq!(config.validate(ModeKind::Type1), Ok(()));
        config.vcpus = 0;
        assert!(refused(&config, ModeKind::Type1).contains("1 to 255"));
    }

    #[test]
    fn a_unikernel_has_at_most_four_gibibytes() {
        let mut config = hvt();
        config.memory = 4 << 30;
        assert_eq!(config.validate(ModeKind::Hvt), Ok(()));
        config.memory = 1 << 40;
        assert!(refused(&config, ModeKind::Hvt).contains("`memory` of 1T is out of range"));
        config.mode_config = ModeSpecificConfig::None;
        assert_eq!(config.validate(ModeKind::Type1), Ok(()));
    }

    #[test]
    fn two_disks_share_a_file_only_to_read_it() {
        let with = |read_only| {
            let disk = Type1Disk { path: "d".into(), read_only: true };
            let disks = vec![disk.clone(), Type1Disk { read_only, ..disk }];
            let type1 = Type1Config { disks, ..Type1Config::default() };
            let mode_config = ModeSpecificConfig::Type1(type1);
            VmConfig { mode_config, ..VmConfig::new("m") }
        };
        assert_eq!(with(true).validate(ModeKind::Type1), Ok(()));
        let error = refused(&with(false), ModeKind::Type1);
        assert!(error.starts_with("bad value \"d\" for `path`: two disks have it"), "{error}");
    }

    #[test]
    fn each_vcpu_has_its_cpu_or_none_has() {
        let with = |vcpus, cpus| VmConfig { vcpus, cpus, ..VmConfig::new("m") };
        let good = with(2, vec![1023, 0]);
        assert_eq!(good.validate(ModeKind::Type1), Ok(()));
        assert_eq!([0, 1, 2].map(|vcpu| good.cpu_of(vcpu)), [Some(1023), Some(0), None]);
        assert_eq!(with(1, vec![5]).validate(ModeKind::Hvt), Ok(()));
        let text = refused(&with(2, vec![1]), ModeKind::Type1);
        assert!(text.ends_with("for each vCPU, of which this VM has 2"), "{text}");
        let text = refused(&with(1, vec![1024]), ModeKind::Type1);
        assert_eq!(text, "`cpus` of 1024 is out of range: allowed is 0 to 1023");
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        let config = VmConfig { vcpus: 2, cpus: vec![1, 7], ..VmConfig::new("m") };
        assert_eq!(config.check_cpus(|cpu| cpu < 8, "any"), Ok(()));
        let text = config.check_cpus(|cpu| cpu < 2, "this machine has 0 to 1");
        let expected = "`cpus` names CPU 7, which is not there: this machine has 0 to 1";
        assert_eq!(text.unwrap_err().to_string(), expected);
        assert_eq!(VmConfig::new("m").check_cpus(|_| false, "none"), Ok(()));
    }

    #[test]
    fn parts_of_another_mode_are_refused() {
        let text = refused(&hvt(), ModeKind::Type1);
        assert!(text.starts_with("[vm.hvt] does not belong to a VM of mode \"type1\""), "{text}");
    }

    #[test]
    fn a_guests_tsc_has_edges() {
        let with = |tsc_khz| {
            let type1 = Type1Config { tsc_khz, ..Type1Config::default() };
            VmConfig { mode_config: ModeSpecificConfig::Type1(type1), ..VmConfig::new("m") }
        };
        for good in [None, Some(100_000), Some(100_000_000)] {
            assert_eq!(with(good).validate(ModeKind::Type1), Ok(()));
        }
        for bad in [0, 99_999, 100_000_001, u32::MAX] {
            let text = refused(&with(Some(bad)), ModeKind::Type1);
            let range = "is out of range: allowed is 100000 to 100000000";
            assert_eq!(text, format!("`tsc_khz` of {bad} {range}"));
        }
    }

    #[test]
    fn memory_has_edges() {
        let with = |memory| VmConfig { memory, ..VmConfig::new("m") };
        for memory in [0, 4095, (1 << 44) + 4096, u64::MAX] {
            assert!(refused(&with(memory), ModeKind::Type1).contains("4K to 16T"), "{memory}");
        }
        assert!(refused(&with(4097), ModeKind::Type1).contains("multiple of 4K"));
        assert_eq!(with(4096).validate(ModeKind::Type1), Ok(()));
        assert_eq!(with(1 << 44).validate(ModeKind::Type1), Ok(()));
    }

    #[test]
    fn names_and_command_lines_have_edges() {
        for name in ["", "a\nb", &"x".repeat(64)] {
            assert!(VmConfig::new(name).validate(ModeKind::Type1).is_err(), "{name}");
        }
        assert!(cmdline("cmdline", &"x".repeat(8191), 8191).is_ok());
        assert!(cmdline("cmdline", &"x".repeat(8192), 8191).is_err());
        assert!(cmdline("cmdline", "a\0b", 8191).is_err());
    }

    #[test]
    fn a_device_is_attached_once() {
        let kind = ResourceKind::Block { path: "disk".into(), sector_size: 512 };
        let named = HvtResource { name: Some("data".into()), kind: kind.clone() };
        let unnamed = HvtResource { name: None, kind };
        let with = |resources| {
            let hvt = HvtConfig { resources, ..HvtConfig::default() };
            VmConfig { mode_config: ModeSpecificConfig::Hvt(hvt), ..VmConfig::new("m") }
        };
        assert_eq!(with(vec![named.clone(), unnamed.clone()]).validate(ModeKind::Hvt), Ok(()));
        assert!(with(vec![named.clone(), named]).validate(ModeKind::Hvt).is_err());
        assert!(with(vec![unnamed; 64]).validate(ModeKind::Hvt).is_err());
    }

    #[cfg(feature = "toml")]
    #[test]
    fn hardware_addresses() {
        assert_eq!(mac("02:00:00:aB:0f:ff"), Ok([2, 0, 0, 0xab, 0xf, 0xff]));
        let wrong = [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "02:00:00:00:00:0g",
            "03:00:00:00:00:00",
            "+2:00:00:00:00:00",
            "2:0:0:0:0:0",
        ];
        for text in wrong {
            assert!(mac(text).is_err(), "{text}");
        }
    }
}
