//! The 8254 programmable interval timer (Intel data sheet 231164), and the PC's port 0x61, which
//! has the gate and the output of its channel 2.
//!
//! A count is a function of the time since it was loaded; nothing ticks. A count that is written
//! in modes 2 and 3 takes effect at once, not at the end of the present period. Later edges of
//! channel 0 are where they would have been, however late one was served.
//!
//! A machine that the host does not run for a while owes its guest the periodic edges of that time:
//! a guest that counts them against its TSC would find its timer broken (Xen and Linux do so at
//! boot). They follow at four times the timer's rate, a second's worth at most. Edges that the guest
//! itself did not take, because its interrupts were off, are one edge, as on hardware.

use super::{nanoseconds, read_bytes, ticks, write_bytes};
use crate::device::{Access, Device, Effect, Effects, SourceId};
use crate::host::Clock;
use crate::modes::type1::board::{Timed, TimerSlot};
use alloc::sync::Arc;

/// Its clock, in Hz.
pub const FREQUENCY: u64 = 1_193_182;
/// A guest that wants edges faster than this, in nanoseconds, gets fewer.
const SHORTEST_PERIOD: u64 = 50_000;
/// A guest is owed the edges of so many nanoseconds at most.
const MOST_OWED: u64 = 1_000_000_000;
/// What is owed comes so many times as fast as the timer's own edges.
const CATCH_UP: u64 = 4;
/// The refresh bit of port 0x61 toggles this often, in nanoseconds.
const REFRESH: u64 = 15_085;

/// Which bytes of a count are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Bytes {
    Low,
    High,
    #[default]
    Both,
}

#[derive(Debug, Clone, Default)]
struct Channel {
    mode: u8,
    bytes: Bytes,
    bcd: bool,
    gate: bool,
    /// 1 to 65536; 0: none was loaded since the control word.
    count: u32,
    /// When the count began, in nanoseconds; `None`: it is stopped.
    origin: Option<u64>,
    /// Ticks at which it was stopped.
    stopped_at: u64,
    /// The low byte of a count whose high byte is still to come.
    half: Option<u8>,
    /// The next read of both bytes gives the high one.
    high_next: bool,
    latched: Option<u16>,
    latched_status: Option<u8>,
}

impl Channel {
    fn elapsed(&self, now: u64) -> u64 {
        let running = self.origin.map(|origin| ticks(now.saturating_sub(origin), FREQUENCY));
        running.unwrap_or(self.stopped_at)
    }

    fn is_periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    /// The counting element.
    fn value(&self, now: u64) -> u16 {
        if self.count == 0 {
            return 0;
        }
        let (count, elapsed) = (u64::from(self.count), self.elapsed(now));
        let radix: u64 = if self.bcd { 10_000 } else { 0x1_0000 };
        let value = match self.mode {
            2 => count - elapsed % count,
            3 => count - elapsed * 2 % count,
            _ => (count + radix - elapsed % radix) % radix,
        };
        let value = value % radix;
        let value = if self.bcd { to_bcd(value) } else { value };
        u16::try_from(value & 0xffff).unwrap_or(0)
    }

    /// The level of its output.
    fn output(&self, now: u64) -> bool {
        let (count, elapsed) = (u64::from(self.count), self.elapsed(now));
        if self.count == 0 {
            return self.mode != 0;
        }
        match self.mode {
            0 | 1 => elapsed >= count,
            2 if self.origin.is_some() => elapsed % count != count - 1 || count == 1,
            3 if self.origin.is_some() => elapsed % count < count.div_ceil(2),
            2 | 3 => true,
            _ => elapsed != count,
        }
    }

    fn status(&self, now: u64) -> u8 {
        let bytes = match self.bytes {
            Bytes::Low => 1,
            Bytes::High => 2,
            Bytes::Both => 3,
        };
        let null = u8::from(self.count == 0) << 6;
        let output = u8::from(self.output(now)) << 7;
        output | null | bytes << 4 | self.mode << 1 | u8::from(self.bcd)
    }

    /// Nanoseconds between two edges that a guest gets, if they come again and again.
    fn period(&self) -> Option<u64> {
        let runs = self.is_periodic() && self.origin.is_some() && self.count != 0;
        runs.then(|| nanoseconds(self.count.into(), FREQUENCY).max(SHORTEST_PERIOD))
    }

