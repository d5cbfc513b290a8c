//! `--backend=auto`: KVM where it really runs a guest, else the sandbox.

use crate::args::BackendChoice;

/// What to run on, and why.
pub enum Chosen {
    /// KVM, open but not yet tried.
    Kvm(backend_kvm::Kvm),
    /// The sandbox, for this reason.
    Sandbox(String),
}

/// Follows the user's choice as far as it can be told without a VM. With `auto`, the probe inside
/// of the VM may still say that KVM is no good.
///
/// # Errors
/// Why KVM cannot be used although it was asked for.
pub fn choose(choice: BackendChoice) -> Result<Chosen, String> {
    match choice {
        BackendChoice::Sandbox => Ok(Chosen::Sandbox("it was asked for".to_owned())),
        BackendChoice::Kvm => backend_kvm::Kvm::open().map(Chosen::Kvm).map_err(|e| e.to_string()),
        BackendChoice::Qemu => Err("--backend=qemu is redox-vm's".to_owned()),
        BackendChoice::Auto => Ok(match auto() {
            Ok(kvm) => Chosen::Kvm(kvm),
            Err(why) => Chosen::Sandbox(why),
        }),
    }
}

fn auto() -> Result<backend_kvm::Kvm, String> {
    backend_kvm::host_can_virtualize().map_err(|e| e.to_string())?;
    backend_kvm::Kvm::open().map_err(|e| e.to_string())
}
