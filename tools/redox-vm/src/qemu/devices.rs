//! Disks and networks on their way through QEMU: each becomes a virtio device of the machine, and
//! the description that the image gets names it as the image numbers it, `diskN` or `nicN`.

use crate::description::beside;
use crate::obstacles::SECTOR;
use host_linux::blob::FileBlob;
use host_linux::net::machine_id;
use hypervisor::detect::detect;
use hypervisor::host::mac::stable_mac;
use redox_hvt::tell;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;
use toml::{Table, Value};

/// Where forwarded ports are if nothing is said.
const LOOPBACK: &str = "127.0.0.1";
/// The guest may reach this machine itself.
const HOST: &str = "host";
/// Networks in the words of this host that QEMU has too.
const USER: &str = "user";

/// The devices of one machine.
#[derive(Default)]
pub struct Devices {
    /// File, and whether it may only be read.
    disks: Vec<(String, bool)>,
    /// QEMU's words for each network's other end.
    nets: Vec<String>,
}

impl Devices {
    /// Takes the disks and networks of a description, whose paths are relative to `folder`, and
    /// gives the description as the image shall have it.
    ///
    /// # Errors
    /// In words for a person.
    pub fn take(&mut self, text: &str, folder: &Path) -> Result<String, String> {
        let mut root: Table = text.parse().map_err(|e| format!("{e}"))?;
        image_to_disk(&mut root, folder);
        let name = root.get("vm").and_then(|vm| vm.get("name")).and_then(Value::as_str);
        let name = name.unwrap_or_default().to_owned();
        let lists = [("hvt", "resources"), ("type1", "disks"), ("type1", "nets")];
        for (mode, list) in lists {
            let vm = root.get_mut("vm").and_then(|vm| vm.get_mut(mode));
            let rows = vm.and_then(|mode| mode.get_mut(list)).and_then(Value::as_array_mut);
            let rows = rows.into_iter().flatten().filter_map(Value::as_table_mut);
            for row in rows {
                let kind = row.get("type").and_then(Value::as_str);
                if list == "nets" || kind == Some("net") {
                    self.net(&name, row)?;
                } else {
                    self.disk(row, folder);
                }
            }
        }
        Ok(root.to_string())
    }

    fn disk(&mut self, row: &mut Table, folder: &Path) {
        let Some(Value::String(path)) = row.get("path") else { return };
        let file = beside(folder, path);
        let read_only = row.get("read_only").and_then(Value::as_bool).unwrap_or(false);
        row.insert("path".to_owned(), format!("disk{}", self.disks.len()).into());
        self.disks.push((file, read_only));
    }

    /// The image would derive an address from its machine's, which is the same in every QEMU.
    fn net(&mut self, vm: &str, row: &mut Table) -> Result<(), String> {
        let interface = row.get("interface").and_then(Value::as_str).unwrap_or(USER);
        self.nets.push(other_end(interface)?);
        let number = self.nets.len() - 1;
        row.insert("interface".to_owned(), format!("nic{number}").into());
        if !row.contains_key("mac") {
            let index = u32::try_from(number).unwrap_or(0);
            let mac = stable_mac(&machine_id(), vm, index).map(|byte| format!("{byte:02x}"));
            row.insert("mac".to_owned(), mac.join(":").into());
        }
        Ok(())
    }

    /// Gives QEMU the devices, in their order.
    pub fn plug(&self, command: &mut Command) {
        for (number, (file, read_only)) in self.disks.iter().enumerate() {
            command.arg("-blockdev").arg(block_device(number, file, *read_only));
            let device = format!("virtio-blk-pci,disable-legacy=on,drive=disk{number}");
            command.arg("-device").arg(device);
        }
        for (number, end) in self.nets.iter().enumerate() {
            command.arg("-netdev").arg(format!("{end},id=nic{number}"));
            let device = format!("virtio-net-pci,disable-legacy=on,romfile=,netdev=nic{number}");
            command.arg("-device").arg(device);
        }
    }
}

