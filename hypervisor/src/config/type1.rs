//! `[vm.type1]`: what only Type 1 mode knows.

/// The part of a [`super::VmConfig`] for full virtualization.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Type1Config {
    /// The hardware extension to use. Default (`None`): the one that the machine has.
    pub virtualization: Option<Virtualization>,
    /// Whether the guest may itself be a hypervisor. Default: no.
    pub nested: bool,
}

/// Hardware virtualization, by its manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virtualization {
    /// Intel VMX.
    Vmx,
    /// AMD SVM.
    Svm,
    /// Arm EL2.
    El2,
    /// RISC-V H-extension.
    HExt,
}

impl Virtualization {
    /// Every one, with its name in the file.
    pub const NAMES: [(&'static str, Self); 4] =
        [("vmx", Self::Vmx), ("svm", Self::Svm), ("el2", Self::El2), ("h-ext", Self::HExt)];
}
