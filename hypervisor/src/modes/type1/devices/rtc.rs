//! The real-time clock and CMOS memory: Motorola MC146818A with the PC's 128 bytes.
//!
//! It shows the host's wall clock, in UTC, plus what the guest has set it apart. Its registers are
//! computed when they are read; interrupts come from deadlines. Flags are those since register C
//! was last read.

mod alarm;
mod calendar;

use super::{read_bytes, write_bytes};
use crate::device::{Access, Device, Effect, Effects, SourceId};
use crate::host::Clock;
use crate::modes::type1::board::{Timed, TimerSlot};
use crate::modes::type1::layout::{HIGH_RAM, RTC_CENTURY, ram};
use alarm::Alarm;
use alloc::sync::Arc;
use calendar::Moment;

const SECOND: u64 = 1_000_000_000;
/// How long before an update register A says so (data sheet, table 6: 244 µs).
const WARNING: u64 = 244_000;

bitflags::bitflags! {
    /// Register B; the enable bits are where register C has the flags.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct B: u8 {
        const SUMMER_TIME = 1;
        const HOURS_24 = 2;
        const BINARY = 4;
        const SQUARE_WAVE = 8;
        const UPDATE = 0x10;
        const ALARM = 0x20;
        const PERIODIC = 0x40;
        const SET = 0x80;
    }
}

/// Register C: any enabled flag.
const IRQ: u8 = 0x80;
/// Register D: the battery is good.
const VALID: u8 = 0x80;

const A: u8 = 0x0a;
const CENTURY: u8 = RTC_CENTURY;

/// The clock and its memory. On the bus it is ports 0x70 and 0x71.
pub struct Rtc {
    index: u8,
    memory: [u8; 128],
    b: B,
    flags: u8,
    /// What the guest's clock is ahead of the host's, in nanoseconds, modulo 2⁶⁴.
    ahead: u64,
    /// The second at which flags were last brought up to date.
    second: u64,
    /// The period, of the periodic interrupt, at which they were.
    period: u64,
    asserted: bool,
    clock: Arc<dyn Clock>,
    slot: TimerSlot,
    irq: SourceId,
}

impl Rtc {
    /// A clock whose battery was never empty. `irq` is a level.
    pub fn new(clock: Arc<dyn Clock>, slot: TimerSlot, irq: SourceId, memory: u64) -> Self {
        let mut registers = [0; 128];
        for (index, value) in memory_registers(memory) {
            registers[usize::from(index & 0x7f)] = value;
        }
        registers[usize::from(A)] = 0x26;
        let mut rtc = Self {
            index: 0,
            memory: registers,
            b: B::HOURS_24,
            flags: 0,
            ahead: 0,
            second: 0,
            period: 0,
            asserted: false,
            clock,
            slot,
            irq,
        };
        rtc.second = rtc.now() / SECOND;
        rtc
    }

    /// What the RESET pin does: no interrupts.
    pub fn reset(&mut self) {
        self.b.remove(B::PERIODIC | B::ALARM | B::UPDATE | B::SQUARE_WAVE);
        self.flags = 0;
        self.index = 0;
        self.asserted = false;
        self.slot.set(None);
    }

    /// The guest's time in nanoseconds since 1970.
    fn now(&self) -> u64 {
        self.clock.wall_ns().wrapping_add(self.ahead)
    }

    /// Nanoseconds of a period; `None`: there are none.
    fn period_ns(&self) -> Option<u64> {
        let ticks: u64 = match self.memory[usize::from(A)] & 0xf {
            0 => return None,
            rate @ 1..=2 => 1 << (rate + 6),
            rate => 1 << (rate - 1),
        };
        Some(ticks * SECOND / 32_768)
    }

    fn alarm(&self) -> Alarm {
        let field = |index: usize| {
            let value = self.memory[index];
            (value < 0xc0).then(|| self.decode(value))
        };
        Alarm { second: field(1), minute: field(3), hour: self.alarm_hour() }
    }

