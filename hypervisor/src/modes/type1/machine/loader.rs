//! What a machine starts with: a kernel with what it is given, or firmware.

use super::Parts;
use crate::config::{Type1Config, Type1Console, Type1Module};
use crate::device::DeviceRef;
use crate::host::Blob;
use crate::memory::{Gpa, GuestMemory};
use crate::mode::LendError;
use crate::modes::type1::board::Board;
use crate::modes::type1::boot::acpi::{Facts, Tables, windows};
use crate::modes::type1::boot::firmware::Rom;
use crate::modes::type1::boot::modules::Module;
use crate::modes::type1::boot::{Given, StartError, bios, fw_cfg, map, read, start, state};
use crate::modes::type1::host::Type1Host;
use crate::modes::type1::layout::{FIRMWARE_END, pci_window_64, ram};
use crate::modes::type1::mode::Type1Error;
use crate::vcpu::X86State;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// How a machine starts, again and again.
pub struct Loader {
    memory: u64,
    vcpus: u32,
    /// How many bits a guest-physical address has.
    address_bits: u32,
    /// Images stay open: a host may be confined, and open nothing any more, when a guest resets.
    kernel: Option<Box<dyn Blob>>,
    /// The kernel's name.
    name: String,
    initrd: Option<Box<dyn Blob>>,
    /// Modules with their texts.
    modules: Vec<(Box<dyn Blob>, String)>,
    cmdline: String,
    firmware: Option<(Box<dyn Blob>, Rom)>,
    serial: bool,
}

impl Loader {
    /// Of this description, whose kernel is `kernel`. Firmware is looked at for its size.
    ///
    /// # Errors
    /// If there is neither kernel nor firmware, or the firmware is none.
    pub fn new(
        host: &dyn Type1Host,
        config: &Type1Config,
        kernel: Option<String>,
        (memory, vcpus, address_bits): (u64, u32, u32),
    ) -> Result<Self, Type1Error> {
        let firmware = match &config.firmware {
            Some(name) if kernel.is_none() => {
                let blob = open(host, "firmware", name)?;
                let rom = Rom::new(blob.len())?;
                Some((blob, rom))
            }
            _ => None,
        };
        if kernel.is_none() && firmware.is_none() {
            return Err(Type1Error::NothingToStart);
        }
        let serial = config.console == Type1Console::Serial;
        let name = kernel.clone().unwrap_or_default();
        let kernel = kernel.map(|name| open(host, "kernel", &name)).transpose()?;
        let initrd = config.initrd.as_deref().map(|name| open(host, "initrd", name));
        let (initrd, cmdline) = (initrd.transpose()?, config.cmdline.clone());
        let module = |module: &Type1Module| {
            Ok::<_, Type1Error>((open(host, "module", &module.path)?, module.cmdline.clone()))
        };
        let modules = config.modules.iter().map(module).collect::<Result<_, _>>()?;
        Ok(Self {
            memory,
            vcpus,
            address_bits,
            kernel,
            name,
            initrd,
            modules,
            cmdline,
            firmware,
            serial,
        })
    }

    /// RAM in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Whether firmware starts the machine.
    pub fn has_firmware(&self) -> bool {
        self.firmware.is_some()
    }

