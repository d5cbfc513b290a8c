//! One vCPU's VMCB, in which nothing is written without its clean bit being cleared.
//!
//! Fields are read as they are; written they are only here, each by a setter that knows its group.
//! Order: [`Block::rewrite`] for what is written at once; [`Block::dirty`] when the vCPU comes to a
//! CPU; after each VMRUN, and then only, [`Block::ran`].

#![allow(unsafe_code)]

#[cfg(any(test, feature = "audit"))]
use super::audit::Audit;
use super::clean::Clean;
use super::vmcb::{Vmcb, tlb_control};
use core::ops::Deref;

/// A VMCB.
pub(crate) struct Block {
    vmcb: *mut Vmcb,
    #[cfg(any(test, feature = "audit"))]
    audit: Audit,
}

// SAFETY: the VMCB is a frame of its own.
unsafe impl Send for Block {}

impl Deref for Block {
    type Target = Vmcb;

    #[inline(always)]
    fn deref(&self) -> &Vmcb {
        // SAFETY: a frame of its own, which the processor uses only inside of `enter`.
        unsafe { &*self.vmcb }
    }
}

/// Setters of fields: `name: type = place in group`.
macro_rules! setters {
    ($($name:ident: $of:ty = $part:ident . $field:ident in $group:expr;)*) => {
        $(
            #[inline(always)]
            pub fn $name(&mut self, value: $of) {
                let vmcb = self.vmcb_mut();
                vmcb.$part.$field = value;
                vmcb.control.vmcb_clean &= !$group.bits();
            }
        )*
        /// Every setter with its group, for tests.
        #[cfg(test)]
        pub const SETTERS: &[(&str, fn(&mut Self), Clean)] = &[
            $((stringify!($name), |block| block.$name(!block.$part.$field), $group)),*
        ];
    };
}

/// Setters of fields that VMRUN always reads (AMD APM vol. 2 §15.15.3: those in no group).
macro_rules! uncached {
    ($($name:ident: $of:ty = $part:ident . $field:ident;)*) => {
        $(
            #[inline(always)]
            pub fn $name(&mut self, value: $of) {
                self.vmcb_mut().$part.$field = value;
            }
        )*
    };
}

impl Block {
    /// Over a frame of zeros: everything is dirty.
    ///
    /// # Safety
    /// `vmcb` is such a frame, this one's as long as it is used.
    pub unsafe fn new(vmcb: *mut Vmcb) -> Self {
        Self {
            vmcb,
            #[cfg(any(test, feature = "audit"))]
            audit: Audit::default(),
        }
    }

    #[inline(always)]
    fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { &mut *self.vmcb }
    }

    /// The processor may have nothing of it: before the first VMRUN on a CPU, and on a CPU where
    /// another VMCB was run since.
    pub fn dirty(&mut self) {
        self.vmcb_mut().control.vmcb_clean = 0;
    }

    /// All of its fields, all of them dirty.
    pub fn rewrite(&mut self) -> &mut Vmcb {
        self.dirty();
        self.vmcb_mut()
    }

    /// RAX and RSP for the next VMRUN.
    #[inline(always)]
    pub fn set_rax_rsp(&mut self, [rax, rsp]: [u64; 2]) {
        let save = &mut self.vmcb_mut().save;
        (save.rax, save.rsp) = (rax, rsp);
    }

    /// VMRUN has read all that was dirty: from now on nothing is. What was for one entry is over.
    /// Gives RAX and RSP. At every exit: in one call, so that the place is looked up once.
    #[inline(always)]
    pub fn ran(&mut self) -> [u64; 2] {
        let Vmcb { control, save } = self.vmcb_mut();
        control.eventinj = 0;
        control.tlb_control = tlb_control::NOTHING;
        control.vmcb_clean = Clean::all().bits();
        [save.rax, save.rsp]
    }

    /// The next instruction is in no interrupt shadow.
    #[inline(always)]
    pub fn clear_interrupt_shadow(&mut self) {
        self.vmcb_mut().control.interrupt_shadow &= !1;
    }

    setters! {
        set_intercept_dr_read: u16 = control.intercept_dr_read in Clean::I;
        set_intercept_dr_write: u16 = control.intercept_dr_write in Clean::I;
        set_intercept_1: u32 = control.intercept_1 in Clean::I;
        set_tsc_offset: u64 = control.tsc_offset in Clean::I;
        set_guest_asid: u32 = control.guest_asid in Clean::ASID;
        set_v_intr: u64 = control.v_intr in Clean::TPR;
        set_g_pat: u64 = save.g_pat in Clean::NP;
        set_cr4: u64 = save.cr4 in Clean::CRX;
        set_efer: u64 = save.efer in Clean::CRX;
        set_dr6: u64 = save.dr6 in Clean::DRX;
        set_cr2: u64 = save.cr2 in Clean::CR2;
    }

    uncached! {
        set_tlb_control: u8 = control.tlb_control;
        set_eventinj: u64 = control.eventinj;
        set_rip: u64 = save.rip;
        set_rflags: u64 = save.rflags;
    }
}

#[cfg(any(test, feature = "audit"))]
impl Block {
    /// Before VMRUN on this CPU, whose last VMCB was at `last`.
    ///
    /// # Panics
    /// If a clean bit is set that must not be.
    pub fn audit_entry(&self, cpu: u32, last: u64) {
        self.audit.entry(self, cpu, last == self.vmcb.addr() as u64);
    }

    /// After it; gives what is the last VMCB then.
    pub fn audit_exit(&mut self, cpu: u32) -> u64 {
        // SAFETY: as in `deref`; a copy, so that the audit can be changed.
        let vmcb = unsafe { &*self.vmcb };
        self.audit.exit(vmcb, cpu);
        self.vmcb.addr() as u64
    }
}
