//! Contents of blocks that tell which block they belong to.

use alloc::{vec, vec::Vec};

/// `size` zeros.
pub fn zeros(size: usize) -> Vec<u8> {
    vec![0; size]
}

/// A block filled with its number plus one, so that no block is zeros.
pub fn numbered(number: u64, size: usize) -> Vec<u8> {
    let mut block = zeros(size);
    for chunk in block.chunks_exact_mut(8) {
        chunk.copy_from_slice(&(number + 1).to_le_bytes());
    }
    block
}
