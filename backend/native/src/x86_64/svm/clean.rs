//! VMCB clean bits (AMD APM vol. 2 §15.15): which groups of a VMCB's fields the processor may keep
//! from the last VMRUN.

use super::vmcb::{Control, Save, Vmcb};
use core::mem::{offset_of, size_of};
use core::ops::Range;

bitflags::bitflags! {
    /// VMCB_CLEAN: a set bit says that nobody has written the group's fields since the last exit.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Clean: u32 {
        /// Intercepts, TSC offset, pause filter.
        const I = 1 << 0;
        /// Addresses of the permission maps.
        const IOPM = 1 << 1;
        const ASID = 1 << 2;
        /// V_TPR, V_IRQ and what goes with them.
        const TPR = 1 << 3;
        /// Nested paging: NP_ENABLE, N_CR3, G_PAT.
        const NP = 1 << 4;
        /// CR0, CR3, CR4, EFER.
        const CRX = 1 << 5;
        /// DR6, DR7.
        const DRX = 1 << 6;
        /// GDT, IDT.
        const DT = 1 << 7;
        /// CS, DS, SS, ES, CPL.
        const SEG = 1 << 8;
        const CR2 = 1 << 9;
        /// DBGCTL and branch records.
        const LBR = 1 << 10;
    }
}

const fn control(start: usize, end: usize) -> Range<usize> {
    offset_of!(Vmcb, control) + start..offset_of!(Vmcb, control) + end
}

const fn save(start: usize, end: usize) -> Range<usize> {
    offset_of!(Vmcb, save) + start..offset_of!(Vmcb, save) + end
}

const QUAD: usize = size_of::<u64>();

/// Where each group's fields are: bytes of the VMCB.
#[cfg_attr(not(any(test, feature = "audit")), allow(dead_code))]
pub(crate) const GROUPS: [(Clean, &[Range<usize>]); 11] = [
    (
        Clean::I,
        &[
            control(0, offset_of!(Control, iopm_base_pa)),
            control(offset_of!(Control, tsc_offset), offset_of!(Control, guest_asid)),
        ],
    ),
    (Clean::IOPM, &[control(offset_of!(Control, iopm_base_pa), offset_of!(Control, tsc_offset))]),
    (Clean::ASID, &[control(offset_of!(Control, guest_asid), offset_of!(Control, tlb_control))]),
    (Clean::TPR, &[control(offset_of!(Control, v_intr), offset_of!(Control, interrupt_shadow))]),
    (
        Clean::NP,
        &[
            control(offset_of!(Control, np_enable), offset_of!(Control, np_enable) + QUAD),
            control(offset_of!(Control, n_cr3), offset_of!(Control, n_cr3) + QUAD),
            save(offset_of!(Save, g_pat), offset_of!(Save, g_pat) + QUAD),
        ],
    ),
    (
        Clean::CRX,
        &[
            save(offset_of!(Save, efer), offset_of!(Save, efer) + QUAD),
            save(offset_of!(Save, cr4), offset_of!(Save, dr7)),
        ],
    ),
    (Clean::DRX, &[save(offset_of!(Save, dr7), offset_of!(Save, rflags))]),
    (
        Clean::DT,
        &[
            save(offset_of!(Save, gdtr), offset_of!(Save, ldtr)),
            save(offset_of!(Save, idtr), offset_of!(Save, tr)),
        ],
    ),
    (
        Clean::SEG,
        &[
            save(offset_of!(Save, es), offset_of!(Save, fs)),
            save(offset_of!(Save, cpl), offset_of!(Save, cpl) + 1),
        ],
    ),
    (Clean::CR2, &[save(offset_of!(Save, cr2), offset_of!(Save, cr2) + QUAD)]),
    (Clean::LBR, &[save(offset_of!(Save, dbgctl), offset_of!(Save, dbgctl) + QUAD)]),
];
