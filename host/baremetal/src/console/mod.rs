//! The console on the serial port: lines are edited, understood, and what guests print is shown.

pub mod command;
pub mod editor;
pub mod output;
