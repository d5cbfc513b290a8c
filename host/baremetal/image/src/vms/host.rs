//! The machine as a host: files of the boot module, switches.

use super::files::Files;
use super::session::Session;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use host_baremetal::net::switch::Switch;
use hypervisor::host::{Blob, BlockStore, HostError};
use hypervisor::modes::hvt::mode::{HvtHost, HvtSession};
use hypervisor::sync::Mutex;
use hypervisor::vm::VmId;

/// What the machine has for guests.
pub struct Machine {
    /// The boot module.
    pub files: Arc<Files>,
    /// Networks by name; made when they are first named.
    switches: Mutex<BTreeMap<String, Arc<Switch>>>,
}

impl Machine {
    /// A machine with this boot module.
    pub fn new(files: Files) -> Self {
        Self { files: Arc::new(files), switches: Mutex::default() }
    }

    /// The network of this name.
    pub fn switch(&self, name: &str) -> Arc<Switch> {
        self.switches.lock().entry(name.into()).or_default().clone()
    }

    /// A disk by its name.
    pub fn disk(&self, path: &str) -> Result<Box<dyn BlockStore>, HostError> {
        self.files.disk(path)
    }
}

/// The machine, as HVT mode is lent it.
pub struct Host(pub Arc<Machine>);

impl HvtHost for Host {
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HostError> {
        self.0.files.open(path)
    }

    fn session(&self, vm: VmId, name: &str) -> Result<Box<dyn HvtSession>, HostError> {
        crate::terminal::add_guest(vm.get(), name);
        let machine = self.0.clone();
        Ok(Box::new(Session { machine, vm, kick: Arc::default(), queues: Vec::new() }))
    }
}
