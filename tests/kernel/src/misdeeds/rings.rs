//! Virtio devices whose queues lie: descriptors, indices and addresses that no driver would give
//! (VIRTIO 1.3 §2.7, §4.1.4), some of them changed while the device looks.
//!
//! What a descriptor says is either in the last MiB of memory, which nothing else uses, or where
//! this machine has no memory: a device that believes it may then only harm somebody else.

use super::Numbers;
use crate::cpu::{inl, outl, probe, read, write};
use crate::println;
use crate::pvh::Boot;
use crate::traps;

const VENDOR: u32 = 0x1af4;
/// Registers of a function's configuration space.
const COMMAND: u32 = 0x04;
const BAR0: u32 = 0x10;
const CAPABILITIES: u32 = 0x34;
/// Memory and bus mastering.
const ENABLED: u32 = 6;
/// Where a device goes whose registers nobody has placed.
const WINDOW: u64 = 0xc800_0000;

/// Device status bits.
const ACKNOWLEDGED: u32 = 1 | 2;
const FEATURES_OK: u32 = 8;
const DRIVER_OK: u32 = 4;
/// Flags of a descriptor: NEXT, WRITE, INDIRECT.
const FLAGS: u32 = 7;

/// Lies told to each device.
const ROUNDS: u32 = 300;

/// Where a device's structures are.
#[derive(Default)]
struct Device {
    common: u64,
    notify: u64,
    multiplier: u64,
}

/// Lies to every virtio device there is.
pub fn lies(boot: &Boot) {
    let mut numbers = Numbers::new(17);
    let (mut devices, mut broken) = (0u64, 0u32);
    for slot in 0..32u32 {
        let function = 0x8000_0000 | slot << 11;
        if config(function, 0) & 0xffff != VENDOR {
            continue;
        }
        let Some(device) = find(function, WINDOW + (devices << 16)) else { continue };
        devices += 1;
        for _ in 0..ROUNDS {
            broken += u32::from(device.lie(boot.low_end, &mut numbers));
        }
        device.set_status(0);
    }
    println!("{devices} virtio devices, {broken} times one gave its driver up");
}

fn config(function: u32, register: u32) -> u32 {
    outl(0xcf8, function | register);
    inl(0xcfc)
}

fn set_config(function: u32, register: u32, value: u32) {
    outl(0xcf8, function | register);
    outl(0xcfc, value);
}

/// Finds a device's structures by its capabilities (§4.1.4).
fn find(function: u32, place: u64) -> Option<Device> {
    let mut base = u64::from(config(function, BAR0) & !15);
    if base == 0 {
        base = place;
        set_config(function, BAR0, u32::try_from(place).ok()?);
    }
    set_config(function, COMMAND, ENABLED);
    let mut device = Device::default();
    let mut at = config(function, CAPABILITIES) & 0xfc;
    for _ in 0..48 {
        let head = config(function, at);
        let bar = config(function, at + 4) & 0xff;
        if head & 0xff == 9 && bar == 0 {
            let structure = base + u64::from(config(function, at + 8));
            match head >> 24 {
                1 => device.common = structure,
                2 => {
                    device.notify = structure;
                    device.multiplier = config(function, at + 16).into();
                }
                _ => {}
            }
        }
        at = head >> 8 & 0xfc;
        if at == 0 {
            break;
        }
    }
    (device.common != 0 && device.notify != 0).then_some(device)
}

/// A queue's three parts.
struct Parts {
    table: u64,
    available: u64,
    used: u64,
}

impl Device {
    fn set_status(&self, status: u32) {
        write8(self.common + 0x14, status);
    }

    /// The device's features, 32 at a time.
    fn features(&self, select: u32) -> u32 {
        put(self.common, select);
        get(self.common + 4)
    }

