//! What the backend keeps for each of the host's CPUs, and whose registers are in it.
//!
//! VMRUN switches only a part of a processor's state. The rest (vector registers, XCR0, DR0 to
//! DR3, TSC_AUX) stays the guest's across exits: a vCPU that goes on where it was pays nothing.
//! It is switched when another vCPU comes to the CPU, and by [`release`], which the kernel calls
//! before it gives the CPU, or the vCPU, to anybody else.

#![allow(unsafe_code)]

use super::processor::{debug_addresses, rdmsr, set_debug_addresses, wrmsr, xgetbv, xsetbv};
use super::svm::{Asids, TscRatio};
use crate::{HostPhys, Platform};

const TSC_AUX: u32 = 0xc000_0103;
/// AMD APM vol. 2 §3.2.9.
const PRED_CMD: u32 = 0x49;
const PRED_CMD_IBPB: u64 = 1;

/// One CPU's. It begins as zeros, in a frame of its own.
#[repr(C)]
pub(crate) struct Cpu {
    /// Guests can be run here.
    pub enabled: bool,
    /// There is TSC_AUX.
    pub has_tsc_aux: bool,
    /// There is a barrier for the branch predictor.
    pub has_ibpb: bool,
    /// What VMLOAD has to put back at each exit has been saved since the last release.
    pub host_saved: bool,
    /// Its number.
    pub number: u32,
    /// The timer's wish that the platform was last told of; 0: none.
    pub armed: u64,
    /// Where VMSAVE has put the host's state, and the address identifiers.
    pub host_vmcb: HostPhys,
    pub asids: Asids,
    /// What the TSC Ratio register holds.
    pub tsc_ratio: TscRatio,
    /// Where the VMCB is that was run last.
    #[cfg(any(test, feature = "audit"))]
    pub last_vmcb: u64,
    /// The vCPU whose registers are in the processor, or null.
    live: *mut Live,
    /// The VM of the vCPU that was here last, 0: none yet.
    guest: u64,
    host_fpu: *mut u8,
    host_xcr0: u64,
    host_debug: [u64; 4],
    host_tsc_aux: u64,
}

/// A vCPU's registers that stay in the processor, while they are elsewhere.
#[derive(Debug)]
pub(crate) struct Live {
    /// An XSAVE area of 4096 bytes.
    fpu: *mut u8,
    pub xcr0: u64,
    pub debug: [u64; 4],
    /// DR0 to DR3 are the guest's while it is live.
    pub debug_loaded: bool,
    pub tsc_aux: u64,
    /// On which CPU it is live.
    on: Option<u32>,
    /// Its VM's number.
    guest: u64,
}

// SAFETY: the pointer is to a frame of its own.
unsafe impl Send for Live {}

impl Live {
    /// Registers after a reset, over a frame of zeros.
    ///
    /// # Safety
    /// `fpu` is such a frame, for as long as this is used.
    pub unsafe fn new(fpu: *mut u8, guest: u64) -> Self {
        let live =
            Self { fpu, xcr0: 1, debug: [0; 4], debug_loaded: false, tsc_aux: 0, on: None, guest };
        live.write_initial();
        live
    }

    /// Registers after a reset. Only while they are not in the processor.
    pub fn reset(&mut self) {
        *self = Self { debug: [0; 4], xcr0: 1, debug_loaded: false, tsc_aux: 0, ..*self };
        // SAFETY: a frame of 4096 bytes.
        unsafe { self.fpu.write_bytes(0, 4096) };
        self.write_initial();
    }

    /// FCW and MXCSR; XSTATE_BV of 0 says that every component is in its initial state.
    fn write_initial(&self) {
        // SAFETY: inside of the area, which is aligned.
        unsafe {
            self.fpu.cast::<u16>().write(0x37f);
            self.fpu.add(24).cast::<u32>().write(0x1f80);
        }
    }

    /// Whether it is live on a CPU.
    pub fn is_live(&self) -> bool {
        self.on.is_some()
    }

    /// Whether it is live on another CPU than this.
    pub fn is_elsewhere(&self, cpu: u32) -> bool {
        self.on.is_some_and(|on| on != cpu)
    }
}

/// This CPU's data, if they have been made.
#[inline]
pub(crate) fn known<P: Platform>(platform: &P) -> Option<*mut Cpu> {
    // SAFETY: the slot is this CPU's word, for the backend alone.
    let there = unsafe { *platform.cpu_slot() };
    (there != 0).then(|| core::ptr::with_exposed_provenance_mut(there))
}

