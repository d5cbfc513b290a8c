//! Firmware for guests: Debian's SeaBIOS and OVMF, unpacked into the cache.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::programs;

/// A guest's firmware.
#[derive(Clone, Copy)]
pub enum Firmware {
    /// A BIOS.
    SeaBios,
    /// UEFI.
    Ovmf,
}

impl Firmware {
    /// Its package, and the file in it that is the whole firmware.
    const fn package(self) -> (&'static str, &'static str) {
        match self {
            Self::SeaBios => ("seabios", "usr/share/seabios/bios-256k.bin"),
            Self::Ovmf => ("ovmf", "usr/share/ovmf/OVMF.fd"),
        }
    }

    /// Where it is.
    pub fn file(self) -> Result<PathBuf> {
        let (package, part) = self.package();
        let folder = programs::packages()?.join(package);
        let file = folder.join(part);
        if !file.exists() {
            programs::debian()?.unpack(package, false, &folder)?;
        }
        ensure!(file.exists(), "Debian's {package} holds no {part}");
        Ok(file)
    }
}