    /// Starts the device with one lie or another, and more while it works; whether it noticed.
    fn lie(&self, end: u64, numbers: &mut Numbers) -> bool {
        let area = end - (1 << 20);
        self.set_status(0);
        self.set_status(ACKNOWLEDGED);
        // Now and then features that the device has not got; in general some that it has.
        let wanted = if numbers.word().is_multiple_of(16) { u32::MAX } else { self.features(0) };
        for (select, features) in [(0, numbers.word() & wanted), (1, 1)] {
            put(self.common + 0x08, select);
            put(self.common + 0x0c, features);
        }
        self.set_status(ACKNOWLEDGED | FEATURES_OK);
        let queues = numbers.word() % 4;
        for queue in 0..=queues {
            let parts = self.set_up(queue, area, end, numbers);
            fill(&parts, area, end, numbers);
        }
        self.set_status(ACKNOWLEDGED | FEATURES_OK | DRIVER_OK);
        for queue in 0..=queues {
            let bell = self.notify + u64::from(queue) * self.multiplier;
            put(bell, queue);
            // While it looks: other indices, another chain.
            let at = area + (u64::from(queue) << 16);
            fill(&Parts::at(at), area, end, numbers);
            put(bell, numbers.word());
        }
        // DEVICE_NEEDS_RESET
        get(self.common + 0x14) & 0x40 != 0
    }

    fn set_up(&self, queue: u32, area: u64, end: u64, numbers: &mut Numbers) -> Parts {
        let mut parts = Parts::at(area + (u64::from(queue) << 16));
        // Most are where they should be: the lie is then inside.
        match numbers.word() % 16 {
            0 => parts.table = elsewhere(end, numbers),
            1 => parts.available = elsewhere(end, numbers),
            2 => parts.used = elsewhere(end, numbers),
            _ => {}
        }
        let size = [0, 1, 3, 8, 256, 0x8000, 0xffff][numbers.word() as usize % 7];
        write16(self.common + 0x16, queue);
        write16(self.common + 0x18, size);
        for (register, address) in
            [(0x20, parts.table), (0x28, parts.available), (0x30, parts.used)]
        {
            let [low, high] = [address & 0xffff_ffff, address >> 32];
            put(self.common + register, u32::try_from(low).unwrap_or(0));
            put(self.common + register + 4, u32::try_from(high).unwrap_or(0));
        }
        write16(self.common + 0x1c, 1);
        Parts::at(area + (u64::from(queue) << 16))
    }
}

impl Parts {
    fn at(base: u64) -> Self {
        Self { table: base, available: base + 0x4000, used: base + 0x8000 }
    }
}

/// Fills descriptors and the available ring with garbage that is likely to be taken.
fn fill(parts: &Parts, area: u64, end: u64, numbers: &mut Numbers) {
    for index in 0..16u64 {
        let address = match numbers.word() % 4 {
            0 => elsewhere(end, numbers),
            _ => area + numbers.next() % (1 << 20),
        };
        let length = [0, 1, 16, 512, 4096, 1 << 20, u32::MAX][numbers.word() as usize % 7];
        let next = [numbers.word() % 16, numbers.word() & 0xffff][usize::from(index % 5 == 0)];
        let at = parts.table + index * 16;
        put(at, u32::try_from(address & 0xffff_ffff).unwrap_or(0));
        put(at + 4, u32::try_from(address >> 32).unwrap_or(0));
        put(at + 8, length);
        put(at + 12, numbers.word() & FLAGS | next << 16);
    }
    for entry in 0..16u64 {
        put(parts.available + 4 + entry * 4, numbers.word() & 0x000f_000f);
    }
    let index = [1, 16, 0x8000, numbers.word() & 0xffff][numbers.word() as usize % 4];
    put(parts.available, index << 16 | numbers.word() & 1);
}

/// Where there is no memory, or where it ends.
fn elsewhere(end: u64, numbers: &mut Numbers) -> u64 {
    match numbers.word() % 6 {
        0 => end - 8,
        1 => end,
        2 => u64::MAX - 15,
        3 => 0xfee0_0000,
        4 => 0xe000_0000,
        _ => numbers.next() | 1 << 52,
    }
}

/// A place that faults is as good as one that does not.
fn put(at: u64, value: u32) {
    let _ = write(at, value);
}

fn get(at: u64) -> u32 {
    read(at).unwrap_or(0)
}

fn write16(at: u64, value: u32) {
    let _ = probe!("mov word ptr [{at}], {value:x}", at = in(reg) at,
        value = in(reg) value);
}

fn write8(at: u64, value: u32) {
    let _ = probe!("mov byte ptr [{at}], {value}", at = in(reg) at,
        value = in(reg_byte) value.to_le_bytes()[0]);
}
