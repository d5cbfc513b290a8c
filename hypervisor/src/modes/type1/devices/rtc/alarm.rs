//! When an alarm comes next.

/// Seconds of a day.
const DAY: u64 = 86_400;

/// An alarm: each field is a value, or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    pub second: Option<u8>,
    pub minute: Option<u8>,
    pub hour: Option<u8>,
}

impl Alarm {
    /// The first second after `after` (both since 1970) at which it comes; `None` if its fields
    /// are of no time. It tries each minute of a day at most.
    pub fn next(&self, after: u64) -> Option<u64> {
        if self.second.is_some_and(|second| second > 59) {
            return None;
        }
        let first = after.checked_add(1)?;
        let minute = first / 60;
        for minute in minute..=minute.checked_add(DAY / 60)? {
            let is = |field: Option<u8>, value: u64| field.is_none_or(|f| u64::from(f) == value);
            if !is(self.minute, minute % 60) || !is(self.hour, minute / 60 % 24) {
                continue;
            }
            let start = minute.checked_mul(60)?;
            let at = match self.second {
                Some(second) => start.checked_add(second.into())?,
                None => start.max(first),
            };
            if at >= first {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_first_second_that_matches(
            after in 0u64..10_000_000_000,
            second in prop::option::of(0u8..62),
            minute in prop::option::of(0u8..62),
            hour in prop::option::of(0u8..26),
        ) {
            let alarm = Alarm { second, minute, hour };
            let is = |field: Option<u8>, value: u64| field.is_none_or(|f| u64::from(f) == value);
            let matches = |at: &u64| {
                is(second, at % 60) && is(minute, at / 60 % 60) && is(hour, at / 3600 % 24)
            };
            let expected = (after + 1..=after + DAY).find(matches);
            prop_assert_eq!(alarm.next(after), expected);
        }
    }
}
