//! Both clocks and the wait.
//!
//! | argument | what it does |
//! |---|---|
//! | (none) | checks that time passes, that waits last, and that the clocks agree; `SUCCESS` |
//! | `bench walltime N`, `bench poll N`, `bench puts N` | prints nanoseconds per hypercall; `puts` prints N lines of 64 bytes first |
//! | `bench monotonic N` | the same for the clock that needs no hypercall |
//! | `sleep MS` | waits that long |

#![no_std]
#![no_main]

use core::time::Duration;
use unikernel::{args, clock, console, poll, println};

unikernel::manifest! {}
unikernel::main!(main);

fn main() -> Result<(), &'static str> {
    let mut words = args();
    match (words.next(), words.next(), words.next()) {
        (None, ..) => check()?,
        (Some("sleep"), Some(ms), None) => poll::sleep(Duration::from_millis(number(ms)?)),
        (Some("bench"), Some(what), Some(count)) => bench(what, number(count)?)?,
        _ => return Err("usage: [sleep MS | bench walltime|poll|puts|monotonic N]"),
    }
    println!("SUCCESS");
    Ok(())
}

fn number(word: &str) -> Result<u64, &'static str> {
    word.parse().map_err(|_| "not a number")
}

/// 2026-01-01: no machine that runs this is older.
const RECENT: Duration = Duration::from_secs(1_767_225_600);

fn check() -> Result<(), &'static str> {
    let (monotonic, wall) = (clock::monotonic(), clock::wall());
    println!("monotonic {monotonic:?}, wall {wall:?}");
    if wall < RECENT {
        return Err("the wall clock is before 2026");
    }
    never_back()?;
    waits()?;
    agree(clock::monotonic() - monotonic, clock::wall().abs_diff(wall))
}

fn never_back() -> Result<(), &'static str> {
    let mut last = clock::monotonic();
    for _ in 0..10_000 {
        let now = clock::monotonic();
        if now < last {
            return Err("the monotonic clock went back");
        }
        last = now;
    }
    Ok(())
}

/// Waits last as long as asked, and a wait of nothing returns.
fn waits() -> Result<(), &'static str> {
    for ms in [0, 1, 10, 100, 500] {
        let (asked, started) = (Duration::from_millis(ms), clock::monotonic());
        let ready = poll::wait(asked);
        let passed = clock::monotonic() - started;
        println!("wait of {asked:?} lasted {passed:?}");
        if !ready.is_empty() {
            return Err("a network is ready, and there is none");
        }
        // The host's timer and the cycle counter are calibrated apart: allow 0.1 % and 50 us.
        if passed + asked / 1000 + Duration::from_micros(50) < asked {
            return Err("a wait ended too early");
        }
    }
    Ok(())
}

/// A busy machine may stop us between the two readings, so the bound is wide; a wrong frequency or
/// unit is far outside it.
fn agree(monotonic: Duration, wall: Duration) -> Result<(), &'static str> {
    println!("passed: monotonic {monotonic:?}, wall {wall:?}");
    if monotonic.abs_diff(wall) > monotonic / 5 {
        return Err("the clocks disagree by more than a fifth");
    }
    Ok(())
}

fn bench(what: &str, count: u64) -> Result<(), &'static str> {
    if count == 0 {
        return Err("nothing to measure: N is 0");
    }
    let line = [b'.'; 64];
    let operation: &dyn Fn() = match what {
        "walltime" => &|| {
            clock::wall();
        },
        "poll" => &|| {
            poll::wait(Duration::ZERO);
        },
        "monotonic" => &|| {
            core::hint::black_box(clock::monotonic());
        },
        "puts" => &|| console::write(&line),
        _ => return Err("usage: bench walltime|poll|puts|monotonic N"),
    };
    let started = clock::monotonic();
    for _ in 0..count {
        operation();
    }
    let each = (clock::monotonic() - started).as_nanos() / u128::from(count);
    println!("\n{what}: {each} ns per operation, {count} operations");
    Ok(())
}
