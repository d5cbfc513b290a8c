//! Processes: signals to our own children, and who is alive.

#![allow(unsafe_code)]

use std::fs;
use std::io;

/// Sends `signal` to a process that the caller has started and not yet waited for.
///
/// # Errors
/// The system's.
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill(2) touches no memory of ours.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user id that decides what we may do.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid(2) has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Processes of a process group that are not dead (zombies are).
///
/// # Panics
/// If `/proc` cannot be read.
pub fn alive_in_group(group: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc must be mounted");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| status(pid).is_some_and(|(state, of)| of == group && state != 'Z')).collect()
}

/// Stops a process group that the caller has started, waits until all of it stands still, and lets
/// it go on.
///
/// # Panics
/// If it cannot be signalled, or has ended.
pub fn stop_and_continue(group: u32) {
    let send = |signal| {
        let group = i32::try_from(group).expect("a process number");
        // SAFETY: killpg(2) touches no memory of ours.
        assert_eq!(unsafe { libc::killpg(group, signal) }, 0, "the group has ended");
    };
    send(libc::SIGSTOP);
    let stopped = |pid: &u32| status(*pid).is_none_or(|(state, _)| matches!(state, 'T' | 'Z'));
    while !alive_in_group(group).iter().all(stopped) {
        std::thread::yield_now();
    }
    send(libc::SIGCONT);
}

/// CPU time that the living processes of a group have taken, in clock ticks (100 a second).
///
/// # Panics
/// If `/proc` cannot be read.
pub fn cpu_ticks_of_group(group: u32) -> u64 {
    alive_in_group(group).into_iter().filter_map(cpu_ticks).sum()
}

/// `utime` plus `stime`.
fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let times = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// State and process group, from `/proc/PID/stat` (proc_pid_stat(5)).
fn status(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}

/// The CPUs that this process may use as `/proc` lists them, the first of them, and the last.
///
/// # Panics
/// If `/proc` cannot be read.
pub fn own_cpus() -> (String, u32, u32) {
    let list = allowed(&fs::read_to_string("/proc/self/status").expect("/proc is there"));
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).expect("a number");
    let first = number(list.split(['-', ',']).next());
    let last = number(list.rsplit(['-', ',']).next());
    (list, first, last)
}

/// The names of a process's threads, each with the CPUs that it may use as `/proc` lists them.
///
/// # Panics
/// If `/proc` cannot be read.
pub fn thread_cpus(pid: u32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let of = |task: io::Result<fs::DirEntry>| {
        let read = |file| fs::read_to_string(task.as_ref().expect("a task").path().join(file));
        let read = |file| read(file).expect("the thread lives");
        (read("comm").trim().to_owned(), allowed(&read("status")))
    };
    tasks.map(of).collect()
}

/// Waits until a process has a handler for this signal, or is gone.
pub fn await_handler(pid: u32, signal: u32) {
    loop {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return };
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        if caught.is_none_or(|mask| mask >> (signal - 1) & 1 == 1) {
            return;
        }
        std::thread::yield_now();
    }
}

fn allowed(status: &str) -> String {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.expect("Linux tells it").trim().to_owned()
}
