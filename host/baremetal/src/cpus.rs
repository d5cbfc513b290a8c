//! Sets of CPUs, and the words in which a person names those that guests may use.

use crate::acpi::madt::MAX_CPUS;
use alloc::format;
use alloc::string::String;
use core::fmt;

const WORDS: usize = MAX_CPUS / 64;

/// CPUs by their numbers, 0 to 255; larger numbers are in no set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuSet([u64; WORDS]);

impl CpuSet {
    /// None.
    pub const NONE: Self = Self([0; WORDS]);
    /// Every one that there can be.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// This one alone.
    pub fn one(cpu: u32) -> Self {
        let mut set = Self::NONE;
        set.put(cpu, true);
        set
    }

    /// Whether this one is there.
    #[inline]
    pub fn has(&self, cpu: u32) -> bool {
        let word = self.0.get(usize::try_from(cpu / 64).unwrap_or(usize::MAX));
        word.is_some_and(|word| word >> (cpu % 64) & 1 != 0)
    }

    /// Adds this one, or takes it away.
    pub fn put(&mut self, cpu: u32, there: bool) {
        if let Some(word) = self.0.get_mut(usize::try_from(cpu / 64).unwrap_or(usize::MAX)) {
            let bit = 1 << (cpu % 64);
            *word = if there { *word | bit } else { *word & !bit };
        }
    }

    /// Those that are in both.
    pub fn and(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// The lowest.
    pub fn first(&self) -> Option<u32> {
        let word = self.0.iter().position(|word| *word != 0)?;
        u32::try_from(word).ok().map(|number| number * 64 + self.0[word].trailing_zeros())
    }
}

/// As people write it: `1-3,8`.
impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begins = |cpu: &u32| self.has(*cpu) && (*cpu == 0 || !self.has(cpu - 1));
        let mut comma = "";
        for first in (0..).take(MAX_CPUS).filter(begins) {
            let last = (first..).find(|cpu| !self.has(cpu + 1)).unwrap_or(first);
            match last {
                last if last == first => write!(f, "{comma}{first}")?,
                last => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

/// The CPUs that guests may use, as the command line says it: all, if it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestCpus {
    named: CpuSet,
    /// From this one on, all that the machine has.
    from: Option<u32>,
}

impl Default for GuestCpus {
    fn default() -> Self {
        Self { named: CpuSet::NONE, from: Some(0) }
    }
}

impl GuestCpus {
    /// Reads `1-3`, `1,2` or `1-`: numbers and ranges, of which one without an end means all from
    /// there on.
    ///
    /// # Errors
    /// In words for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut cpus = Self { named: CpuSet::NONE, from: None };
        let good = text.split(',').all(|part| cpus.take(part).is_some());
        good.then_some(cpus).ok_or_else(|| {
            format!(
                "guest-cpus={text} names no CPUs: write their numbers, such as 1-3 or 1,2, or 1- \
                 for all but the first"
            )
        })
    }

    fn take(&mut self, part: &str) -> Option<()> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse::<u32>().ok()).flatten()?;
            usize::try_from(number).is_ok_and(|number| number < MAX_CPUS).then_some(number)
        };
        let (first, last) = match part.split_once('-') {
            Some((first, "")) => {
                let first = number(first)?;
                self.from = Some(self.from.map_or(first, |from| from.min(first)));
                return Some(());
            }
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        (first..=last).for_each(|cpu| self.named.put(cpu, true));
        (first <= last).then_some(())
    }

    /// Which CPUs these are on a machine that has `count`, of which those run that `runs` says.
    ///
    /// # Errors
    /// If one that is named is not there: in words for a person.
    pub fn on(&self, count: u32, mut runs: impl FnMut(u32) -> bool) -> Result<CpuSet, String> {
        if *self == Self::default() {
            return Ok(CpuSet::ALL);
        }
        let mut set = CpuSet::NONE;
        let named = (0..).take(MAX_CPUS).filter(|cpu| self.named.has(*cpu));
        for cpu in named.chain(self.from) {
            if !runs(cpu) {
                let last = count.saturating_sub(1);
                return Err(format!(
                    "guest-cpus names CPU {cpu}, which is not there: this machine has 0 to {last}"
                ));
            }
            set.put(cpu, true);
        }
        // Of the rest, those that did not start are left out.
        let rest = self.from.map_or(0..0, |from| from..count);
        rest.filter(|cpu| runs(*cpu)).for_each(|cpu| set.put(cpu, true));
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn sets_have_what_was_put_in() {
        let mut set = CpuSet::one(70);
        set.put(3, true);
        set.put(100_000, true);
        assert!(set.has(3) && set.has(70) && !set.has(6) && !set.has(100_000));
        assert_eq!((set.first(), CpuSet::NONE.first()), (Some(3), None));
        set.put(3, false);
        assert_eq!((set, set.and(&CpuSet::ALL)), (CpuSet::one(70), set));
        assert_eq!(set.and(&CpuSet::one(6)), CpuSet::NONE);
    }

    #[test]
    fn sets_are_written_in_ranges() {
        let shown = |cpus: &[u32]| {
            let mut set = CpuSet::NONE;
            cpus.iter().for_each(|cpu| set.put(*cpu, true));
            set.to_string()
        };
        assert_eq!(shown(&[0, 1, 2, 3, 8, 254, 255]), "0-3,8,254-255");
        assert_eq!((shown(&[5]), shown(&[])), ("5".into(), "".into()));
        assert_eq!(CpuSet::ALL.to_string(), "0-255");
    }

    #[test]
    fn words_name_the_cpus_that_are_there() {
        let on = |text: &str, count: u32| {
            GuestCpus::parse(text).and_then(|cpus| cpus.on(count, |cpu| cpu < count && cpu != 5))
        };
        let shown = |text: &str, count| on(text, count).map(|set| set.to_string());
        assert_eq!(shown("1-3", 4).as_deref(), Ok("1-3"));
        assert_eq!(shown("3,1,1", 4).as_deref(), Ok("1,3"));
        assert_eq!(shown("1-", 8).as_deref(), Ok("1-4,6-7"));
        assert_eq!(shown("6-,2", 8).as_deref(), Ok("2,6-7"));
        assert_eq!(GuestCpus::default().on(1, |_| true), Ok(CpuSet::ALL));
        for (text, cpu) in [("1-3", 2), ("2", 2), ("2-", 2), ("0,255", 255)] {
            let wrong = format!("guest-cpus names CPU {cpu}, which is not there");
            assert_eq!(on(text, 2), Err(format!("{wrong}: this machine has 0 to 1")));
        }
    }

    #[test]
    fn nonsense_is_refused_in_one_line() {
        for text in ["", "-", "x", "1,", ",1", "3-1", "256", "0-256", "-1", "1--2", "+1", "1-+2"] {
            let error = GuestCpus::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("guest-cpus={text} names no CPUs: write")));
            assert_eq!(error.lines().count(), 1);
        }
    }
}
