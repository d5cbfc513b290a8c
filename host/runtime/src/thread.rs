//! Threads: each has a block of its own that FS points to, as the x86_64 ABI for thread-local
//! storage lays it out (variant II: the program's variables lie below the pointer).
//!
//! A detached thread's stack is never given back: the tender's threads last as long as it does.

use crate::syscall::{errno, raw};
use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int, c_void};
use core::mem::offset_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Keys of `pthread_key_create`.
const KEYS: usize = 16;
/// How often destructors of keys may set keys again.
const ROUNDS: usize = 4;
/// A stack where none is asked for.
const STACK: usize = 2 << 20;
const PAGE: usize = 4096;
const ARCH_SET_FS: usize = 0x1002;

type Start = extern "C" fn(*mut c_void) -> *mut c_void;
type Destructor = unsafe extern "C" fn(*mut c_void);

/// What FS points to.
#[repr(C)]
pub struct Control {
    /// Its own address, as the ABI has it.
    this: *mut Control,
    errno: c_int,
    /// The kernel's number of the thread, cleared at its end.
    id: AtomicU32,
    start: Option<Start>,
    argument: *mut c_void,
    result: *mut c_void,
    map: usize,
    map_len: usize,
    values: [*mut c_void; KEYS],
}

/// The program's thread-local variables as each thread gets them.
#[derive(Clone, Copy)]
pub struct Template {
    /// Their first values.
    pub data: *const u8,
    /// Bytes of those; what follows is zero.
    pub file_size: usize,
    /// Bytes in all.
    pub size: usize,
    /// Their alignment, a power of two.
    pub align: usize,
}

struct Shared<T>(UnsafeCell<T>);

// SAFETY: written before there is a second thread.
unsafe impl<T> Sync for Shared<T> {}

static TEMPLATE: Shared<Option<Template>> = Shared(UnsafeCell::new(None));

/// Room for the main thread's variables and its control block.
const MAIN: usize = 4096;
#[repr(C, align(64))]
struct MainBlock([u8; MAIN]);
static MAIN_BLOCK: Shared<MainBlock> = Shared(UnsafeCell::new(MainBlock([0; MAIN])));

/// Gives the main thread its block.
///
/// # Safety
/// Once, at the start.
pub unsafe fn start_main(template: Option<Template>) {
    // SAFETY: nobody else is there.
    unsafe {
        *TEMPLATE.0.get() = template;
        if block_size(template) > MAIN || template.is_some_and(|t| t.align > 64) {
            // Only a change of the program can bring this about, and then every start.
            crate::process::abort();
        }
        let end = MAIN_BLOCK.0.get().cast::<u8>().add(MAIN);
        let control = make_block(end, template);
        raw(libc::SYS_arch_prctl, [ARCH_SET_FS, control.addr(), 0, 0, 0, 0]);
    }
}

/// Bytes below the end of a block that variables and control block take, at most.
fn block_size(template: Option<Template>) -> usize {
    let variables = template.map_or(0, |t| t.size + t.align);
    variables + size_of::<Control>() + 64
}

/// Lays a block out below `end`, which is zeroed memory.
unsafe fn make_block(end: *mut u8, template: Option<Template>) -> *mut Control {
    let align = template.map_or(64, |t| t.align.max(64));
    let at = (end.addr() - size_of::<Control>()) & !(align - 1);
    let control = end.wrapping_sub(end.addr() - at);
    // SAFETY: the caller has `block_size` zeroed bytes below `end`.
    unsafe {
        if let Some(template) = template {
            let size = template.size.next_multiple_of(template.align.max(1));
            let variables = control.wrapping_sub(size);
            crate::mem::memcpy(variables, template.data, template.file_size);
        }
        let control = control.cast::<Control>();
        (*control).this = control;
        control
    }
}

#[cfg(not(test))]
fn current() -> *mut Control {
    let control;
    // SAFETY: every thread's FS points to its block, which starts with its own address.
    unsafe {
        core::arch::asm!(
            "mov {}, fs:[0]",
            out(reg) control,
            options(nostack, pure, readonly, preserves_flags)
        );
    }
    control
}

#[cfg(test)]
fn current() -> *mut Control {
    std::thread_local!(static HERE: UnsafeCell<[usize; 64]> = const { UnsafeCell::new([0; 64]) });
    HERE.with(|here| here.get().cast())
}

