//! CPUs of the emulated machine. With several, the first one runs no guest: QEMU 10 lets a guest
//! there lose its nested paging when another CPU loads a floating-point state (docs/testing.md,
//! "The test machine"). With one there is nobody to race with.

use hypervisor::config::VmConfig;
use toml::{Table, Value};

/// What the interrupt controllers of QEMU's machine know.
const MOST: usize = 255;

/// How many there are, and where guests run.
#[derive(Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Of the machine.
    pub count: usize,
    /// This machine's CPUs that vCPUs are pinned to, each once: the emulated machine has one for
    /// each.
    pins: Vec<u32>,
}

impl Cpus {
    /// As many as the VM has vCPUs, or pins them to, but no more than there are here; one more for
    /// the machine itself, if that is several.
    ///
    /// # Errors
    /// If it is pinned to a CPU that this process may not use: in words for a person.
    pub fn of(vm: &VmConfig) -> Result<Self, String> {
        host_linux::pin::check(vm).map_err(|e| format!("{}: {e}", vm.name))?;
        let here = std::thread::available_parallelism().map_or(1, |count| count.get());
        Ok(Self::among(vm, here))
    }

    fn among(vm: &VmConfig, here: usize) -> Self {
        let mut pins = vm.cpus.clone();
        pins.sort_unstable();
        pins.dedup();
        let vcpus = usize::try_from(vm.vcpus).unwrap_or(usize::MAX);
        let guests = if pins.is_empty() { vcpus.min(here) } else { pins.len() };
        let count = if guests > 1 { guests.saturating_add(1).min(MOST) } else { 1 };
        Self { count, pins }
    }

    /// The image's word for it.
    pub fn word(&self) -> &'static str {
        if self.count > 1 { " guest-cpus=1-" } else { "" }
    }

    /// The description with the emulated machine's numbers in place of this one's.
    ///
    /// # Errors
    /// If the text is no description: in words for a person.
    pub fn renumber(&self, text: String) -> Result<String, String> {
        if self.pins.is_empty() {
            return Ok(text);
        }
        let mut root: Table = text.parse().map_err(|e| format!("{e}"))?;
        let cpus = root.get_mut("vm").and_then(|vm| vm.get_mut("cpus"));
        for cpu in cpus.and_then(Value::as_array_mut).into_iter().flatten() {
            let place = self.pins.iter().position(|pin| cpu.as_integer() == Some((*pin).into()));
            let number = place.unwrap_or(0) + usize::from(self.count > 1);
            *cpu = Value::Integer(number.try_into().unwrap_or(i64::MAX));
        }
        Ok(root.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(vcpus: u32, cpus: &[u32]) -> VmConfig {
        VmConfig { vcpus, cpus: cpus.to_vec(), ..VmConfig::new("x") }
    }

    #[test]
    fn several_leave_the_first_to_the_machine() {
        let count = |vcpus, here| Cpus::among(&vm(vcpus, &[]), here).count;
        assert_eq!(
            [count(1, 8), count(4, 1), count(2, 2), count(4, 2), count(2, 8)],
            [1, 1, 3, 3, 3]
        );
        assert_eq!(count(255, 512), 255);
        assert_eq!(Cpus::among(&vm(2, &[]), 1).word(), "");
        assert_eq!(Cpus::among(&vm(2, &[]), 2).word(), " guest-cpus=1-");
    }

    #[test]
    fn pins_are_told_in_the_emulated_machines_numbers() {
        let told = |pins: &[u32]| {
            let cpus = Cpus::among(&vm(u32::try_from(pins.len()).unwrap(), pins), 2);
            let text = cpus.renumber(format!("[vm]\nname = \"x\"\ncpus = {pins:?}\n")).unwrap();
            let root: Table = text.parse().unwrap();
            (cpus.count, root["vm"]["cpus"].to_string())
        };
        assert_eq!(told(&[7, 4, 7]), (3, "[2, 1, 2]".to_owned()));
        assert_eq!(told(&[0, 1]), (3, "[1, 2]".to_owned()));
        assert_eq!(told(&[5, 5]), (1, "[0, 0]".to_owned()));
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        let error = Cpus::of(&vm(1, &[1023])).unwrap_err();
        assert!(error.starts_with("x: `cpus` names CPU 1023, which is not there"), "{error}");
        assert!(Cpus::of(&vm(1, &[])).is_ok());
    }
}
