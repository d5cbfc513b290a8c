//! Dates, from and to seconds since 1970-01-01 00:00 UTC (Gregorian calendar).

/// A moment as the clock's registers show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub second: u8,
    pub minute: u8,
    pub hour: u8,
    /// 1 is Sunday.
    pub weekday: u8,
    pub day: u8,
    pub month: u8,
    /// Of the century.
    pub year: u8,
    pub century: u8,
}

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: u64 = 719_468;
/// Days of 400 years.
const ERA: u64 = 146_097;

fn small(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

impl Moment {
    /// The moment at so many seconds.
    pub fn at(seconds: u64) -> Self {
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Years that begin in March have their leap day at their end.
        let day = days + EPOCH;
        let (era, of_era) = (day / ERA, day % ERA);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = (from_march + 2) % 12 + 1;
        let year = era * 400 + year + u64::from(month <= 2);
        Self {
            second: small(rest % 60),
            minute: small(rest / 60 % 60),
            hour: small(rest / 3600),
            weekday: small((days + 4) % 7 + 1),
            day: small(of_year - (153 * from_march + 2) / 5 + 1),
            month: small(month),
            year: small(year % 100),
            century: small(year / 100),
        }
    }

    /// Seconds since 1970, or 0 for what is before. Fields that are of no date are taken for the
    /// nearest one that is; the day of the week does not count.
    pub fn seconds(&self) -> u64 {
        let month = u64::from(self.month.clamp(1, 12));
        let year = u64::from(self.century) * 100 + u64::from(self.year);
        let year = if month <= 2 { year.saturating_sub(1) } else { year };
        let (era, of_era) = (year / 400, year % 400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + u64::from(self.day.clamp(1, 31)) - 1;
        let days = era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
        let rest = u64::from(self.hour) * 3600 + u64::from(self.minute) * 60;
        let days = days.saturating_sub(EPOCH);
        days * 86_400 + rest + u64::from(self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        let date = |seconds| {
            let m = Moment::at(seconds);
            (m.century, m.year, m.month, m.day, m.hour, m.minute, m.second, m.weekday)
        };
        assert_eq!(date(0), (19, 70, 1, 1, 0, 0, 0, 5));
        assert_eq!(date(951_782_399), (20, 0, 2, 28, 23, 59, 59, 2));
        assert_eq!(date(951_782_400), (20, 0, 2, 29, 0, 0, 0, 3));
        assert_eq!(date(4_107_542_399), (21, 0, 2, 28, 23, 59, 59, 1));
        assert_eq!(date(4_107_542_400), (21, 0, 3, 1, 0, 0, 0, 2));
    }

    proptest! {
        #[test]
        fn there_and_back(seconds in 0u64..250_000_000_000) {
            prop_assert_eq!(Moment::at(seconds).seconds(), seconds);
        }

        #[test]
        fn days_follow_each_other(day in 0u64..2_000_000) {
            let (a, b) = (Moment::at(day * 86_400), Moment::at((day + 1) * 86_400));
            prop_assert_eq!(b.weekday, a.weekday % 7 + 1);
            prop_assert!(b.day == a.day + 1 || b.day == 1 && a.day >= 28);
        }

        #[test]
        fn any_registers_have_a_time(fields: [u8; 8]) {
            let [second, minute, hour, weekday, day, month, year, century] = fields;
            Moment { second, minute, hour, weekday, day, month, year, century }.seconds();
        }
    }
}
