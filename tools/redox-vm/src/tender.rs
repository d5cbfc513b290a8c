//! `redox-hvt --backend=qemu`: the tender's command line becomes a description.

use crate::qemu;
use hypervisor::config::VmConfig;
use redox_hvt::args::{self, Command, DeviceOption, Options};
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use toml::{Table, Value};

/// The VM's name, which nobody sees.
const NAME: &str = "unikernel";

/// Runs what the words ask for and gives the status to exit with.
///
/// # Errors
/// In words for a person.
pub fn run(words: &[OsString]) -> Result<i32, String> {
    let words: Vec<CString> =
        words.iter().filter_map(|word| CString::new(word.as_bytes()).ok()).collect();
    let borrowed: Vec<_> = words.iter().map(CString::as_c_str).collect();
    let options = match args::parse(&borrowed).map_err(|refused| refused.text)? {
        Command::Run(options) => options,
        Command::Help | Command::Version => return Err("there is no unikernel to run".to_owned()),
    };
    refuse(&options)?;
    let text = describe(&options)?;
    let vm = VmConfig::from_toml(&text).map_err(|e| e.to_string())?;
    qemu::run_text(&vm, NAME, &text, Path::new(""), options.verbose)
}

/// What only a tender on this machine can do.
fn refuse(options: &Options) -> Result<(), String> {
    let asked = [
        (options.gdb.is_some(), "--gdb"),
        (options.dumpcore.is_some(), "--dumpcore"),
        (options.stats.is_some(), "--stats"),
        (options.console_gone.is_some(), "--console-gone"),
    ];
    match asked.into_iter().find(|(asked, _)| *asked) {
        Some((_, name)) => Err(format!("{name} cannot be used with --backend=qemu")),
        None => Ok(()),
    }
}

fn describe(options: &Options) -> Result<String, String> {
    let kernel = text("the unikernel's name", options.kernel.as_bytes())?;
    let arguments = options.arguments.iter().map(|argument| text("an argument", argument));
    let cmdline = arguments.collect::<Result<Vec<_>, _>>()?.join(" ");
    let mut resources: Vec<Value> = Vec::new();
    for device in &options.devices {
        let (name, kind) = match device {
            DeviceOption::Net(name, _) | DeviceOption::NetMac(name, _) => (name, "net"),
            DeviceOption::Block(name, _) | DeviceOption::BlockSectorSize(name, _) => {
                (name, "block")
            }
        };
        let own = |value: &Value| value.get("name").and_then(Value::as_str) == Some(name);
        let at = resources.iter().position(own).unwrap_or(resources.len());
        if at == resources.len() {
            resources.push(table([("type", kind.into()), ("name", name.clone().into())]).into());
        }
        let (key, value) = match device {
            DeviceOption::Net(_, interface) => ("interface", interface.clone().into()),
            DeviceOption::NetMac(_, mac) => {
                let bytes: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
                ("mac", bytes.join(":").into())
            }
            DeviceOption::Block(_, path) => ("path", text("a path", path.as_bytes())?.into()),
            DeviceOption::BlockSectorSize(_, size) => {
                ("sector_size", Value::from(i64::from(*size)))
            }
        };
        if let Some(Value::Table(row)) = resources.get_mut(at) {
            row.insert(key.to_owned(), value);
        }
    }
    let memory = i64::try_from(options.memory).map_err(|_| "too much memory".to_owned())?;
    let hvt = table([
        ("unikernel", kernel.into()),
        ("cmdline", cmdline.into()),
        ("net_ring", options.net_ring.unwrap_or(true).into()),
        ("resources", Value::Array(resources)),
    ]);
    let vm = table([("name", NAME.into()), ("memory", memory.into()), ("hvt", hvt.into())]);
    Ok(table([("vm", vm.into())]).to_string())
}

fn table<const N: usize>(rows: [(&str, Value); N]) -> Table {
    rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn text(what: &str, bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| format!("{what} is not UTF-8, as --backend=qemu needs it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypervisor::config::ResourceKind;

    #[test]
    fn a_command_line_becomes_a_description() {
        let words = [
            c"--mem=64",
            c"--block:storage=a disk",
            c"--net-mac:service0=02:00:00:00:00:01",
            c"--net:service0=tap0",
            c"--block-sector-size:storage=4096",
            c"k.hvt",
            c"one",
            c"--two",
        ];
        let Ok(Command::Run(options)) = args::parse(&words) else { panic!("it is sound") };
        let vm = VmConfig::from_toml(&describe(&options).unwrap()).unwrap();
        assert_eq!((vm.memory, vm.boot_image()), (64 << 20, Some("k.hvt")));
        let hvt = vm.hvt();
        assert_eq!(hvt.cmdline, "one --two");
        let kinds: Vec<_> = hvt.resources.into_iter().map(|resource| resource.kind).collect();
        let block = ResourceKind::Block { path: "a disk".into(), sector_size: 4096 };
        let mac = Some([2, 0, 0, 0, 0, 1]);
        assert_eq!(kinds, [block, ResourceKind::Net { interface: "tap0".into(), mac }]);
    }
}