/// The same, made at the first call. `None` where there is no memory.
pub(crate) fn this<P: Platform>(platform: &P) -> Option<*mut Cpu> {
    if let Some(cpu) = known(platform) {
        return Some(cpu);
    }
    let cpu = platform.virt(platform.cpu_frame()?).cast::<Cpu>();
    let host_fpu = platform.virt(platform.cpu_frame()?);
    // SAFETY: a frame of zeros, which is a valid `Cpu`, is this CPU's from now on.
    unsafe {
        (*cpu).number = platform.cpu();
        (*cpu).host_fpu = host_fpu;
        *platform.cpu_slot() = cpu.expose_provenance();
    }
    Some(cpu)
}

impl Cpu {
    /// Puts a vCPU's registers into the processor, unless they are there.
    ///
    /// # Safety
    /// This is the CPU; `live` stays where it is, and is released before it ends or moves.
    pub unsafe fn acquire<P: Platform>(&mut self, platform: &P, live: *mut Live) {
        if self.live == live {
            return;
        }
        // SAFETY: as the caller promises; the one before is released in the same way.
        unsafe {
            let from = match self.leave() {
                Some(before) => before,
                None => {
                    self.take_host(platform);
                    self.host_fpu
                }
            };
            platform.fpu_swap(from, (*live).fpu);
            let before = core::mem::replace(&mut self.guest, (*live).guest);
            if self.has_ibpb && before != (*live).guest {
                // What another guest has taught the branch predictor is not for this one.
                wrmsr(PRED_CMD, PRED_CMD_IBPB);
            }
            self.live = live;
            (*live).on = Some(self.number);
            self.set_xcr0((*live).xcr0);
            if self.has_tsc_aux {
                wrmsr(TSC_AUX, (*live).tsc_aux);
            }
        }
    }

    /// Whether this vCPU's registers are in the processor.
    pub fn has(&self, live: *const Live) -> bool {
        core::ptr::eq(self.live, live)
    }

    /// Gives the processor back to the host.
    ///
    /// # Safety
    /// This is the CPU.
    pub unsafe fn release<P: Platform>(&mut self, platform: &P) {
        // SAFETY: this CPU, as the caller promises; what is loaded was the host's.
        unsafe {
            let Some(from) = self.leave() else { return };
            self.host_saved = false;
            platform.fpu_swap(from, self.host_fpu);
            set_debug_addresses(self.host_debug);
            if self.has_tsc_aux {
                wrmsr(TSC_AUX, self.host_tsc_aux);
            }
        }
        if core::mem::take(&mut self.armed) != 0 {
            platform.arm_timer(None);
        }
    }

    /// Saves the live vCPU's registers but for the vector registers, and returns where those go.
    unsafe fn leave(&mut self) -> Option<*mut u8> {
        if self.live.is_null() {
            return None;
        }
        // SAFETY: a live vCPU is released before it ends.
        let live = unsafe { &mut *core::mem::replace(&mut self.live, core::ptr::null_mut()) };
        // SAFETY: this CPU, in ring 0.
        unsafe {
            self.set_xcr0(self.host_xcr0);
            if core::mem::take(&mut live.debug_loaded) {
                live.debug = debug_addresses();
            }
        }
        live.on = None;
        Some(live.fpu)
    }

    unsafe fn take_host<P: Platform>(&mut self, platform: &P) {
        // SAFETY: this CPU, in ring 0; without XSAVE there is no XCR0.
        unsafe {
            self.host_xcr0 = if platform.xcr0() == 0 { 0 } else { xgetbv() };
            self.host_debug = debug_addresses();
            if self.has_tsc_aux {
                self.host_tsc_aux = rdmsr(TSC_AUX);
            }
        }
    }

    /// Sets XCR0, if there is one.
    ///
    /// # Safety
    /// This is the CPU; the value is the host's or has only components that a guest may be given.
    pub unsafe fn set_xcr0(&self, value: u64) {
        if self.host_xcr0 != 0 {
            // SAFETY: as the caller promises.
            unsafe { xsetbv(value) };
        }
    }

    /// Sets TSC_AUX, if there is one.
    ///
    /// # Safety
    /// This is the CPU, and the value is the live vCPU's.
    pub unsafe fn set_tsc_aux(&self, value: u64) {
        if self.has_tsc_aux {
            // SAFETY: as the caller promises.
            unsafe { wrmsr(TSC_AUX, value) };
        }
    }

    /// Loads the live vCPU's DR0 to DR3.
    ///
    /// # Safety
    /// This is the CPU, and `live` is live here.
    pub unsafe fn load_debug(&mut self, live: &mut Live) {
        // SAFETY: as the caller promises; the host's DR7 is clear while guests are about.
        unsafe { set_debug_addresses(live.debug) };
        live.debug_loaded = true;
    }
}

/// Takes what is left of guests out of this CPU. The kernel calls it before it switches to
/// another thread, or to anybody else who uses vector registers. It costs little where there is
/// nothing.
pub fn release<P: Platform>(platform: &P) {
    if let Some(cpu) = known(platform) {
        // SAFETY: made by `this`, for this CPU, and used by nobody else.
        unsafe { (*cpu).release(platform) };
    }
}
