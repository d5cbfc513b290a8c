//! The CPU's tables and what happens on an exception: one line, status 255.

#[cfg(not(test))]
mod tables;
mod trap;

#[cfg(not(test))]
pub(crate) use tables::init;
