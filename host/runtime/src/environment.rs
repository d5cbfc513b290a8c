//! The environment, and what the kernel says in the auxiliary vector.

use crate::mem::bytes;
use core::ffi::{c_char, c_int, c_long, c_ulong};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

/// `environ`.
#[cfg_attr(not(test), unsafe(export_name = "environ"))]
static ENVIRON: AtomicPtr<*mut c_char> = AtomicPtr::new(null_mut());

/// Pairs of words behind the environment.
static AUXILIARY: AtomicPtr<[c_ulong; 2]> = AtomicPtr::new(null_mut());

/// Notes where the environment is.
///
/// # Safety
/// A list of strings that ends with a null pointer, behind which is the auxiliary vector.
pub unsafe fn set(list: *mut *mut c_char) {
    ENVIRON.store(list, Ordering::Relaxed);
    let mut end = list;
    // SAFETY: as the caller promises.
    unsafe {
        while !(*end).is_null() {
            end = end.add(1);
        }
        AUXILIARY.store(end.add(1).cast(), Ordering::Relaxed);
    }
}

/// The list of strings.
pub fn list() -> *const *const c_char {
    ENVIRON.load(Ordering::Relaxed).cast_const().cast()
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn getauxval(kind: c_ulong) -> c_ulong {
    let mut entry = AUXILIARY.load(Ordering::Relaxed).cast_const();
    // SAFETY: the vector ends with a pair whose first word is 0.
    unsafe {
        while !entry.is_null() && (*entry)[0] != 0 {
            if (*entry)[0] == kind {
                return (*entry)[1];
            }
            entry = entry.add(1);
        }
    }
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn getenv(name: *const c_char) -> *const c_char {
    // SAFETY: the caller's string, and the environment's.
    unsafe { find(list(), bytes(name)) }
}

unsafe fn find(mut entry: *const *const c_char, name: &[u8]) -> *const c_char {
    // SAFETY: a list of strings that ends with a null pointer, as `set` was promised.
    unsafe {
        while !entry.is_null() && !(*entry).is_null() {
            let value = bytes(*entry).strip_prefix(name).and_then(|v| v.strip_prefix(b"="));
            if let Some(value) = value {
                return value.as_ptr().cast();
            }
            entry = entry.add(1);
        }
    }
    core::ptr::null()
}

/// Only the size of a page; the number of CPUs is `sched_getaffinity`'s to tell.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn sysconf(name: c_int) -> c_long {
    if name == libc::_SC_PAGESIZE { 4096 } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_auxiliary_values_are_found_by_their_whole_name() {
        let (a, b) = (c"HOMER=x".as_ptr().cast_mut(), c"HOME=/root".as_ptr().cast_mut());
        let mut stack = [a, b, null_mut(), 6 as *mut c_char, 4096 as *mut c_char, null_mut()];
        // SAFETY: as the kernel lays it out.
        unsafe {
            let value = find(stack.as_ptr().cast(), b"HOME");
            assert_eq!(bytes(value), b"/root");
            assert!(find(stack.as_ptr().cast(), b"HOM").is_null());
            set(stack.as_mut_ptr());
            assert_eq!((getauxval(6), getauxval(7)), (4096, 0));
        }
    }
}