/// A disk in QEMU's words. The driver is named, so that a file's name is only a name: in `file=` of
/// `-drive`, `nbd:x` is a protocol. Of a file whose end is no whole sector, the guest gets what is
/// before: it neither sees that end nor makes the file grow.
fn block_device(number: usize, file: &str, read_only: bool) -> String {
    let of = std::fs::metadata(file).ok();
    let driver = match &of {
        Some(of) if of.file_type().is_block_device() => "host_device",
        _ => "file",
    };
    let rest = of.filter(|of| of.is_file() && of.len() % SECTOR != 0);
    let size = rest.map(|of| format!(",size={}", of.len() / SECTOR * SECTOR)).unwrap_or_default();
    let read_only = if read_only { "on" } else { "off" };
    // A comma ends a value, unless it is doubled.
    let file = file.replace(',', ",,");
    format!(
        "driver=raw,node-name=disk{number},read-only={read_only}{size},file.driver={driver},\
         file.filename={file}"
    )
}

/// An image that is a disk becomes the first disk, as modes see it: so it is a disk of the machine,
/// not one in memory whose changes are gone.
fn image_to_disk(root: &mut Table, folder: &Path) {
    let Some(vm) = root.get_mut("vm").and_then(Value::as_table_mut) else { return };
    let other = vm.get("mode").is_some_and(|mode| mode.as_str() != Some("type1"));
    if other || vm.contains_key("hvt") || vm.contains_key("virtio") {
        return;
    }
    let Some(Value::String(image)) = vm.get("image").cloned() else { return };
    // One that cannot be opened is told of by whoever bundles it.
    let Ok(blob) = FileBlob::open(beside(folder, &image).as_ref()) else { return };
    let Some(read_only) = detect(&blob).ok().and_then(|kind| kind.disk()) else { return };
    let type1 = vm.entry("type1").or_insert_with(|| Value::Table(Table::new()));
    let disks = type1
        .as_table_mut()
        .map(|type1| type1.entry("disks").or_insert_with(|| Value::Array(Vec::new())));
    let Some(disks) = disks.and_then(Value::as_array_mut) else { return };
    let mut disk = Table::new();
    disk.insert("path".to_owned(), image.into());
    disk.insert("read_only".to_owned(), read_only.into());
    disks.insert(0, disk.into());
    vm.remove("image");
}

