//! The PC's clock chip: from its registers to a time (MC146818 data sheet; the century's register
//! is where the FADT says, ACPI 6.5 §5.2.9).

/// What the registers hold, as they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// 0.
    pub second: u8,
    /// 2.
    pub minute: u8,
    /// 4.
    pub hour: u8,
    /// 7.
    pub day: u8,
    /// 8.
    pub month: u8,
    /// 9: of the century.
    pub year: u8,
    /// The century, where the machine has a register for it.
    pub century: Option<u8>,
    /// Register B: the form of the others.
    pub form: u8,
}

/// Centuries that a register may hold; anything else is garbage.
const CENTURIES: core::ops::RangeInclusive<u8> = 19..=29;
/// Without a century, years from this one on are of the 1900s: no chip shows a time before 1970.
const PIVOT: u8 = 70;

/// Register B: numbers are binary, not BCD.
const BINARY: u8 = 4;
/// Register B: hours are 0 to 23, not 1 to 12 with a bit for the afternoon.
const HOURS_24: u8 = 2;
const AFTERNOON: u8 = 0x80;

impl Registers {
    /// Seconds since 1970-01-01, of a chip that runs in UTC; `None` where it shows no time, or one
    /// before 1970. Without a century the years are 1970 to 2069.
    pub fn seconds(&self) -> Option<u64> {
        let number = |value: u8| match self.form & BINARY != 0 {
            true => value,
            false => (value >> 4) * 10 + (value & 15),
        };
        let mut hour = number(self.hour & !AFTERNOON);
        if self.form & HOURS_24 == 0 {
            hour = hour % 12 + if self.hour & AFTERNOON != 0 { 12 } else { 0 };
        }
        let [second, minute] = [self.second, self.minute].map(number);
        let [day, month, year] = [self.day, self.month, self.year].map(number);
        let plausible = second < 60 && minute < 60 && hour < 24 && year < 100;
        if !plausible || !(1..=31).contains(&day) || !(1..=12).contains(&month) {
            return None;
        }
        let century = self.century.map(number).filter(|century| CENTURIES.contains(century));
        let century = century.unwrap_or(if year < PIVOT { 20 } else { 19 });
        let year = u64::from(century) * 100 + u64::from(year);
        // Days to the month's beginning, with March as the first month of a year.
        let (y, m) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
        let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * u64::from(m) + 2) / 5;
        let days = days + u64::from(day) - 1;
        // The same count for 1970-01-01.
        let days = days.checked_sub(719_468)?;
        Some(((days * 24 + u64::from(hour)) * 60 + u64::from(minute)) * 60 + u64::from(second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: u8, month: u8, day: u8, hour: u8) -> Registers {
        let form = BINARY | HOURS_24;
        Registers { second: 1, minute: 2, hour, day, month, year, century: None, form }
    }

    #[test]
    fn known_times_come_out() {
        assert_eq!(at(0, 1, 1, 0).seconds(), Some(946_684_800 + 121));
        assert_eq!(at(26, 1, 1, 0).seconds(), Some(1_767_225_600 + 121));
        assert_eq!(at(24, 2, 29, 12).seconds(), Some(1_709_208_000 + 121));
        assert_eq!(at(69, 12, 31, 23).seconds(), Some(3_155_756_400 + 121));
        let bcd =
            Registers { form: HOURS_24, day: 0x25, month: 0x11, year: 0x26, ..at(0, 0, 0, 0x16) };
        assert_eq!(bcd.seconds(), Some(1_795_622_521));
        let afternoon = Registers { form: 0, hour: 0x84, ..bcd };
        assert_eq!(afternoon.seconds(), bcd.seconds());
        let midnight = Registers { form: 0, hour: 0x12, ..bcd };
        assert_eq!(midnight.seconds(), Some(1_795_622_521 - 16 * 3600));
    }

    #[test]
    fn the_century_is_the_registers_or_the_years() {
        let in_century = |century, year| Registers { century, ..at(year, 12, 31, 23) }.seconds();
        assert_eq!(in_century(Some(19), 99), Some(946_681_200 + 121));
        assert_eq!(in_century(Some(20), 99), Some(4_102_441_200 + 121));
        assert_eq!(in_century(Some(19), 69), None, "before 1970");
        for garbage in [None, Some(0), Some(255), Some(0x20)] {
            assert_eq!(in_century(garbage, 99), Some(946_681_200 + 121), "{garbage:?}");
            assert_eq!(in_century(garbage, 0), Some(978_303_600 + 121), "{garbage:?}");
        }
        let bcd = Registers { form: HOURS_24, year: 0x99, ..at(0, 0x12, 0x31, 0x23) };
        assert_eq!(Registers { century: Some(0x20), ..bcd }.seconds(), Some(4_102_441_200 + 121));
    }

    #[test]
    fn a_chip_without_a_time_is_none() {
        for broken in
            [at(26, 0, 1, 0), at(26, 13, 1, 0), at(26, 1, 0, 0), at(26, 1, 32, 0), at(26, 1, 1, 24)]
        {
            assert_eq!(broken.seconds(), None);
        }
    }
}
