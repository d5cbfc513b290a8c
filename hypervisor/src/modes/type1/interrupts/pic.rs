//! The 8259A pair (Intel 8259A data sheet 231468), with the edge/level control registers of the
//! PC's successors at 0x4d0 and 0x4d1 (Intel 82371AB §7.2.1).

/// One 8259A.
#[derive(Debug, Clone, Default)]
pub struct Pic {
    /// Interrupt request register.
    request: u8,
    /// In-service register.
    service: u8,
    /// Interrupt mask register.
    mask: u8,
    /// The inputs' levels.
    lines: u8,
    /// Which inputs are level-triggered (ELCR).
    level: u8,
    /// ICW2: the vector of input 0.
    base: u8,
    /// The input of the lowest priority.
    lowest: u8,
    /// The initialization word that is awaited; 0: none.
    awaits: u8,
    /// ICW1 asked for ICW4.
    wants_icw4: bool,
    /// ICW1: there is one 8259 only.
    single: bool,
    /// ICW4: an acknowledge is an end of interrupt too.
    auto_end: bool,
    /// OCW2: with that, priorities rotate.
    auto_rotate: bool,
    /// ICW4: special fully nested mode.
    nested: bool,
    /// OCW3: special mask mode.
    special_mask: bool,
    /// OCW3: reads of the first port give the in-service register.
    reads_service: bool,
    /// OCW3: the next read is a poll.
    poll: bool,
    /// It is the slave's master: input 2 is the slave.
    master: bool,
}

impl Pic {
    fn new(master: bool) -> Self {
        Self { master, lowest: 7, ..Self::default() }
    }

    fn reset(&mut self) {
        // The levels of the inputs are the world's, not the controller's.
        *self = Self { lines: self.lines, ..Self::new(self.master) };
    }

    /// ICW1 begins again (data sheet, "Initialization Command Word 1").
    fn initialize(&mut self, icw1: u8) {
        let Self { lines, level, master, base, .. } = *self;
        *self = Self { lines, level, base, ..Self::new(master) };
        // Edges are to come anew; levels are there.
        self.request = lines & level;
        self.awaits = 2;
        self.wants_icw4 = icw1 & 1 != 0;
        self.single = icw1 & 2 != 0;
    }

    fn set_line(&mut self, input: u8, asserted: bool) {
        let bit = 1 << (input & 7);
        if asserted {
            if self.level & bit != 0 || self.lines & bit == 0 {
                self.request |= bit;
            }
            self.lines |= bit;
        } else {
            self.lines &= !bit;
            if self.level & bit != 0 {
                self.request &= !bit;
            }
        }
    }

    /// How far from the highest priority the first of some inputs is; 8: there is none.
    fn rank(&self, inputs: u8) -> u8 {
        let first = (self.lowest + 1) & 7;
        let ranked = inputs.rotate_right(first.into());
        if ranked == 0 { 8 } else { u8::try_from(ranked.trailing_zeros()).unwrap_or(8) }
    }

    fn input(&self, rank: u8) -> u8 {
        (self.lowest + 1 + rank) & 7
    }