    fn alarm_hour(&self) -> Option<u8> {
        let value = self.memory[5];
        (value < 0xc0).then(|| self.decode_hour(value))
    }

    fn decode(&self, value: u8) -> u8 {
        if self.b.contains(B::BINARY) { value } else { (value >> 4) * 10 + (value & 0xf) }
    }

    fn encode(&self, value: u8) -> u8 {
        if self.b.contains(B::BINARY) { value } else { to_bcd(value) }
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.b.contains(B::HOURS_24) {
            return self.decode(value);
        }
        let afternoon = if value & 0x80 != 0 { 12 } else { 0 };
        self.decode(value & 0x7f) % 12 + afternoon
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.b.contains(B::HOURS_24) {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { 0x80 } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    /// Writes the time into the registers, unless the guest holds them.
    fn show(&mut self) {
        if self.b.contains(B::SET) {
            return;
        }
        let moment = Moment::at(self.now() / SECOND);
        let fields = [
            (0, moment.second),
            (2, moment.minute),
            (6, moment.weekday),
            (7, moment.day),
            (8, moment.month),
            (9, moment.year),
        ];
        for (index, value) in fields {
            self.memory[index] = self.encode(value);
        }
        self.memory[4] = self.encode_hour(moment.hour);
        // The PC's century is in BCD always.
        self.memory[usize::from(CENTURY)] = to_bcd(moment.century);
    }

    /// Takes the time that the registers show.
    fn adopt(&mut self) {
        let century = self.memory[usize::from(CENTURY)];
        let moment = Moment {
            second: self.decode(self.memory[0]),
            minute: self.decode(self.memory[2]),
            hour: self.decode_hour(self.memory[4]),
            weekday: self.decode(self.memory[6]),
            day: self.decode(self.memory[7]),
            month: self.decode(self.memory[8]),
            year: self.decode(self.memory[9]),
            century: (century >> 4) * 10 + (century & 0xf),
        };
        let wanted = moment.seconds().saturating_mul(SECOND);
        self.ahead = wanted.wrapping_sub(self.clock.wall_ns());
        self.second = wanted / SECOND;
    }

    /// Sets the flags of what has happened.
    fn catch_up(&mut self) {
        let now = self.now();
        let (second, before) = (now / SECOND, self.second);
        self.second = second;
        if second != before && !self.b.contains(B::SET) {
            self.flags |= B::UPDATE.bits();
            // A clock that was set back, or by more than a day, has passed its alarm.
            let passed = second.wrapping_sub(before);
            if self.alarm().next(before).is_some_and(|at| at.wrapping_sub(before) <= passed) {
                self.flags |= B::ALARM.bits();
            }
        }
        let period = self.period_ns().map_or(0, |period| self.clock.monotonic_ns() / period);
        if core::mem::replace(&mut self.period, period) != period && period != 0 {
            self.flags |= B::PERIODIC.bits();
        }
    }

    /// Drives the line and sets the next deadline.
    fn update(&mut self, effects: &mut Effects) {
        let enabled = self.b.bits() & (B::UPDATE | B::ALARM | B::PERIODIC).bits();
        let asserted = self.flags & enabled != 0;
        if asserted != self.asserted {
            self.asserted = asserted;
            let effect = if asserted { Effect::Raise } else { Effect::Lower };
            effects.push(effect(self.irq));
        }
        // Until register C is read nothing can come anew.
        self.slot.set(if asserted { None } else { self.next() });
    }

    /// The next moment, monotonic, at which an enabled flag is set.
    fn next(&self) -> Option<u64> {
        let (now, guest) = (self.clock.monotonic_ns(), self.now());
        let at = |second: u64| {
            let wait = second.saturating_mul(SECOND).saturating_sub(guest);
            now.saturating_add(wait)
        };
        let runs = !self.b.contains(B::SET);
        let updates = runs && self.b.contains(B::UPDATE);
        let alarms = runs && self.b.contains(B::ALARM);
        let update = updates.then(|| at(self.second.wrapping_add(1)));
        let alarm = alarms.then(|| self.alarm().next(self.second)).flatten().map(at);
        let periodic = self.period_ns().filter(|_| self.b.contains(B::PERIODIC));
        let periodic = periodic.map(|period| (now / period + 1) * period);
        [update, alarm, periodic].into_iter().flatten().min()
    }

    fn read_register(&mut self) -> u8 {
        self.catch_up();
        match self.index {
            0..=9 | CENTURY => {
                self.show();
                self.memory[usize::from(self.index)]
            }
            A => {
                let soon = self.now() % SECOND >= SECOND - WARNING;
                let updating = soon && !self.b.contains(B::SET);
                self.memory[usize::from(A)] & 0x7f | u8::from(updating) << 7
            }
            0x0b => self.b.bits(),
            0x0c => {
                let flags = core::mem::take(&mut self.flags);
                let enabled = self.b.bits() & (B::UPDATE | B::ALARM | B::PERIODIC).bits();
                flags | if flags & enabled != 0 { IRQ } else { 0 }
            }
            0x0d => VALID,
            index => self.memory[usize::from(index & 0x7f)],
        }
    }

    fn write_register(&mut self, value: u8) {
        self.catch_up();
        let index = usize::from(self.index & 0x7f);
        match self.index {
            0 | 2 | 4 | 6..=9 | CENTURY => {
                self.show();
                self.memory[index] = value;
                if !self.b.contains(B::SET) {
                    self.adopt();
                }
            }
            A => self.memory[index] = value & 0x7f,
            0x0b => self.set_b(value),
            0x0c | 0x0d => {}
            _ => self.memory[index] = value,
        }
    }

    fn set_b(&mut self, value: u8) {
        self.show();
        let mut next = B::from_bits_truncate(value);
        if next.contains(B::SET) {
            next.remove(B::UPDATE);
        }
        let before = core::mem::replace(&mut self.b, next);
        if before.contains(B::SET) && !next.contains(B::SET) {
            self.adopt();
        }
    }
}

fn to_bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

impl Device for Rtc {
    fn name(&self) -> &str {
        "CMOS clock"
    }

    fn read(&mut self, access: Access, effects: &mut Effects) -> u64 {
        let value = read_bytes(access, |offset| match offset {
            1 => self.read_register(),
            _ => 0xff,
        });
        self.update(effects);
        value
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects) {
        write_bytes(access, value, |offset, value| match offset {
            // Bit 7 is the PC's NMI mask; nothing here raises NMIs.
            0 => self.index = value & 0x7f,
            1 => self.write_register(value),
            _ => {}
        });
        self.update(effects);
    }
}

impl Timed for Rtc {
    fn expire(&mut self, _: u64, effects: &mut Effects) {
        self.catch_up();
        self.update(effects);
    }
}

/// The registers that tell firmware how much memory there is: index and value.
pub fn memory_registers(memory: u64) -> [(u8, u8); 11] {
    let low = ram(memory).first().map_or(0, |range| range.end);
    let high = ram(memory).last().map_or(0, |range| range.end.saturating_sub(HIGH_RAM));
    let extended = (low.saturating_sub(1 << 20) >> 10).min(0xffff).to_le_bytes();
    let above_16 = (low.saturating_sub(16 << 20) >> 16).min(0xffff).to_le_bytes();
    let above_4g = (high >> 16).to_le_bytes();
    [
        (0x15, 0x80), // 640 KiB
        (0x16, 0x02),
        (0x17, extended[0]),
        (0x18, extended[1]),
        (0x30, extended[0]),
        (0x31, extended[1]),
        (0x34, above_16[0]),
        (0x35, above_16[1]),
        (0x5b, above_4g[0]),
        (0x5c, above_4g[1]),
        (0x5d, above_4g[2]),
    ]
}

#[cfg(test)]
mod tests;
