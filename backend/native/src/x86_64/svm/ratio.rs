//! The TSC Ratio register (AMD APM vol. 2 §15.30.5): one for each CPU, not switched by VMRUN.
//!
//! It scales what guests read; the host reads its counter as it is whatever the register holds. So
//! it need not be put back when a CPU leaves its guests: it is written where a vCPU arrives that
//! needs another value than the one before, and costs an entry nothing.

#![allow(unsafe_code)]

use crate::x86_64::processor::wrmsr;
use crate::x86_64::tsc::Ratio;

const TSC_RATIO: u32 = 0xc000_0104;

/// What one CPU's register holds; at first (zeros) nobody knows.
#[derive(Debug, Default)]
pub(crate) struct TscRatio(u64);

impl TscRatio {
    /// Makes it hold a vCPU's ratio.
    ///
    /// # Safety
    /// This is that CPU, and it has the register.
    pub unsafe fn load(&mut self, ratio: Ratio) {
        if self.0 != ratio.bits() {
            // SAFETY: as the caller promises; guests alone see it.
            unsafe { wrmsr(TSC_RATIO, ratio.bits()) };
            self.0 = ratio.bits();
        }
    }
}
