//! A block device, three ways. Device: `--block:storage=FILE`.
//!
//! | argument | what it does |
//! |---|---|
//! | (none) | writes patterns everywhere, reads them back, tries every edge; `SUCCESS` |
//! | `write N` | writes blocks 0 to N-1, each filled with its number, and prints `wrote K` once block K is safe: kill the tender at any time |
//! | `verify` | prints `verified K` for the K leading blocks that `write` filled |
//! | `bench read N`, `bench write N` | prints nanoseconds per block |

#![no_std]
#![no_main]

extern crate alloc;

mod patterns;
mod selftest;

use unikernel::{Block, Error, args, clock, println};

unikernel::manifest! { block "storage" }
unikernel::main!(main);

fn main() -> Result<(), &'static str> {
    let mut disk = Block::acquire("storage").map_err(|_| "no device \"storage\"")?;
    println!("storage: {} bytes in blocks of {}", disk.capacity(), disk.block_size());
    let mut words = args();
    match (words.next(), words.next(), words.next()) {
        (None, ..) => selftest::run(&mut disk)?,
        (Some("write"), Some(count), None) => write(&mut disk, number(count)?)?,
        (Some("verify"), None, None) => verify(&mut disk)?,
        (Some("bench"), Some(way), Some(count)) => bench(&mut disk, way, number(count)?)?,
        _ => return Err("usage: [write N | verify | bench read|write N]"),
    }
    println!("SUCCESS");
    Ok(())
}

fn number(word: &str) -> Result<u64, &'static str> {
    word.parse().map_err(|_| "not a number")
}

fn blocks(disk: &Block) -> u64 {
    disk.capacity() / disk.block_size() as u64
}

fn write(disk: &mut Block, count: u64) -> Result<(), &'static str> {
    let size = disk.block_size();
    for k in 0..count.min(blocks(disk)) {
        disk.write(k * size as u64, &patterns::numbered(k, size)).map_err(text)?;
        println!("wrote {k}");
    }
    Ok(())
}

fn verify(disk: &mut Block) -> Result<(), &'static str> {
    let size = disk.block_size();
    let mut buffer = patterns::zeros(size);
    let mut good = 0;
    while good < blocks(disk) {
        disk.read(good * size as u64, &mut buffer).map_err(text)?;
        if buffer != patterns::numbered(good, size) {
            break;
        }
        good += 1;
    }
    println!("verified {good}");
    Ok(())
}

fn bench(disk: &mut Block, way: &str, count: u64) -> Result<(), &'static str> {
    let (size, total) = (disk.block_size(), blocks(disk));
    if count == 0 || total == 0 {
        return Err("nothing to measure: no blocks");
    }
    let mut buffer = patterns::numbered(1, size);
    let started = clock::monotonic();
    for k in 0..count {
        let offset = k % total * size as u64;
        match way {
            "read" => disk.read(offset, &mut buffer),
            "write" => disk.write(offset, &buffer),
            _ => return Err("usage: bench read|write N"),
        }
        .map_err(text)?;
    }
    let each = (clock::monotonic() - started).as_nanos() / u128::from(count);
    println!("block_{way}: {each} ns per operation, {count} operations of {size} bytes");
    Ok(())
}

fn text(error: Error) -> &'static str {
    match error {
        Error::InvalidArgument => "refused: invalid argument",
        _ => "refused: the host failed",
    }
}
