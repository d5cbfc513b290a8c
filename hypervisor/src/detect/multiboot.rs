//! Multiboot kernels (Multiboot Specification 0.6.96 §3.1): a header anywhere in the first 8 KiB.
//!
//! To be looked for after disks: boot loaders on a disk carry such a header, too.

use super::{Image, ImageKind};
use crate::host::HostError;
use alloc::vec;

const SEARCHED: usize = 8192;
const MAGIC: u32 = 0x1bad_b002;

pub(super) fn look(image: &Image<'_>) -> Result<Option<ImageKind>, HostError> {
    let mut start = vec![0; SEARCHED];
    let count = image.fill(0, &mut start)?;
    let mut words = start[..count].chunks_exact(4).map(|word| {
        let [a, b, c, d] = [word[0], word[1], word[2], word[3]];
        u32::from_le_bytes([a, b, c, d])
    });
    let mut last = [0; 2];
    let found = words.any(|word| {
        let [magic, flags] = last;
        last = [flags, word];
        magic == MAGIC && magic.wrapping_add(flags).wrapping_add(word) == 0
    });
    Ok(found.then_some(ImageKind::Multiboot))
}
