//! The host bridge: Intel's 3 Series (Q35), of which firmware looks for what is here.
//!
//! OVMF knows the machine by its IDs and sets up PCIEXBAR; SeaBIOS does so too and switches the
//! memory below 1 MiB by the PAM registers before it writes there. That memory is always RAM, so
//! the PAM registers only remember what they are told. There is no system management mode, and
//! no graphics.

use super::config::{ConfigSpace, register};
use super::function::{Extension, Function, Identity};
use crate::device::{DeviceRef, Effect, Effects, LayoutChange, Space};
use crate::modes::type1::layout::ECAM;
use core::ops::Range;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x29c0,
    revision: 0,
    class: [0x06, 0x00, 0x00],
    subsystem: (0x1af4, 0x1100),
};

/// Where configuration space is mapped: bit 0 enables it. Its length is wired to 256 MiB.
const PCIEXBAR: usize = 0x60;
const PCIEXBAR_BITS: u64 = 0xf_f000_0001;
const ENABLED: u64 = 1;
/// Seven registers for the memory from 0xc0000 to 1 MiB; the first has only its upper half.
const PAM: usize = 0x90;
const PAM_BITS: [u8; 7] = [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33];

/// The function. `ecam` is the device to be shown where PCIEXBAR says; at first it is, or not.
pub fn host_bridge(ecam: DeviceRef, enabled: bool) -> Function {
    let mut function = Function::new(&IDENTITY);
    let config = function.config_mut();
    let reset = if enabled { ECAM.start | ENABLED } else { ECAM.start };
    config.define(PCIEXBAR, &reset.to_le_bytes(), &PCIEXBAR_BITS.to_le_bytes());
    config.define(PAM, &[0; 7], &PAM_BITS);
    // It answers at all times: its command register is wired.
    config.define(register::COMMAND, &[0b110], &[0, 0]);
    function.set_extension(HostBridge { ecam, shown: None });
    function
}

/// Where a host bridge maps configuration space, if it does.
pub fn ecam_range(config: &ConfigSpace) -> Option<Range<u64>> {
    let value = u64::from(config.long(PCIEXBAR + 4)) << 32 | u64::from(config.long(PCIEXBAR));
    let start = value & !0xfff;
    (value & ENABLED != 0).then(|| start..start + (ECAM.end - ECAM.start))
}

struct HostBridge {
    ecam: DeviceRef,
    shown: Option<Range<u64>>,
}

impl HostBridge {
    fn follow(&mut self, config: &ConfigSpace, effects: &mut Effects) {
        let wanted = ecam_range(config);
        if wanted != self.shown {
            self.shown.clone_from(&wanted);
            let device = self.ecam.clone();
            let change = LayoutChange { space: Space::Mmio, device, to: wanted };
            effects.push(Effect::ChangeLayout(change));
        }
    }
}

impl Extension for HostBridge {
    fn written(&mut self, config: &mut ConfigSpace, range: Range<usize>, effects: &mut Effects) {
        if range.start < PCIEXBAR + 8 && PCIEXBAR < range.end {
            self.follow(config, effects);
        }
    }

    fn reset(&mut self, config: &mut ConfigSpace, effects: &mut Effects) {
        self.follow(config, effects);
    }
}