/// Where the calling thread's `errno` is.
pub fn errno_location() -> *mut c_int {
    // SAFETY: a thread's block lives as long as the thread.
    unsafe { &raw mut (*current()).errno }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn __errno_location() -> *mut c_int {
    errno_location()
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn pthread_self() -> *mut Control {
    current()
}

/// The attributes: only a stack's size.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_attr_init(attributes: *mut usize) -> c_int {
    // SAFETY: the caller's.
    unsafe { attributes.write(STACK) };
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_attr_setstacksize(attributes: *mut usize, size: usize) -> c_int {
    // SAFETY: the caller's.
    unsafe { attributes.write(size.next_multiple_of(PAGE)) };
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn pthread_attr_destroy(_attributes: *mut usize) -> c_int {
    0
}

#[cfg(not(test))]
core::arch::global_asm!(
    // clone(flags, stack, parent's id, child's id, FS): the child calls `run` with what is on
    // its stack.
    ".globl redox_runtime_clone",
    ".hidden redox_runtime_clone",
    "redox_runtime_clone:",
    "mov r10, rcx",
    "mov eax, {clone}",
    "syscall",
    "test eax, eax",
    "jnz 2f",
    "xor ebp, ebp",
    "mov rdi, [rsp]",
    "call {run}",
    "ud2",
    "2:",
    "ret",
    clone = const libc::SYS_clone,
    run = sym run,
);

#[cfg(not(test))]
unsafe extern "C" {
    fn redox_runtime_clone(
        flags: c_int,
        stack: *mut u8,
        parent: *const AtomicU32,
        child: *const AtomicU32,
        fs: *mut Control,
    ) -> isize;
}

#[cfg(test)]
unsafe fn redox_runtime_clone(
    _flags: c_int,
    _stack: *mut u8,
    _parent: *const AtomicU32,
    _child: *const AtomicU32,
    _fs: *mut Control,
) -> isize {
    -1
}

/// A thread's life.
#[cfg_attr(test, allow(dead_code, reason = "only a new thread calls it"))]
unsafe extern "C" fn run(control: *mut Control) -> ! {
    // SAFETY: `pthread_create` has filled the block in.
    unsafe {
        if let Some(start) = (*control).start {
            (*control).result = start((*control).argument);
        }
        end_keys(control);
        raw(libc::SYS_exit, [0; 6]);
    }
    loop {
        core::hint::spin_loop();
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_create(
    thread: *mut *mut Control,
    attributes: *const usize,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    const FLAGS: c_int = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    // SAFETY: the attributes are the caller's; the new mapping is large enough for a page that
    // nobody may touch, the stack, and the block above it.
    unsafe {
        let template = *TEMPLATE.0.get();
        let stack = if attributes.is_null() { STACK } else { *attributes };
        let len = (PAGE + stack + block_size(template)).next_multiple_of(PAGE);
        let prot = (libc::PROT_READ | libc::PROT_WRITE).unsigned_abs() as usize;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs() as usize;
        let map = raw(libc::SYS_mmap, [0, len, prot, flags, usize::MAX, 0]);
        if (-4095..0).contains(&map) {
            return libc::EAGAIN;
        }
        let map = map.cast_unsigned();
        raw(libc::SYS_mprotect, [map, PAGE, 0, 0, 0, 0]);
        let control = make_block((map + len) as *mut u8, template);
        (*control).start = Some(start);
        (*control).argument = argument;
        ((*control).map, (*control).map_len) = (map, len);
        let top = (map + PAGE + stack - 64) & !63;
        (top as *mut *mut Control).write(control);
        thread.write(control);
        let id = &raw const (*control).id;
        let result = redox_runtime_clone(FLAGS, top as *mut u8, id, id, control);
        if result < 0 {
            raw(libc::SYS_munmap, [map, len, 0, 0, 0, 0]);
            return libc::EAGAIN;
        }
    }
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_join(thread: *mut Control, result: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's thread, which nobody else joins; the kernel clears its number when it
    // has gone, and then its memory is nobody's.
    unsafe {
        let id = &raw const (*thread).id;
        loop {
            let now = (*id).load(Ordering::Acquire);
            if now == 0 {
                break;
            }
            // FUTEX_WAIT; whatever it says, the number is looked at again.
            raw(libc::SYS_futex, [id.addr(), 0, now as usize, 0, 0, 0]);
        }
        if !result.is_null() {
            result.write((*thread).result);
        }
        raw(libc::SYS_munmap, [(*thread).map, (*thread).map_len, 0, 0, 0, 0]);
    }
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn pthread_detach(_thread: *mut Control) -> c_int {
    0
}

/// Only of the calling thread.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_setname_np(_thread: *mut Control, name: *const c_char) -> c_int {
    const PR_SET_NAME: usize = 15;
    // SAFETY: the caller's string.
    unsafe { raw(libc::SYS_prctl, [PR_SET_NAME, name.addr(), 0, 0, 0, 0]) };
    0
}

static NEXT_KEY: AtomicUsize = AtomicUsize::new(0);
static DESTRUCTORS: [AtomicPtr<c_void>; KEYS] = [const { AtomicPtr::new(null_mut()) }; KEYS];

/// Keys are not used again: the standard library makes one.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_key_create(
    key: *mut u32,
    destructor: Option<Destructor>,
) -> c_int {
    let index = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
    let (Some(slot), Ok(number)) = (DESTRUCTORS.get(index), u32::try_from(index)) else {
        return libc::EAGAIN;
    };
    let destructor = destructor.map_or(null_mut(), |f| f as *mut c_void);
    slot.store(destructor, Ordering::Relaxed);
    // SAFETY: the caller's.
    unsafe { key.write(number) };
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn pthread_key_delete(_key: u32) -> c_int {
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_setspecific(key: u32, value: *mut c_void) -> c_int {
    if key as usize >= KEYS {
        return libc::EINVAL;
    }
    // SAFETY: the thread's own block.
    unsafe { (*current()).values[key as usize] = value };
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_getspecific(key: u32) -> *mut c_void {
    // SAFETY: the thread's own block.
    let values = unsafe { (*current()).values };
    values.get(key as usize).copied().unwrap_or(null_mut())
}

/// Destroys what the thread's keys hold.
unsafe fn end_keys(control: *mut Control) {
    for _ in 0..ROUNDS {
        for (index, destructor) in DESTRUCTORS.iter().enumerate() {
            let destructor = destructor.load(Ordering::Relaxed);
            // SAFETY: the thread's own block, and a function that was given for this key.
            unsafe {
                let value = core::mem::replace(&mut (*control).values[index], null_mut());
                if !destructor.is_null() && !value.is_null() {
                    core::mem::transmute::<*mut c_void, Destructor>(destructor)(value);
                }
            }
        }
    }
}

/// Gives 0, and not the mask's size, as the C library does.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sched_getaffinity(pid: c_int, len: usize, mask: *mut u8) -> c_int {
    let pid = usize::try_from(pid).unwrap_or(0);
    // SAFETY: the caller's mask has `len` bytes.
    unsafe {
        let result = raw(libc::SYS_sched_getaffinity, [pid, len, mask.addr(), 0, 0, 0]);
        let Ok(filled) = usize::try_from(errno(result)) else { return -1 };
        crate::mem::memset(mask.add(filled), 0, len.saturating_sub(filled));
    }
    0
}

// The ABI has the block's own address at FS:0.
const _: () = assert!(offset_of!(Control, this) == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_lie_below_the_control_block() {
        let data = [1u8, 2, 3, 4, 5];
        for (size, align) in [(5, 1), (5, 8), (40, 16), (200, 64), (300, 32)] {
            let template = Template { data: data.as_ptr(), file_size: 5, size, align };
            let mut memory = vec![0u64; block_size(Some(template)) / 8 + 16];
            let end = memory.as_mut_ptr_range().end.cast::<u8>();
            // SAFETY: the memory is zeroed and large enough.
            unsafe {
                let control = make_block(end, Some(template));
                assert_eq!((*control).this, control);
                assert_eq!(control.addr() % align.max(64), 0);
                assert!(control.add(1).cast::<u8>() <= end);
                let start = control.cast::<u8>().sub(size.next_multiple_of(align));
                assert!(start >= memory.as_mut_ptr().cast());
                let expected = [&data[..], &[0; 300]].concat();
                assert_eq!(core::slice::from_raw_parts(start, size), &expected[..size]);
            }
        }
    }

    #[test]
    fn values_of_keys_are_destroyed_once() {
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        unsafe extern "C" fn destroy(value: *mut c_void) {
            SEEN.fetch_add(value.addr(), Ordering::Relaxed);
        }
        let mut key = 0;
        // SAFETY: this thread's own block.
        unsafe {
            assert_eq!(pthread_key_create(&raw mut key, Some(destroy)), 0);
            assert_eq!(pthread_setspecific(key, 5 as *mut c_void), 0);
            assert_eq!(pthread_getspecific(key).addr(), 5);
            end_keys(current());
            assert!(pthread_getspecific(key).is_null());
        }
        assert_eq!(SEEN.load(Ordering::Relaxed), 5);
    }
}