    /// The first rising edge of the output after `now`, in nanoseconds.
    fn next_edge(&self, now: u64) -> Option<u64> {
        let origin = self.origin.filter(|_| self.count != 0)?;
        let count = u64::from(self.count);
        let at = |ticks| origin.saturating_add(nanoseconds(ticks, FREQUENCY));
        if self.is_periodic() {
            let short = nanoseconds(count, FREQUENCY) < SHORTEST_PERIOD;
            let from = if short { now.saturating_add(SHORTEST_PERIOD) } else { now };
            return Some(at((self.elapsed(from) / count + 1) * count));
        }
        let edge = match self.mode {
            0 | 1 => count,
            _ => count + 1,
        };
        Some(at(edge)).filter(|at| *at > now)
    }

    fn control(&mut self, word: u8) {
        let mode = word >> 1 & 7;
        // 6 and 7 are 2 and 3.
        self.mode = if mode > 5 { mode - 4 } else { mode };
        self.bcd = word & 1 != 0;
        self.bytes = match word >> 4 & 3 {
            1 => Bytes::Low,
            2 => Bytes::High,
            _ => Bytes::Both,
        };
        self.count = 0;
        self.origin = None;
        self.stopped_at = 0;
        self.half = None;
        self.high_next = false;
        self.latched = None;
        self.latched_status = None;
    }

    fn latch(&mut self, now: u64) {
        if self.latched.is_none() {
            self.latched = Some(self.value(now));
        }
    }

    fn latch_status(&mut self, now: u64) {
        if self.latched_status.is_none() {
            self.latched_status = Some(self.status(now));
        }
    }

    fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched.unwrap_or_else(|| self.value(now)).to_le_bytes();
        let is_high = match self.bytes {
            Bytes::Low => false,
            Bytes::High => true,
            Bytes::Both => {
                self.high_next = !self.high_next;
                !self.high_next
            }
        };
        if is_high || self.bytes != Bytes::Both {
            self.latched = None;
        }
        if is_high { high } else { low }
    }

    fn write(&mut self, value: u8, now: u64) {
        let count = match (self.bytes, self.half.take()) {
            (Bytes::Low, _) => u16::from(value),
            (Bytes::High, _) => u16::from(value) << 8,
            (Bytes::Both, None) => {
                self.half = Some(value);
                if self.mode == 0 {
                    // The first byte of a new count stops the old one.
                    self.stop(now);
                }
                return;
            }
            (Bytes::Both, Some(low)) => u16::from_le_bytes([low, value]),
        };
        let radix = if self.bcd { 10_000 } else { 0x1_0000 };
        let count = if self.bcd { from_bcd(count) } else { count.into() };
        self.count = if count == 0 { radix } else { count };
        self.stopped_at = 0;
        // Modes 1 and 5 wait for the gate.
        self.origin = (self.gate && !matches!(self.mode, 1 | 5)).then_some(now);
    }

    fn stop(&mut self, now: u64) {
        self.stopped_at = self.elapsed(now);
        self.origin = None;
    }

    fn set_gate(&mut self, gate: bool, now: u64) {
        let rises = gate && !self.gate;
        let falls = !gate && self.gate;
        self.gate = gate;
        if self.count == 0 {
            return;
        }
        match self.mode {
            0 | 4 if falls => self.stop(now),
            0 | 4 if rises => {
                let passed = nanoseconds(self.stopped_at, FREQUENCY);
                self.origin = Some(now.saturating_sub(passed));
            }
            2 | 3 if falls => {
                self.origin = None;
                self.stopped_at = 0;
            }
            1 | 2 | 3 | 5 if rises => self.origin = Some(now),
            _ => {}
        }
    }
}

fn to_bcd(value: u64) -> u64 {
    (0..4).fold(0, |bcd, digit| bcd | (value / 10u64.pow(digit) % 10) << (4 * digit))
}

fn from_bcd(bcd: u16) -> u32 {
    (0..4).fold(0, |value, digit| {
        value + u32::from(bcd >> (4 * digit) & 0xf).min(9) * 10u32.pow(digit)
    })
}

/// The timer. On the bus it is at ports 0x40 to 0x43; port 0x61 is [`SystemControl`].
pub struct Pit {
    channels: [Channel; 3],
    /// Bits 1, 2 and 3 of port 0x61: speaker, and two checks that nothing hangs on.
    speaker: u8,
    /// The next edge of channel 0, in nanoseconds.
    edge: Option<u64>,
    /// Edges that came while nobody served them.
    owed: u64,
    clock: Arc<dyn Clock>,
    slot: TimerSlot,
    irq: SourceId,
}

