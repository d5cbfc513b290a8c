//! Everything that a block device promises.

use crate::{blocks, patterns};
use alloc::vec;
use unikernel::{Block, Error, println};

type Check = Result<(), &'static str>;

/// Runs all checks; the first that fails is the error.
pub fn run(disk: &mut Block) -> Check {
    if blocks(disk) < 4 {
        return Err("the device is too small: give it 4 blocks or more");
    }
    round_trip(disk)?;
    many_blocks(disk)?;
    rewrite(disk)?;
    beyond_the_end(disk)?;
    not_whole_blocks(disk)
}

/// Every tenth block, the first and the last: written, then all read back.
fn round_trip(disk: &mut Block) -> Check {
    let (size, last) = (disk.block_size(), blocks(disk) - 1);
    let step = if last > 10_000 { last / 1000 } else { 10 };
    let tried = || (0..last).step_by(usize::try_from(step).unwrap_or(10)).chain([last]);
    for k in tried() {
        let data = patterns::numbered(k, size);
        disk.write(k * size as u64, &data).map_err(|_| "a write failed")?;
    }
    let mut buffer = patterns::zeros(size);
    for k in tried() {
        disk.read(k * size as u64, &mut buffer).map_err(|_| "a read failed")?;
        if buffer != patterns::numbered(k, size) {
            return Err("a block is not what was written");
        }
    }
    println!("round trip: ok");
    Ok(())
}

/// Four blocks in one hypercall are four blocks one by one.
fn many_blocks(disk: &mut Block) -> Check {
    let size = disk.block_size();
    let mut all = patterns::zeros(4 * size);
    for (k, block) in (100..).zip(all.chunks_exact_mut(size)) {
        block.copy_from_slice(&patterns::numbered(k, size));
    }
    disk.write(0, &all).map_err(|_| "a write of four blocks failed")?;
    let mut one = patterns::zeros(size);
    disk.read(2 * size as u64, &mut one).map_err(|_| "a read failed")?;
    let mut back = vec![0; 4 * size];
    disk.read(0, &mut back).map_err(|_| "a read of four blocks failed")?;
    if one != patterns::numbered(102, size) || back != all {
        return Err("four blocks are not what was written");
    }
    println!("many blocks: ok");
    Ok(())
}

/// What was written last is what is read, at once.
fn rewrite(disk: &mut Block) -> Check {
    let size = disk.block_size();
    let mut buffer = patterns::zeros(size);
    for k in 0..16 {
        disk.write(0, &patterns::numbered(k, size)).map_err(|_| "a rewrite failed")?;
        disk.read(0, &mut buffer).map_err(|_| "a read failed")?;
        if buffer != patterns::numbered(k, size) {
            return Err("an old version of a block was read");
        }
    }
    println!("rewrite: ok");
    Ok(())
}

/// Reads and writes that start or end beyond the capacity are refused and change nothing.
fn beyond_the_end(disk: &mut Block) -> Check {
    let size = disk.block_size();
    let end = disk.capacity() / size as u64 * size as u64;
    let mut last = patterns::zeros(size);
    disk.read(end - size as u64, &mut last).map_err(|_| "the last block failed")?;
    let mut two = patterns::numbered(7, 2 * size);
    let refused = Err(Error::InvalidArgument);
    let far = u64::MAX / size as u64 * size as u64;
    for offset in [end - size as u64, end, end + size as u64, 1 << 62, 1 << 63, far] {
        if disk.write(offset, &two) != refused || disk.read(offset, &mut two) != refused {
            return Err("access beyond the end was not refused");
        }
    }
    let mut again = patterns::zeros(size);
    disk.read(end - size as u64, &mut again).map_err(|_| "the last block failed")?;
    if again != last {
        return Err("a refused write changed the last block");
    }
    println!("beyond the end: refused");
    Ok(())
}

fn not_whole_blocks(disk: &mut Block) -> Check {
    let size = disk.block_size();
    let data = patterns::zeros(2 * size);
    let refused = Err(Error::InvalidArgument);
    for (offset, len) in [(1, size), (0, size - 1), (0, size + 1), (0, 0)] {
        if disk.write(offset, &data[..len]) != refused {
            return Err("a piece of a block was not refused");
        }
    }
    println!("pieces of blocks: refused");
    Ok(())
}
