//! The guest's vector registers, around a call of the monitor's.
//!
//! With the feature `sse-only` the program has no instruction that touches more than the lower 128
//! bits of XMM0 to XMM15: our own code is compiled for every x86_64 CPU, and `static-runtime` is in
//! the C library's place. Then these are 16 moves. Otherwise the C library may use whatever the CPU
//! has, and all of it is saved with XSAVE (Intel SDM vol. 1 §13), which takes some 50 ns longer.

use core::sync::atomic::AtomicU32;

/// State components to save with XSAVE: SSE, AVX and AVX-512, as far as the CPU has them. The
/// monitor does not touch x87, PKRU or AMX.
pub static MASK: AtomicU32 = AtomicU32::new(0);

#[cfg(feature = "sse-only")]
mod kind {
    /// Room for 16 registers.
    pub const BYTES: usize = 256;

    macro_rules! save {
        () => {
            "
            movaps [rip + {frame} + 0*16], xmm0
            movaps [rip + {frame} + 1*16], xmm1
            movaps [rip + {frame} + 2*16], xmm2
            movaps [rip + {frame} + 3*16], xmm3
            movaps [rip + {frame} + 4*16], xmm4
            movaps [rip + {frame} + 5*16], xmm5
            movaps [rip + {frame} + 6*16], xmm6
            movaps [rip + {frame} + 7*16], xmm7
            movaps [rip + {frame} + 8*16], xmm8
            movaps [rip + {frame} + 9*16], xmm9
            movaps [rip + {frame} + 10*16], xmm10
            movaps [rip + {frame} + 11*16], xmm11
            movaps [rip + {frame} + 12*16], xmm12
            movaps [rip + {frame} + 13*16], xmm13
            movaps [rip + {frame} + 14*16], xmm14
            movaps [rip + {frame} + 15*16], xmm15
            "
        };
    }

    macro_rules! restore {
        () => {
            "
            movaps xmm0, [rip + {frame} + 0*16]
            movaps xmm1, [rip + {frame} + 1*16]
            movaps xmm2, [rip + {frame} + 2*16]
            movaps xmm3, [rip + {frame} + 3*16]
            movaps xmm4, [rip + {frame} + 4*16]
            movaps xmm5, [rip + {frame} + 5*16]
            movaps xmm6, [rip + {frame} + 6*16]
            movaps xmm7, [rip + {frame} + 7*16]
            movaps xmm8, [rip + {frame} + 8*16]
            movaps xmm9, [rip + {frame} + 9*16]
            movaps xmm10, [rip + {frame} + 10*16]
            movaps xmm11, [rip + {frame} + 11*16]
            movaps xmm12, [rip + {frame} + 12*16]
            movaps xmm13, [rip + {frame} + 13*16]
            movaps xmm14, [rip + {frame} + 14*16]
            movaps xmm15, [rip + {frame} + 15*16]
            // {mask}
            "
        };
    }

    pub(crate) use {restore, save};

    /// Every CPU has SSE.
    pub fn prepare() -> bool {
        true
    }
}

#[cfg(not(feature = "sse-only"))]
mod kind {
    use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    use core::sync::atomic::Ordering;

    /// XSAVE area: all of AVX-512 takes 2,688 bytes.
    pub const BYTES: usize = 4096;

    /// SSE, AVX, opmask, ZMM_Hi256, Hi16_ZMM.
    const VECTOR_STATE: u32 = 0xe6;

    macro_rules! save {
        () => {
            "
            mov eax, [rip + {mask}]
            xor edx, edx
            xsavec64 [rip + {frame}]
            "
        };
    }

    macro_rules! restore {
        () => {
            "
            mov eax, [rip + {mask}]
            xor edx, edx
            xrstor64 [rip + {frame}]
            "
        };
    }

    pub(crate) use {restore, save};

    /// `false` where the CPU has no XSAVEC.
    pub fn prepare() -> bool {
        let has_xsave = __cpuid(1).ecx >> 27 & 1 == 1;
        if !has_xsave || __cpuid_count(0xd, 1).eax >> 1 & 1 == 0 {
            return false;
        }
        // SAFETY: OSXSAVE is set, so XGETBV exists.
        let enabled = unsafe { xcr0() };
        super::MASK.store(enabled & VECTOR_STATE, Ordering::Relaxed);
        true
    }

    #[target_feature(enable = "xsave")]
    fn xcr0() -> u32 {
        // SAFETY: the caller has checked for OSXSAVE.
        let value = unsafe { _xgetbv(0) };
        u32::try_from(value & u64::from(VECTOR_STATE)).unwrap_or(0)
    }
}

pub use kind::{BYTES, prepare};
pub(crate) use kind::{restore, save};
