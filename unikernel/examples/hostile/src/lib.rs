//! Unikernels that misbehave on request, in every way we defend against: one word, one misdeed.
//!
//! `hostile` needs no device, `hostile-block` has `--block:storage=FILE`, `hostile-net` has
//! `--net:service0=...`. `list` prints each name with what must come of it. The words below are
//! those that `list` prints:
//!
//! | expected | meaning |
//! |---|---|
//! | `fault` | a CPU exception: the bindings print `trap: ...`, status 255. Where the guest's page tables allow it and only the host forbids it, the tender ends it, status 1 |
//! | `ended` | the tender ends the guest with one line, status 1 |
//! | `refused` | the hypercall's answer is an error; `SUCCESS`, status 0 |
//! | `harmless` | it is allowed, or has no effect; `SUCCESS`, status 0 |
//! | `runs-on` | it never ends: the tender dies of SIGTERM or SIGINT in bounded time, status 1 |
//! | `fault-or-harmless`, `ended-or-harmless`, ... | either |
//!
//! A misdeed that must not come back and does prints `SURVIVED NAME`, status 10. Without a network
//! ring, the ring's misdeeds print `SKIPPED: no ring`, status 11.

#![no_std]
#![allow(unsafe_code)]

extern crate alloc;

pub mod misdeeds;

use unikernel::{args, exit, println};

/// What must come of a misdeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// CPU exception, or the tender ends it.
    Fault,
    /// The tender ends it.
    Ended,
    /// An error is the answer.
    Refused,
    /// Nothing.
    Harmless,
    /// It never ends by itself.
    RunsOn,
    /// Depends on the backend, both are safe.
    FaultOrHarmless,
    /// Depends on the host, both are safe.
    EndedOrHarmless,
}

impl Expected {
    /// The word that `list` prints.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Ended => "ended",
            Self::Refused => "refused",
            Self::Harmless => "harmless",
            Self::RunsOn => "runs-on",
            Self::FaultOrHarmless => "fault-or-harmless",
            Self::EndedOrHarmless => "ended-or-harmless",
        }
    }

    /// Whether the unikernel may come back from it.
    fn may_return(self) -> bool {
        !matches!(self, Self::Fault | Self::Ended | Self::RunsOn)
    }
}

/// One way to misbehave.
#[derive(Debug)]
pub struct Misdeed {
    /// The word on the command line.
    pub name: &'static str,
    /// What must come of it.
    pub expected: Expected,
    /// Does it; an error says which promise was broken.
    pub run: fn() -> Outcome,
}

/// What a misdeed that came back found.
pub type Outcome = Result<(), &'static str>;

/// Status of a misdeed that should not have come back.
const SURVIVED: i32 = 10;
/// Status where the host has no network ring.
const SKIPPED: i32 = 11;

/// Does what the command line says.
pub fn run(misdeeds: &[&[Misdeed]]) -> Result<(), &'static str> {
    let name = args().next().ok_or("usage: list | NAME [ADDRESS]")?;
    let mut all = misdeeds.iter().copied().flatten();
    if name == "list" {
        all.for_each(|misdeed| println!("{} {}", misdeed.name, misdeed.expected.word()));
        return Ok(());
    }
    let misdeed = all.find(|misdeed| misdeed.name == name).ok_or("unknown misdeed: see `list`")?;
    println!("{name}: must be {}", misdeed.expected.word());
    (misdeed.run)()?;
    if !misdeed.expected.may_return() {
        println!("SURVIVED {name}");
        exit(SURVIVED);
    }
    println!("SUCCESS");
    Ok(())
}

/// Ends a misdeed that needs a network ring.
pub(crate) fn skip_without_ring() -> ! {
    println!("SKIPPED: no ring");
    exit(SKIPPED)
}

/// The hexadecimal number after the misdeed's name, with or without `0x`.
pub(crate) fn address_argument() -> Result<usize, &'static str> {
    let word = args().nth(1).ok_or("usage: NAME ADDRESS, in hexadecimal")?;
    let digits = word.strip_prefix("0x").unwrap_or(word);
    usize::from_str_radix(digits, 16).map_err(|_| "the address is not hexadecimal")
}
