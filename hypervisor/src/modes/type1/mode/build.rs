//! From a description to a machine with its processors.

use super::{Inner, Processor, Type1, Type1Error};
use crate::config::{ConfigError, Problem, Type1Config, Type1Disk, Type1Net, VmConfig};
use crate::detect::{DetectError, ImageKind, detect};
use crate::memory::{GuestMemory, Perms};
use crate::mode::LendError;
use crate::modes::type1::boot::state::reset as after_reset;
use crate::modes::type1::cpuid::{Place, policy};
use crate::modes::type1::devices::SerialInput;
use crate::modes::type1::host::{Type1Host, Type1Session};
use crate::modes::type1::machine::{Devices, Loader, Machine, Plan};
use crate::modes::type1::slots::NetLink;
use crate::sync::Mutex;
use crate::vcpu::machine::{CpuidEntry, MachineBackend, MachineSpec, MachineVm};
use crate::vcpu::{Answer, BackendVm, Ending, ExitHandler, VcpuState, VmExit, line};
use crate::vm::VmId;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// vCPUs of a machine: APIC IDs of 8 bits, of which the last is the broadcast.
pub(super) const MAX_VCPUS: u32 = 255;

/// A description with more vCPUs than there can be.
pub(super) fn too_many(found: u32, most: u32) -> ConfigError {
    let range = alloc::format!("1 to {most} with this backend");
    ConfigError::new(Problem::Range { key: "vcpus".into(), found: found.to_string(), range })
}

impl<B: MachineBackend, H: Type1Host + 'static> Type1<B, H> {
    pub(super) fn build(&self, id: VmId, config: &VmConfig) -> Result<Inner<B>, Type1Error> {
        let mut type1 = config.type1();
        let kernel = self.kernel(config, &mut type1)?;
        let supported = self.backend.supported_cpuid()?;
        let address_bits = address_bits(&supported);
        let size = (config.memory, config.vcpus, address_bits);
        let loader = Loader::new(&*self.host, &type1, kernel, size)?;
        let spec =
            MachineSpec { ram: &loader.ranges(), vcpus: config.vcpus, tsc_khz: type1.tsc_khz };
        let mut vm = self.backend.create_machine(&spec)?;
        loader.load_rom(vm.memory())?;
        if let Some(range) = loader.read_only() {
            vm.protect(range, Perms::READ | Perms::EXEC)?;
        }
        let mut session = self.host.session(id, &config.name).map_err(LendError::Session)?;
        let devices = open_devices(&mut *session, &type1)?;
        let input = Arc::new(SerialInput::default());
        let lent = session.lend(config.vcpus, input.clone()).map_err(LendError::Session)?;
        if u32::try_from(lent.vcpus.len()) != Ok(config.vcpus) {
            return Err(Type1Error::Threads { lent: lent.vcpus.len(), asked: config.vcpus });
        }
        let signature = row(&supported, 1)[0];
        let (console, debug) = (type1.console, type1.debug);
        let plan = Plan {
            vm,
            session,
            lent,
            input,
            devices,
            loader,
            signature,
            address_bits,
            console,
            debug,
        };
        let machine = Arc::new(Machine::new(plan)?);
        machine.load()?;
        let ready = processors(&machine, &supported, config.vcpus)?;
        Ok(Inner {
            ready: Mutex::new(ready),
            vcpus: config.vcpus,
            machine: Mutex::new(Some(machine)),
        })
    }

    /// The kernel to start, if there is one. An image that is a disk becomes the first disk.
    fn kernel(
        &self,
        config: &VmConfig,
        type1: &mut Type1Config,
    ) -> Result<Option<String>, Type1Error> {
        let Some(image) = &config.image else { return Ok(type1.kernel.clone()) };
        let named = |error| LendError::Resource { what: "image", name: image.clone(), error };
        let blob = self.host.open(image).map_err(named)?;
        let read_only = match detect(&*blob) {
            // What it is not sure of, the kernel's loader says in its own words.
            Ok(
                ImageKind::BzImage | ImageKind::LinuxImage | ImageKind::Pvh | ImageKind::Multiboot,
            )
            | Err(DetectError::Unknown) => {
                return Ok(type1.kernel.clone().or_else(|| Some(image.clone())));
            }
            Ok(kind) => kind.disk().ok_or_else(|| {
                let error = Box::new(DetectError::Description(kind.mode()));
                Type1Error::Image { name: image.clone(), error }
            })?,
            Err(error) => {
                let error = Box::new(error);
                return Err(Type1Error::Image { name: image.clone(), error });
            }
        };
        type1.disks.insert(0, Type1Disk { path: image.clone(), read_only });
        Ok(type1.kernel.clone())
    }
}

/// Opens disks and networks.
fn open_devices(
    session: &mut dyn Type1Session,
    type1: &Type1Config,
) -> Result<Devices, Type1Error> {
    let mut devices = Devices::default();
    for Type1Disk { path, read_only } in &type1.disks {
        let opened = session.disk(path, *read_only);
        let named = |error| LendError::Resource { what: "disk", name: path.clone(), error };
        devices.disks.push((opened.map_err(named)?, *read_only));
    }
    for (index, Type1Net { interface, mac }) in type1.nets.iter().enumerate() {
        let link = Arc::new(NetLink::default());
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let name = interface.as_deref();
        let opened = session.net(index, name, *mac, link.clone());
        let named = |error| {
            let name = interface.clone().unwrap_or_default();
            LendError::Resource { what: "network", name, error }
        };
        devices.nets.push((opened.map_err(named)?, link));
    }
    Ok(devices)
}

fn row(rows: &[CpuidEntry], leaf: u32) -> [u32; 4] {
    rows.iter().find(|row| row.leaf == leaf).map_or([0; 4], |row| row.registers)
}

/// Bits of a physical address (CPUID 0x80000008), 36 where it is not told.
fn address_bits(supported: &[CpuidEntry]) -> u32 {
    match row(supported, 0x8000_0008)[0] & 0xff {
        0 => 36,
        bits => bits.min(52),
    }
}

fn processors<V: MachineVm>(
    machine: &Arc<Machine<V>>,
    supported: &[CpuidEntry],
    count: u32,
) -> Result<Vec<Processor<V>>, Type1Error> {
    let frequency = machine.frequency;
    let idle = VcpuState::X86(after_reset(machine.signature));
    let make = |index| {
        let rows = policy(supported, Place { index, count, frequency });
        let state = if index == 0 { machine.start().unwrap_or(idle) } else { idle };
        let vcpu = machine.vm.create_machine_vcpu(index, &rows, state, Arc::new(InLoop))?;
        Ok(Processor::new(machine.clone(), index, vcpu))
    };
    // Each has its inbox, so none is `None`.
    (0..count).map(make).filter_map(Result::transpose).collect()
}

/// Exits are answered by the processor's loop, which needs the processor's own state. A backend
/// that calls this instead has not been told of machines.
struct InLoop;

impl ExitHandler for InLoop {
    fn handle(&self, exit: VmExit, _: &GuestMemory) -> Answer {
        let text = format_args!("a machine's exits are answered by its loop, not here: {exit:?}");
        Answer::End(Ending::Fault(line(text)))
    }
}