    /// The ranges of RAM, firmware's among them.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges = ram(self.memory);
        if let Some((_, rom)) = &self.firmware {
            ranges.push(rom.high.clone());
            ranges.sort_by_key(|range| range.start);
        }
        ranges
    }

    /// The range that the guest may not write.
    pub fn read_only(&self) -> Option<Range<u64>> {
        self.firmware.as_ref().map(|(_, rom)| rom.high.clone())
    }

    /// Fills what stays as it is: firmware's own place. Once, before it is made read-only.
    ///
    /// # Errors
    /// If the firmware cannot be read.
    pub fn load_rom(&self, memory: &GuestMemory) -> Result<(), Type1Error> {
        if let Some((blob, rom)) = &self.firmware {
            rom.load(&**blob, memory)?;
        }
        Ok(())
    }

    /// Loads everything else; gives the first vCPU's state.
    pub(super) fn load(
        &self,
        memory: &GuestMemory,
        parts: &Parts,
        board: &Board,
        signature: u32,
    ) -> Result<X86State, Type1Error> {
        self.clear_low(memory)?;
        let facts = self.facts(parts.pci.ecam());
        if let Some((blob, rom)) = &self.firmware {
            self.load_shadow(&**blob, rom, memory)?;
            self.offer(facts, memory, parts, board)?;
            return Ok(state::reset(signature));
        }
        let kernel = self.kernel.as_deref().ok_or(Type1Error::NothingToStart)?;
        let reserved: Vec<_> = facts.ecam.clone().into_iter().collect();
        let rsdp = Tables::build(&facts).install(memory)?;
        bios::install(memory, self.vcpus).map_err(StartError::Memory)?;
        let ram = ram(self.memory);
        let modules = self.modules.iter();
        let modules: Vec<_> =
            modules.map(|(file, text)| Module { file: &**file, text: text.as_bytes() }).collect();
        let given = Given {
            ram: &ram,
            name: self.name.as_bytes(),
            cmdline: self.cmdline.as_bytes(),
            ramdisk: self.initrd.as_deref(),
            modules: &modules,
            rsdp,
        };
        let rows = map::without_firmware(&ram, &reserved);
        Ok(start(kernel, memory, &given, &rows)?)
    }

    /// Zeroes the first MiB, where tables and parameters go.
    fn clear_low(&self, memory: &GuestMemory) -> Result<(), Type1Error> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let end = memory.end().0.min(1 << 20);
        for page in 0..end / 4096 {
            memory.write_bytes(Gpa(page * 4096), &ZEROS).map_err(StartError::Memory)?;
            if let Some(kernel) = &self.kernel {
                kernel.cleared(ZEROS.len());
            }
        }
        Ok(())
    }

    fn facts(&self, ecam: Option<Range<u64>>) -> Facts {
        let window64 = pci_window_64(self.memory);
        let reach = 1u64.checked_shl(self.address_bits).unwrap_or(u64::MAX);
        Facts {
            vcpus: self.vcpus,
            windows: windows(&ram(self.memory), ecam.as_ref()),
            window64: (window64.end <= reach).then_some(window64),
            ecam,
        }
    }

    /// Firmware's last part, below 1 MiB, which a guest may have changed.
    fn load_shadow(
        &self,
        blob: &dyn Blob,
        rom: &Rom,
        memory: &GuestMemory,
    ) -> Result<(), Type1Error> {
        let size = rom.low.end - rom.low.start;
        let offset = (FIRMWARE_END - rom.high.start).saturating_sub(size);
        read::load(blob, "the firmware", offset, size, memory, Gpa(rom.low.start))?;
        Ok(())
    }

    /// Puts a new fw_cfg on the board.
    fn offer(
        &self,
        facts: Facts,
        memory: &GuestMemory,
        parts: &Parts,
        board: &Board,
    ) -> Result<(), Type1Error> {
        let reserved: Vec<_> = self.read_only().into_iter().collect();
        let rows = map::without_firmware(&ram(self.memory), &reserved);
        let machine = fw_cfg::Machine {
            vcpus: u16::try_from(self.vcpus).unwrap_or(u16::MAX),
            map: &rows,
            serial_console: self.serial,
        };
        let pci = parts.pci.clone();
        let ram = ram(self.memory);
        let tables = move || {
            let ecam = pci.ecam();
            let windows = windows(&ram, ecam.as_ref());
            Tables::build(&Facts { ecam, windows, ..facts.clone() })
        };
        let memory = Arc::new(memory.clone());
        let device = fw_cfg::FwCfg::new(&machine, Box::new(tables), memory);
        // At a reset the old one goes.
        let _ = board.devices.pio.remove(fw_cfg::PORTS);
        board.devices.pio.insert(fw_cfg::PORTS, DeviceRef::new(device))?;
        Ok(())
    }
}

fn open(host: &dyn Type1Host, what: &'static str, name: &str) -> Result<Box<dyn Blob>, Type1Error> {
    Ok(host.open(name).map_err(|error| LendError::Resource { what, name: name.into(), error })?)
}