/// A network's other end in QEMU's words.
fn other_end(interface: &str) -> Result<String, String> {
    if let Some(number) = interface.strip_prefix('@') {
        let number: u32 = number.parse().map_err(|_| format!("`{interface}' is no descriptor"))?;
        return Ok(format!("tap,fd={number}"));
    }
    let mut options = interface.split(',');
    if options.next() != Some(USER) {
        let name = interface.replace(',', ",,");
        return Ok(format!("tap,ifname={name},script=no,downscript=no"));
    }
    let mut end = USER.to_owned();
    let mut host = false;
    for option in options {
        if option == HOST {
            host = true;
            continue;
        }
        let forward = option.split_once('=').filter(|(key, _)| matches!(*key, "tcp" | "udp"));
        let ports = forward.and_then(|(key, ports)| Some((key, ports.split_once(':')?)));
        let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
        let parts = ports.map(|(key, (host, guest))| {
            let (address, port) = host.split_once('/').unwrap_or((LOOPBACK, host));
            (key, address, port, guest)
        });
        let parts = parts.filter(|(_, address, port, guest)| {
            is_port(port) && is_port(guest) && address.parse::<Ipv4Addr>().is_ok()
        });
        let Some((key, address, port, guest)) = parts else {
            return Err(format!(
                "`{option}': with --backend=qemu a user-mode network has only host, \
                 tcp=[ADDRESS/]HOST:GUEST and udp=[ADDRESS/]HOST:GUEST, with IPv4 addresses and \
                 ports from 1 to 65535"
            ));
        };
        end.push_str(&format!(",hostfwd={key}:{address}:{port}-:{guest}"));
    }
    if !host {
        tell::warn(
            "QEMU's user-mode network leads from the guest to this machine's own services, at \
             10.0.2.2: write interface = \"user,host\" to say that this is meant",
        );
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_numbered_and_their_files_kept() {
        let text = "[vm]\nname = \"x\"\n[vm.type1]\nkernel = \"k\"\n[[vm.type1.disks]]\n\
                    path = \"a,b\"\nread_only = true\n[[vm.type1.disks]]\npath = \"/c\"\n\
                    [[vm.type1.nets]]\ninterface = \"tap0\"\n[[vm.type1.nets]]\n";
        let mut devices = Devices::default();
        let told: Table = devices.take(text, Path::new("f")).unwrap().parse().unwrap();
        let type1 = &told["vm"]["type1"];
        assert_eq!(type1["disks"][1]["path"].as_str(), Some("disk1"));
        assert_eq!(type1["nets"][1]["interface"].as_str(), Some("nic1"));
        assert_eq!(devices.disks, [("f/a,b".to_owned(), true), ("/c".to_owned(), false)]);
        let mut command = Command::new("qemu");
        devices.plug(&mut command);
        let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            words[1],
            "driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename=f/a,,b"
        );
        assert_eq!(words[9], "tap,ifname=tap0,script=no,downscript=no,id=nic0");
        assert_eq!(words[13], "user,id=nic1");
    }

    #[test]
    fn an_image_that_is_a_disk_is_one_of_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let mut disc = vec![0; 17 * 2048];
        disc[16 * 2048..][..6].copy_from_slice(b"\x01CD001");
        std::fs::write(folder.path().join("x.iso"), disc).unwrap();
        let told = |image: &str| {
            let text =
                format!("[vm]\nname = \"x\"\nimage = \"{image}\"\n[vm.type1]\nfirmware = \"f\"\n");
            let mut devices = Devices::default();
            let root: Table = devices.take(&text, folder.path()).unwrap().parse().unwrap();
            (root["vm"].clone(), devices.disks)
        };
        let (vm, disks) = told("x.iso");
        assert!(vm.get("image").is_none());
        assert_eq!(vm["type1"]["disks"][0]["path"].as_str(), Some("disk0"));
        assert_eq!(vm["type1"]["disks"][0]["read_only"].as_bool(), Some(true));
        assert_eq!(disks, [(beside(folder.path(), "x.iso"), true)]);
        let (vm, disks) = told("kernel");
        assert!(vm.get("image").is_some() && disks.is_empty());
    }

    #[test]
    fn a_disks_name_is_no_protocol_and_its_end_a_whole_sector() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes, size) in
            [("vm:root.img", 1024, ""), ("nbd:x", 1000, ",size=512"), ("json:{}", 513, ",size=512")]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![0; bytes]).unwrap();
            let path = path.to_str().unwrap();
            let words = block_device(0, path, false);
            let expected = format!(
                "driver=raw,node-name=disk0,read-only=off{size},file.driver=file,\
                 file.filename={path}"
            );
            assert_eq!(words, expected);
        }
    }

    #[test]
    fn guests_of_two_names_have_two_addresses_and_keep_them() {
        let of = |name: &str| {
            let text = format!("[vm]\nname = \"{name}\"\n[vm.type1]\n[[vm.type1.nets]]\n");
            let told: Table =
                Devices::default().take(&text, Path::new("")).unwrap().parse().unwrap();
            told["vm"]["type1"]["nets"][0]["mac"].as_str().unwrap().to_owned()
        };
        assert_ne!(of("a"), of("b"));
        if Path::new("/etc/machine-id").exists() {
            assert_eq!(of("a"), of("a"));
        }
    }

    #[test]
    fn networks_are_said_in_qemus_words() {
        let ports = "user,host,tcp=0.0.0.0/8080:80,udp=53:53";
        let expected = "user,hostfwd=tcp:0.0.0.0:8080-:80,hostfwd=udp:127.0.0.1:53-:53";
        assert_eq!(other_end(ports).as_deref(), Ok(expected));
        assert_eq!(other_end("@7").as_deref(), Ok("tap,fd=7"));
        assert!(other_end("@x").is_err());
        assert!(other_end("user,nohost").unwrap_err().contains("nohost"));
        for wrong in ["user,tcp=80", "user,tcp=99999:80", "user,tcp=80:0", "user,tcp=x/1:2"] {
            assert!(other_end(wrong).unwrap_err().contains("ports from 1 to 65535"), "{wrong}");
        }
    }
}
