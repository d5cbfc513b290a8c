//! The unikernels that the contenders run.
//!
//! Without a Solo5 tree these are the examples in `unikernel/`, which solo5-hvt runs too. With one
//! they are Solo5's own `test_hello` and `test_net`, and `guest/calls.c`, built by the tree's
//! compiler for each ABI: the same program for everybody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{paths, process};

/// Name, macro and device of each build of `guest/calls.c`.
const CALLS: [(&str, &str, &str); 3] = [
    ("calls", "WITHOUT", ""),
    ("calls-block", "WITH_BLOCK", r#"{"name":"storage","type":"BLOCK_BASIC"}"#),
    ("calls-net", "WITH_NET", r#"{"name":"service0","type":"NET_BASIC"}"#),
];

/// Where the guests are.
pub struct Guests {
    /// Solo5's tree, if there is one.
    tree: Option<PathBuf>,
    built: PathBuf,
}

impl Guests {
    /// Builds what a tree is needed for.
    ///
    /// # Errors
    /// If there is no built tree at `tree`.
    pub fn new(tree: Option<&Path>) -> Result<Self> {
        let built = paths::work("bench")?.join("guests");
        let tree = tree.map(fs::canonicalize).transpose().context("no Solo5 tree")?;
        if let Some(tree) = &tree {
            fs::create_dir_all(&built)?;
            CALLS.iter().try_for_each(|build| calls(tree, &built, build))?;
        }
        Ok(Self { tree, built })
    }

    /// Whether all contenders run the same programs.
    pub fn same_for_all(&self) -> bool {
        self.tree.is_some()
    }

    /// The file of a guest for an ABI; `None` where there is none.
    pub fn get(&self, name: &str, abi: &str) -> Option<PathBuf> {
        let Some(tree) = &self.tree else {
            return (abi == "hvt").then(|| paths::unikernels().join(format!("{name}.hvt")));
        };
        Some(match name {
            "hello" | "net" | "time" => tree.join(format!("tests/test_{name}/test_{name}.{abi}")),
            _ => self.built.join(format!("{name}.{abi}")),
        })
    }
}

/// Compiles `guest/calls.c` for both ABIs.
fn calls(tree: &Path, to: &Path, (name, option, device): &(&str, &str, &str)) -> Result<()> {
    let compiler = tree.join("toolchain/bin/x86_64-solo5-none-static-cc");
    if !compiler.exists() {
        bail!("{}: not there; run ./configure.sh && make in the Solo5 tree", compiler.display());
    }
    let json = to.join(format!("{name}.json"));
    let manifest = to.join(format!("{name}-manifest.c"));
    fs::write(&json, format!(r#"{{"type":"solo5.manifest","version":1,"devices":[{device}]}}"#))?;
    let mut tool = Command::new(tree.join("elftool/solo5-elftool"));
    process::run(tool.arg("gen-manifest").arg(&json).arg(&manifest))?;
    let source = paths::root().join("xtask/src/bench/guest/calls.c");
    let mut objects = Vec::new();
    for (source, suffix) in [(&source, "calls"), (&manifest, "manifest")] {
        let object = to.join(format!("{name}-{suffix}.o"));
        let mut command = Command::new(&compiler);
        command.args(["-O2", &format!("-D{option}"), "-c"]).arg(source).arg("-o").arg(&object);
        process::run(&mut command)?;
        objects.push(object);
    }
    for abi in ["hvt", "spt"] {
        let mut command = Command::new(&compiler);
        command.args(["-z", &format!("solo5-abi={abi}")]).args(&objects);
        process::run(command.arg("-o").arg(to.join(format!("{name}.{abi}"))))?;
    }
    Ok(())
}
