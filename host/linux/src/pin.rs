//! Threads that run on one CPU only (sched_setaffinity(2)).
//!
//! A thread begins with the CPUs of the one that starts it, so whoever makes a pinned thread takes
//! that CPU for as long ([`during`]): there is no moment at which the new thread runs elsewhere,
//! and it needs no system call of its own that a filter would have to allow.

use hypervisor::config::{ConfigError, VmConfig};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fmt;
use std::io;

/// Checks that this process may use the CPUs that a VM is pinned to.
///
/// # Errors
/// A [`ConfigError`] for the first that it may not use: it is not there, is offline, or is kept
/// from this process (taskset(1), cpuset(7)).
pub fn check(vm: &VmConfig) -> Result<(), ConfigError> {
    // Where the kernel has more CPUs than the set has room for, each thread's start says so.
    let Ok(allowed) = sched_getaffinity(None) else { return Ok(()) };
    let has = |cpu| index(cpu).is_some_and(|cpu| allowed.is_set(cpu));
    vm.check_cpus(has, format_args!("this process may use {}", Ranges(&allowed)))
}

/// Pins this thread, and all that it will start.
///
/// # Errors
/// The system's.
pub fn pin(cpu: u32) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(index(cpu).ok_or(Errno::INVAL)?);
    Ok(sched_setaffinity(None, &set)?)
}

/// Does `work` on this CPU, if one is given: threads that it starts stay there, this one does not.
///
/// # Errors
/// The system's, or `work`'s.
pub fn during<T>(cpu: Option<u32>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(cpu) = cpu else { return work() };
    let before = sched_getaffinity(None)?;
    pin(cpu)?;
    let done = work();
    sched_setaffinity(None, &before)?;
    done
}

fn index(cpu: u32) -> Option<usize> {
    usize::try_from(cpu).ok().filter(|cpu| *cpu < CpuSet::MAX_CPU)
}

/// A set of CPUs as people write it: `0-3,8`.
struct Ranges<'a>(&'a CpuSet);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |cpu: usize| cpu < CpuSet::MAX_CPU && self.0.is_set(cpu);
        let mut comma = "";
        for first in (0..CpuSet::MAX_CPU).filter(|cpu| has(*cpu) && (*cpu == 0 || !has(cpu - 1))) {
            let last = (first..).find(|cpu| !has(cpu + 1)).unwrap_or(first);
            match last {
                last if last == first => write!(f, "{comma}{first}")?,
                last => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPUs that this thread may use.
    fn own() -> Vec<usize> {
        let set = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
    }

    #[test]
    fn a_thread_that_is_started_meanwhile_stays() {
        let before = own();
        let last = *before.last().unwrap();
        let cpu = Some(u32::try_from(last).unwrap());
        let thread = during(cpu, || Ok(std::thread::spawn(own))).unwrap();
        assert_eq!(own(), before);
        assert_eq!(thread.join().unwrap(), [last]);
        assert_eq!(during(None, || Ok(own())).unwrap(), before);
        assert!(during(Some(1 << 30), || Ok(())).is_err());
        assert_eq!(own(), before);
    }

    #[test]
    fn sets_are_written_in_ranges() {
        let shown = |cpus: &[usize]| {
            let mut set = CpuSet::new();
            cpus.iter().for_each(|cpu| set.set(*cpu));
            Ranges(&set).to_string()
        };
        assert_eq!(shown(&[0, 1, 2, 3, 8, 1022, 1023]), "0-3,8,1022-1023");
        assert_eq!(shown(&[5]), "5");
        assert_eq!(shown(&[]), "");
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused_in_one_line() {
        let first = u32::try_from(own()[0]).unwrap();
        let with = |cpu| VmConfig { cpus: vec![cpu], ..VmConfig::new("pinned") };
        assert_eq!(check(&with(first)), Ok(()));
        let text = check(&with(1023)).unwrap_err().to_string();
        let start = "`cpus` names CPU 1023, which is not there: this process may use ";
        assert!(text.starts_with(start) && text.lines().count() == 1, "{text}");
    }
}
