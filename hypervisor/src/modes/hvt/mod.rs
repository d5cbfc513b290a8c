//! HVT mode: Solo5 unikernels, as Solo5's hvt ABI defines them (versions 1 and 2).

pub mod solo5_abi;
