//! In a static program for Linux x86_64, the place of the C library.
//!
//! A C library examines the CPU when it starts, to choose its fastest string functions: glibc
//! executes CPUID some seventy times. In a virtual machine each of them is an exit to its
//! hypervisor, together up to half a millisecond: more than everything that the tender does. So
//! the release build of the tender takes this crate instead. It is what the standard library and
//! our own crates call, by the C library's names, and no more: start ([`start`]), memory
//! ([`mem`], [`heap`]), threads ([`thread`]), processes ([`process`]), signals ([`signal`]) and
//! system calls ([`calls`]).
//!
//! There are crates for this purpose (eyra and c-scape on top of origin); they need a nightly
//! compiler, call themselves experimental, and their last releases do not build with the rustix
//! of today. musl's C library does without CPUID, but rustc's build of it is no part of a
//! compiler that Debian or rustup installs by default.
//!
//! Nothing of the C library may be linked beside it, whose state nobody would have set up.
//! `redox-hvt`'s build script sees to that: a function that is missing here is an error of the
//! linker, which names it. Add it here, or build without the feature `static-runtime`.
//!
//! Functions are as POSIX and Linux's manual pages describe them; where one can do less, its
//! comment says so. There is no cancellation, no `atexit`, no locale, no stdio.

#![cfg_attr(not(test), no_std)]
#![allow(unsafe_code)]
#![allow(
    missing_docs,
    clippy::missing_safety_doc,
    reason = "each function's contract is that of its manual page"
)]

pub mod calls;
pub mod environment;
pub mod heap;
pub mod mem;
pub mod process;
pub mod signal;
pub mod start;
mod syscall;
pub mod thread;
mod words;
