//! `[vm]`.

use super::reader::Reader;
use super::{mode, modes};
use crate::config::{
    CPU_NUMBERS, ConfigError, ModeSpecificConfig, Problem, VCPU_COUNTS, VmConfig, validate,
};
use crate::mode::ModeKind;

const KEYS: [&str; 9] =
    ["name", "mode", "vcpus", "cpus", "memory", "image", "type1", "virtio", "hvt"];

/// The VM of the file, if it has one.
pub(super) fn read(root: &Reader<'_, '_>) -> Result<Option<VmConfig>, ConfigError> {
    let Some(vm) = root.table("vm", &KEYS)? else { return Ok(None) };
    let Some((name, at)) = vm.string("name")? else {
        return Err(vm.missing("name", "\"my-vm\""));
    };
    validate::name(name).map_err(|problem| vm.error(at, problem))?;
    let mut config = VmConfig::new(name);
    config.mode = mode(&vm, "mode")?;
    let memory = vm.size("memory")?;
    if let Some((memory, at)) = memory {
        validate::memory(memory, None).map_err(|problem| vm.error(at, problem))?;
        config.memory = memory;
    }
    if let Some((image, at)) = vm.string("image")? {
        validate::filled("image", image).map_err(|problem| vm.error(at, problem))?;
        config.image = Some(image.into());
    }
    config.mode_config = mode_config(&vm, config.mode)?;
    if let Some((memory, at)) = memory {
        let checked = validate::memory(memory, config.explicit_mode());
        checked.map_err(|problem| vm.error(at, problem))?;
    }
    if let Some(vcpus) = vm.integer("vcpus", VCPU_COUNTS)? {
        let checked = validate::vcpus(vcpus, config.explicit_mode());
        checked.map_err(|problem| vm.error(vm.at_key("vcpus"), problem))?;
        config.vcpus = vcpus;
    }
    if let Some(cpus) = vm.integers("cpus", CPU_NUMBERS)? {
        let checked = validate::cpus(&cpus, config.vcpus);
        checked.map_err(|problem| vm.error(vm.at_key("cpus"), problem))?;
        config.cpus = cpus;
    }
    image_is_given_once(&vm, &config)?;
    Ok(Some(config))
}

/// The one table `[vm.MODE]` that may be there.
fn mode_config(
    vm: &Reader<'_, '_>,
    mode: Option<ModeKind>,
) -> Result<ModeSpecificConfig, ConfigError> {
    let type1 = vm.table("type1", &modes::TYPE1_KEYS)?;
    let virtio = vm.table("virtio", &modes::VIRTIO_KEYS)?;
    let hvt = vm.table("hvt", &modes::HVT_KEYS)?;
    let tables = [
        (ModeKind::Type1, type1.as_ref().map(Reader::at)),
        (ModeKind::VirtIO, virtio.as_ref().map(Reader::at)),
        (ModeKind::Hvt, hvt.as_ref().map(Reader::at)),
    ];
    let mut own = mode;
    for (table, at) in tables.into_iter().filter_map(|(table, at)| Some((table, at?))) {
        let mode = *own.get_or_insert(table);
        if mode != table {
            return Err(vm.error(at, Problem::WrongMode { table, mode }));
        }
    }
    Ok(match (type1, virtio, hvt) {
        (Some(table), _, _) => ModeSpecificConfig::Type1(modes::type1(&table)?),
        (_, Some(table), _) => ModeSpecificConfig::VirtIO(modes::virtio(&table)?),
        (_, _, Some(table)) => ModeSpecificConfig::Hvt(modes::hvt(&table)?),
        (None, None, None) => ModeSpecificConfig::None,
    })
}

fn image_is_given_once(vm: &Reader<'_, '_>, config: &VmConfig) -> Result<(), ConfigError> {
    if let ModeSpecificConfig::Hvt(hvt) = &config.mode_config
        && hvt.unikernel.is_some()
        && config.image.is_some()
    {
        return Err(vm.error(vm.at_key("image"), validate::one_image()));
    }
    if config.explicit_mode() == Some(ModeKind::Hvt) && config.boot_image().is_none() {
        return Err(vm.error(
            vm.at(),
            Problem::Missing {
                key: "unikernel",
                table: "vm.hvt".into(),
                example: "\"/path/to/unikernel.hvt\"",
            },
        ));
    }
    Ok(())
}