impl Pit {
    /// After power-up. `irq` is edge-triggered.
    pub fn new(clock: Arc<dyn Clock>, slot: TimerSlot, irq: SourceId) -> Self {
        let mut pit = Self {
            channels: Default::default(),
            speaker: 0,
            edge: None,
            owed: 0,
            clock,
            slot,
            irq,
        };
        pit.reset();
        pit
    }

    /// Back to the state after power-up.
    pub fn reset(&mut self) {
        self.channels = Default::default();
        self.channels[0].gate = true;
        self.channels[1].gate = true;
        self.speaker = 0;
        (self.edge, self.owed) = (None, 0);
        self.slot.set(None);
    }

    fn now(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    /// Reads one of ports 0x40 to 0x43.
    fn read_port(&mut self, port: u8) -> u8 {
        let now = self.now();
        self.channels.get_mut(usize::from(port)).map_or(0, |channel| channel.read(now))
    }

    fn write_port(&mut self, port: u8, value: u8) {
        let now = self.now();
        match self.channels.get_mut(usize::from(port)) {
            Some(channel) => channel.write(value, now),
            None if port == 3 => self.control(value, now),
            None => {}
        }
        if port == 0 || port == 3 && value >> 6 == 0 {
            // Another count: what the one before owed is not owed any more.
            self.owed = 0;
            self.edge = self.channels[0].next_edge(now);
        }
        self.arm(now);
    }

    /// Sets the deadline: the next edge, or before it one that is owed.
    fn arm(&self, now: u64) {
        let period = self.channels[0].period().filter(|_| self.owed > 0);
        let owed =
            period.map(|period| now.saturating_add((period / CATCH_UP).max(SHORTEST_PERIOD)));
        self.slot.set(self.edge.into_iter().chain(owed).min());
    }

    fn control(&mut self, word: u8, now: u64) {
        let Some(channel) = self.channels.get_mut(usize::from(word >> 6)) else {
            return self.read_back(word, now);
        };
        if word & 0x30 == 0 {
            channel.latch(now);
        } else {
            channel.control(word);
        }
    }

    fn read_back(&mut self, word: u8, now: u64) {
        for (index, channel) in self.channels.iter_mut().enumerate() {
            if word >> (index + 1) & 1 == 0 {
                continue;
            }
            if word & 0x20 == 0 {
                channel.latch(now);
            }
            if word & 0x10 == 0 {
                channel.latch_status(now);
            }
        }
    }

    fn read_61(&self) -> u8 {
        let now = self.now();
        let refresh = u8::from((now / REFRESH) & 1 != 0) << 4;
        let output = u8::from(self.channels[2].output(now)) << 5;
        u8::from(self.channels[2].gate) | self.speaker | refresh | output
    }

    fn write_61(&mut self, value: u8) {
        let now = self.now();
        self.speaker = value & 0xe;
        self.channels[2].set_gate(value & 1 != 0, now);
    }
}

impl Device for Pit {
    fn name(&self) -> &str {
        "8254"
    }

    fn read(&mut self, access: Access, _: &mut Effects) -> u64 {
        read_bytes(access, |offset| self.read_port(offset))
    }

    fn write(&mut self, access: Access, value: u64, _: &mut Effects) {
        write_bytes(access, value, |offset, value| self.write_port(offset, value));
    }
}

impl Timed for Pit {
    fn expire(&mut self, now: u64, effects: &mut Effects) {
        effects.push(Effect::Raise(self.irq));
        match self.edge.filter(|edge| *edge <= now) {
            Some(edge) => {
                self.edge = self.channels[0].next_edge(now);
                if let (Some(period), Some(next)) = (self.channels[0].period(), self.edge) {
                    // Whole periods, each of them rounded.
                    let passed = (next.saturating_sub(edge) + period / 2) / period;
                    let owed = self.owed.saturating_add(passed.saturating_sub(1));
                    self.owed = owed.min(MOST_OWED / period);
                }
            }
            None => self.owed = self.owed.saturating_sub(1),
        }
        self.arm(now);
    }
}

/// Port 0x61 of a [`Pit`], for the bus.
pub struct SystemControl(
    /// The timer.
    pub Arc<crate::sync::Mutex<Pit>>,
);

impl Device for SystemControl {
    fn name(&self) -> &str {
        "system control port B"
    }

    fn read(&mut self, _: Access, _: &mut Effects) -> u64 {
        self.0.lock().read_61().into()
    }

    fn write(&mut self, _: Access, value: u64, _: &mut Effects) {
        self.0.lock().write_61(value.to_le_bytes()[0]);
    }
}

#[cfg(test)]
mod tests;
