//! Says hello, prints its arguments, succeeds. The first thing to try.

#![no_std]
#![no_main]

use unikernel::{args, println};

unikernel::manifest! {}
unikernel::main!(main);

fn main() {
    println!("Hello, World");
    for (i, argument) in args().enumerate() {
        println!("argument {}: {argument}", i + 1);
    }
    println!("SUCCESS");
}
