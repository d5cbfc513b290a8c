//! What a BIOS leaves in memory, for kernels that are started without one: the interrupt vector
//! table, the BIOS data areas, the multiprocessor table, and a way to reset the machine at
//! F000:FFF0. There are no BIOS services: a kernel that calls interrupts needs firmware.
//!
//! Sources: IBM PS/2 and PC BIOS Interface Technical Reference, "BIOS Data Area"; Intel
//! MultiProcessor Specification 1.4; Intel 82371AB for the reset register.

mod mp;

use super::place::{BIOS, LOW_RAM_END};
use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::modes::type1::layout::{COM1, RESET_PORT, RESET_VALUE};

/// The vector table: 256 far pointers.
const VECTORS: u64 = 256;
/// The BIOS data area.
const DATA: u64 = 0x400;
/// Offset of a return from an interrupt in segment F000, where PCs have it.
const RETURN: u16 = 0xff53;
/// Offset of the power-on self-test there.
const POST: u16 = 0xe05b;
/// Offset of what runs after reset.
const RESET: u16 = 0xfff0;
/// When this BIOS was made, as mm/dd/yy, and the model byte of an AT.
const DATE_AND_MODEL: &[u8; 10] = b"01/01/26\0\xfc";
/// Keyboard buffer: from the BIOS data area's beginning.
const BUFFER: [u16; 2] = [0x1e, 0x3e];

/// Writes all of it. The memory was zeroed before.
///
/// # Errors
/// If the first MiB is not memory.
pub fn install(memory: &GuestMemory, vcpus: u32) -> Result<(), MemoryError> {
    write_vectors(memory)?;
    write_data_areas(memory)?;
    write_code(memory)?;
    mp::install(memory, Gpa(BIOS.start), vcpus)
}

fn write_vectors(memory: &GuestMemory) -> Result<(), MemoryError> {
    let [low, high] = RETURN.to_le_bytes();
    (0..VECTORS).try_for_each(|vector| memory.write_obj(Gpa(vector * 4), &[low, high, 0, 0xf0]))
}

fn write_data_areas(memory: &GuestMemory) -> Result<(), MemoryError> {
    let word = |offset: u64, value: u16| memory.write_obj(Gpa(DATA + offset), &value);
    word(0x00, COM1)?;
    // The extended data area: a KiB above what the memory map gives away.
    word(0x0e, paragraphs(LOW_RAM_END))?;
    // Equipment: a coprocessor, one serial port.
    word(0x10, 1 << 1 | 1 << 9)?;
    // KiB of base memory.
    word(0x13, u16::try_from(LOW_RAM_END >> 10).unwrap_or(0))?;
    let [start, end] = BUFFER;
    [(0x1a, start), (0x1c, start), (0x80, start), (0x82, end)]
        .into_iter()
        .try_for_each(|(offset, value)| word(offset, value))?;
    // Its size in KiB.
    memory.write_obj(Gpa(LOW_RAM_END), &1u8)
}

/// A segment that begins at an address below 1 MiB.
fn paragraphs(address: u64) -> u16 {
    u16::try_from(address >> 4).unwrap_or(0)
}

fn write_code(memory: &GuestMemory) -> Result<(), MemoryError> {
    let at = |offset: u16| Gpa(BIOS.start + u64::from(offset));
    let ([post, post_high], [port, port_high]) = (POST.to_le_bytes(), RESET_PORT.to_le_bytes());
    // jmp f000:post
    memory.write_bytes(at(RESET), &[0xea, post, post_high, 0, 0xf0])?;
    memory.write_bytes(at(RESET + 5), DATE_AND_MODEL)?;
    // mov al, value; mov dx, port; out dx, al; and in case that nobody listens: cli; hlt; jmp
    let reset = [0xb0, RESET_VALUE, 0xba, port, port_high, 0xee, 0xfa, 0xf4, 0xeb, 0xfd];
    memory.write_bytes(at(POST), &reset)?;
    // iret
    memory.write_bytes(at(RETURN), &[0xcf])
}

#[cfg(test)]
mod tests;