    /// The input that is to be served next.
    fn next(&self) -> Option<u8> {
        let rank = self.rank(self.request & !self.mask);
        if rank == 8 {
            return None;
        }
        let mut busy = self.service;
        if self.special_mask {
            busy &= !self.mask;
        }
        if self.nested && self.master {
            // The slave may interrupt its own service with what is higher in it.
            busy &= !(1 << 2);
        }
        (rank < self.rank(busy)).then(|| self.input(rank))
    }

    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << input;
        if self.level & bit == 0 {
            self.request &= !bit;
        }
        if !self.auto_end {
            self.service |= bit;
        } else if self.auto_rotate {
            self.lowest = input;
        }
    }

    fn end(&mut self, input: u8, rotate: bool) {
        self.service &= !(1 << input);
        if rotate {
            self.lowest = input;
        }
    }

    /// OCW2.
    fn command(&mut self, value: u8) {
        let named = value & 7;
        let highest = self.rank(self.service);
        let serving = (highest < 8).then(|| self.input(highest));
        match value >> 5 {
            0 => self.auto_rotate = false,
            4 => self.auto_rotate = true,
            1 => serving.into_iter().for_each(|input| self.end(input, false)),
            5 => serving.into_iter().for_each(|input| self.end(input, true)),
            3 => self.end(named, false),
            7 => self.end(named, true),
            6 => self.lowest = named,
            _ => {}
        }
    }

    /// OCW3.
    fn control(&mut self, value: u8) {
        self.poll = value & 4 != 0;
        if value & 2 != 0 {
            self.reads_service = value & 1 != 0;
        }
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
    }

    fn write(&mut self, second: bool, value: u8) {
        if !second {
            match value & 0x18 {
                _ if value & 0x10 != 0 => self.initialize(value),
                0x08 => self.control(value),
                _ => self.command(value),
            }
            return;
        }
        match self.awaits {
            2 => {
                self.base = value & 0xf8;
                self.awaits = match (self.single, self.wants_icw4) {
                    (false, _) => 3,
                    (true, true) => 4,
                    (true, false) => 0,
                };
            }
            // Which input has the slave is wired.
            3 => self.awaits = if self.wants_icw4 { 4 } else { 0 },
            4 => {
                self.nested = value & 0x10 != 0;
                self.auto_end = value & 2 != 0;
                self.awaits = 0;
            }
            _ => self.mask = value,
        }
    }

    fn read(&mut self, second: bool) -> u8 {
        if core::mem::take(&mut self.poll) {
            return match self.next() {
                Some(input) => {
                    self.acknowledge(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match (second, self.reads_service) {
            (true, _) => self.mask,
            (false, true) => self.service,
            (false, false) => self.request,
        }
    }
}

/// Which inputs can be level-triggered: not those of the PC's own devices.
const ELCR: [u8; 2] = [0xf8, 0xde];

/// Master and slave.
#[derive(Debug, Clone)]
pub struct PicPair {
    master: Pic,
    slave: Pic,
}

impl Default for PicPair {
    fn default() -> Self {
        Self::new()
    }
}

impl PicPair {
    /// After power-up.
    pub fn new() -> Self {
        Self { master: Pic::new(true), slave: Pic::new(false) }
    }

    /// Back to that; the lines keep their levels.
    pub fn reset(&mut self) {
        self.master.reset();
        self.slave.reset();
        self.cascade();
    }

    fn cascade(&mut self) {
        // Low and high again, so that a further request of the slave is an edge for the master.
        self.master.set_line(2, false);
        self.master.set_line(2, self.slave.next().is_some());
        if self.slave.next().is_none() {
            self.master.request &= !(1 << 2);
        }
    }

    /// The level of line 0 to 15.
    pub fn set_line(&mut self, line: u32, asserted: bool) {
        let [line, ..] = line.to_le_bytes();
        match line {
            // Input 2 is the slave.
            2 => {}
            0..8 => self.master.set_line(line, asserted),
            8..16 => {
                self.slave.set_line(line - 8, asserted);
                self.cascade();
            }
            _ => {}
        }
    }

    /// Whether it interrupts the processor.
    pub fn output(&self) -> bool {
        self.master.next().is_some()
    }

    /// The processor takes the interrupt: its vector. Where the request is gone it is the
    /// spurious one, input 7, which is not in service then.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.master.next() else { return self.master.base | 7 };
        self.master.acknowledge(input);
        if input != 2 {
            return self.master.base | input;
        }
        let vector = match self.slave.next() {
            Some(input) => {
                self.slave.acknowledge(input);
                self.slave.base | input
            }
            None => self.slave.base | 7,
        };
        self.cascade();
        vector
    }

    /// Reads a port.
    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            0x20 | 0x21 => self.master.read(port & 1 != 0),
            0xa0 | 0xa1 => self.slave.read(port & 1 != 0),
            0x4d0 => self.master.level,
            0x4d1 => self.slave.level,
            _ => 0xff,
        };
        self.cascade();
        value
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 | 0x21 => self.master.write(port & 1 != 0, value),
            0xa0 | 0xa1 => self.slave.write(port & 1 != 0, value),
            0x4d0 => self.master.level = value & ELCR[0],
            0x4d1 => self.slave.level = value & ELCR[1],
            _ => {}
        }
        self.cascade();
    }
}
