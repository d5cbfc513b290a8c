//! `bench` on the command line: what a guest's exits cost, in ticks of the cycle counter. Under
//! QEMU's `-icount shift=0` a tick is an instruction of the whole machine, and a run repeats.

use crate::cpu::register;
use crate::log::info;
use crate::platform::Machine;
use crate::thread;
use backend_conformance::{Host, cost};
use backend_native::Native;

/// Counts, and tells.
pub fn run() -> bool {
    let backend = match Native::new(&Machine) {
        Ok(backend) => backend,
        Err(error) => {
            info!("bench: {error}");
            return false;
        }
    };
    let host = Host { backend: &backend, interrupted: thread::take_interrupts };
    let mut tell = |name: &str, ticks: u64| info!("bench: {name}: {ticks} ticks");
    let outcome = cost::run(&host, &register::cycles, &mut tell);
    if let Err(error) = &outcome {
        info!("bench: {error}");
    }
    outcome.is_ok()
}
