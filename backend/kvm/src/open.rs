//! Opening `/dev/kvm`: the backend itself, and what to do where it cannot be opened.

use crate::KvmVm;
use crate::error::errno;
use hypervisor::memory::Gpa;
use hypervisor::vcpu::{Backend, BackendCaps, BackendError, VmSpec};
use rustix::io::Errno;
use std::os::unix::fs::MetadataExt;

const DEVICE: &str = "/dev/kvm";
/// The only version that there has ever been (Linux 2.6.22 and later).
const API_VERSION: i32 = 12;

/// Linux KVM.
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens `/dev/kvm`. This does not say whether it can run a guest: see
    /// [`Kvm::create_vm_probed`].
    ///
    /// # Errors
    /// If there is no such device, no right to use it, or it speaks another version.
    pub fn open() -> Result<Self, BackendError> {
        let fd = kvm_ioctls::Kvm::new()
            .map_err(|error| BackendError::new(why_not_open(errno(&error), device_group)))?;
        match fd.get_api_version() {
            API_VERSION => Ok(Self { fd }),
            other => Err(BackendError::new(format!(
                "{DEVICE} speaks API version {other}, not {API_VERSION}: use --backend=sandbox"
            ))),
        }
    }

    pub(crate) fn fd(&self) -> &kvm_ioctls::Kvm {
        &self.fd
    }

    /// Makes a VM and makes sure that KVM really runs 64-bit code with SSE at hardware speed, by
    /// running a few instructions in this very VM. Its memory is zero again afterwards.
    ///
    /// # Errors
    /// If the VM cannot be made, or KVM does not pass. The text says why, for `-v`.
    pub fn create_vm_probed(&self, spec: VmSpec) -> Result<KvmVm, BackendError> {
        let mut vm = self.create_vm(spec)?;
        vm.probe()?;
        Ok(vm)
    }
}

impl Backend for Kvm {
    type Vm = KvmVm;

    fn name(&self) -> &'static str {
        "kvm"
    }

    fn capabilities(&self) -> BackendCaps {
        BackendCaps { doorbells: true, answers_locally: false, lowest_gpa: Gpa(0), max_vcpus: 1 }
    }

    fn create_vm(&self, spec: VmSpec) -> Result<KvmVm, BackendError> {
        KvmVm::new(&self.fd, spec)
    }
}

fn why_not_open(errno: Errno, group: impl Fn() -> Option<String>) -> String {
    match errno {
        Errno::NOENT | Errno::NXIO | Errno::NODEV => format!(
            "{DEVICE} does not exist: load the module kvm_intel or kvm_amd, switch \
             virtualization on in the firmware, or use --backend=sandbox"
        ),
        Errno::ACCESS | Errno::PERM => {
            let how = match group() {
                Some(group) => {
                    format!("join its group (sudo usermod -aG {group} $USER, then log in again)")
                }
                None => format!("it is root's alone (sudo setfacl -m u:$USER:rw {DEVICE})"),
            };
            format!("no permission to open {DEVICE}: {how}, or use --backend=sandbox")
        }
        other => format!("cannot open {DEVICE}: {other}: use --backend=sandbox"),
    }
}

/// The name of the group that may use the device, if it is not root's own.
fn device_group() -> Option<String> {
    /// Reading and writing, for its group.
    const GROUP: u32 = 0o060;
    let device = std::fs::metadata(DEVICE).ok()?;
    let gid = Some(device.gid()).filter(|gid| *gid != 0 && device.mode() & GROUP == GROUP)?;
    group_name(&std::fs::read_to_string("/etc/group").ok()?, gid)
}

/// The name of group `gid` in a file of group(5)'s format.
fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == gid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_and_a_forbidden_one_say_what_to_do() {
        let none = || None;
        assert!(why_not_open(Errno::NOENT, none).contains("load the module"));
        assert!(why_not_open(Errno::ACCESS, none).contains("it is root's alone"));
        let text = why_not_open(Errno::ACCESS, || Some("virt".into()));
        assert!(text.contains("usermod -aG virt"), "{text}");
        assert!(why_not_open(Errno::MFILE, none).contains("cannot open"));
    }

    #[test]
    fn the_group_is_found_by_number() {
        let groups = "root:x:0:\nbroken\nkvm:x:105:me,you\n";
        assert_eq!(group_name(groups, 105).as_deref(), Some("kvm"));
        assert_eq!(group_name(groups, 5), None);
    }
}
