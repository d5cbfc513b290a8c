//! What every backend has to make of the same small guests: a test suite over the seam
//! [`hypervisor::vcpu`], for the backends' own tests and for the bare-metal image's self-test.
//!
//! Each case is a function that runs one guest and compares its exits. [`run`] runs all of them,
//! and [`machine::run`] those that only whole machines can run.

#![no_std]
#![cfg(target_arch = "x86_64")]

extern crate alloc;

pub mod cost;
pub mod guest;
pub mod machine;
mod unikernel;

use alloc::string::String;
pub use guest::Guest;
use hypervisor::vcpu::Backend;

/// How a case ended; the text says what was expected and what came.
pub type Outcome = Result<(), String>;

/// A backend, and what its host does when a vCPU was interrupted for it.
pub struct Host<'a, B> {
    /// The backend.
    pub backend: &'a B,
    /// Lets the host take its interrupt.
    pub interrupted: fn(),
}

impl<B> core::ops::Deref for Host<'_, B> {
    type Target = B;

    fn deref(&self) -> &B {
        self.backend
    }
}

/// A case of a suite: its name and what it does.
pub(crate) type Case<B> = (&'static str, fn(&Host<B>) -> Outcome);

/// Runs every case for unikernels, tells each one's outcome, and whether all went well.
pub fn run<B: Backend>(backend: &Host<B>, tell: &mut dyn FnMut(&'static str, &Outcome)) -> bool {
    all(backend, &unikernel::cases::<B>(), tell)
}

pub(crate) fn all<B>(
    backend: &Host<B>,
    cases: &[Case<B>],
    tell: &mut dyn FnMut(&'static str, &Outcome),
) -> bool {
    let mut good = true;
    for (name, case) in cases {
        let outcome = case(backend);
        good &= outcome.is_ok();
        tell(name, &outcome);
    }
    good
}
