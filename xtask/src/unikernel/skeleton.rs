//! The files of a new unikernel.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Makes the folder `path`, which must not exist, with a unikernel that says hello. `bindings` is
/// the folder of the packages it depends on.
pub fn write(path: &Path, bindings: &Path) -> Result<()> {
    let name = name(path)?;
    ensure!(!path.exists(), "{} is there already: choose another name", path.display());
    let files = [
        ("Cargo.toml", cargo_toml(name, bindings)),
        ("build.rs", BUILD_RS.to_string()),
        ("src/main.rs", main_rs(name)),
        (".gitignore", "/target\n*.hvt\n".to_string()),
    ];
    fs::create_dir_all(path.join("src"))
        .with_context(|| format!("{} cannot be made", path.display()))?;
    for (file, text) in files {
        let file = path.join(file);
        fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// Cargo's rules for a package's name.
fn name(path: &Path) -> Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let good = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
    ensure!(good, "`{name}` is no name for a unikernel: use a-z, 0-9, - and _, a letter first");
    Ok(name)
}

fn cargo_toml(name: &str, bindings: &Path) -> String {
    let path = |package: &str| format!("{:?}", bindings.join(package).display().to_string());
    format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"

# A workspace of its own: it is never built together with programs for Linux.
[workspace]

[[bin]]
name = "{name}"
path = "src/main.rs"
test = false
bench = false

[dependencies]
unikernel = {{ path = {} }}

[build-dependencies]
unikernel-build = {{ path = {} }}

[profile.release]
panic = "abort"
lto = "fat"
codegen-units = 1

[profile.dev]
panic = "abort"
"#,
        path("bindings"),
        path("build")
    )
}

const BUILD_RS: &str = "//! Links as a unikernel.

fn main() {
    unikernel_build::link();
}
";

fn main_rs(name: &str) -> String {
    format!(
        r#"//! The unikernel `{name}`.

#![no_std]
#![no_main]

use unikernel::println;

// Devices, such as `block "storage"; net "service0"`.
unikernel::manifest! {{}}
unikernel::main!(main);

fn main() {{
    println!("Hello from {name}");
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cargos() {
        assert_eq!(name(Path::new("/a/my-kernel2")).unwrap(), "my-kernel2");
        for bad in ["", "/", "2x", "a b", "A", "é", ".."] {
            assert!(name(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_existing_folder_is_left_alone() {
        let error = write(Path::new(env!("CARGO_MANIFEST_DIR")), Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("is there already"));
    }
}
