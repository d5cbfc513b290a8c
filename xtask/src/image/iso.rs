//! `cargo xtask iso`: a disc that boots the image, by a BIOS and by UEFI, with GRUB and
//! multiboot2.
//!
//! GRUB is one file for each platform with its few modules and its configuration inside; nothing
//! else of it is on the disc.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::bundle;
use crate::setup::boot_disc as tools;
use crate::{paths, process};

/// Options of `cargo xtask iso`.
#[derive(clap::Args)]
pub struct Options {
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The boot module
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Files and folders to make the boot module of, in place of --module
    #[arg(long, value_name = "PATH", conflicts_with = "module")]
    bundle: Vec<PathBuf>,
    /// The image's command line
    #[arg(last = true, value_name = "WORD")]
    words: Vec<String>,
}

/// Builds image and disc.
pub fn run(options: &Options) -> Result<()> {
    let image = super::build()?;
    let module = match (&options.module, options.bundle.is_empty()) {
        (Some(path), _) => {
            Some(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)
        }
        (None, true) => None,
        (None, false) => Some(bundle::make(&options.bundle)?),
    };
    make(&image, module.as_deref(), &options.words.join(" "), &options.output)?;
    let size = fs::metadata(&options.output)?.len();
    process::say(&format!("{}: {} KiB", options.output.display(), size.div_ceil(1024)));
    Ok(())
}

/// Modules of GRUB that both platforms need.
const MODULES: [&str; 7] =
    ["iso9660", "multiboot2", "normal", "search", "search_fs_file", "serial", "terminal"];

/// Makes a disc of an image, a boot module and a command line.
pub fn make(image: &Path, module: Option<&[u8]>, words: &str, output: &Path) -> Result<()> {
    let work = paths::work("iso")?;
    let disc = work.join("disc");
    let _ = fs::remove_dir_all(&disc);
    fs::create_dir_all(disc.join("boot"))?;
    fs::copy(image, disc.join("boot/image.elf")).context("cannot copy the image")?;
    let mut boot = format!("multiboot2 /boot/image.elf {words}\n");
    if let Some(module) = module {
        fs::write(disc.join("boot/module"), module)?;
        boot.push_str("module2 /boot/module\n");
    }
    let config = work.join("grub.cfg");
    fs::write(&config, format!("search --file --set=root /boot/image.elf\n{boot}boot\n"))?;

    let bios = grub("i386-pc", &["biosdisk"], &config)?;
    let start = fs::read(tools::grub_modules("i386-pc")?.join("cdboot.img"))?;
    fs::write(disc.join("boot/bios.img"), [start, fs::read(bios)?].concat())?;
    uefi_partition(&grub("x86_64-efi", &[], &config)?, &disc.join("boot/uefi.img"))?;

    let mut xorriso = tools::xorriso()?;
    xorriso.args(["-report_about", "SORRY", "-as", "mkisofs", "-graft-points", "-R"]);
    xorriso.args(["-V", "REDOX_HYPERVISOR", "-b", "boot/bios.img", "-no-emul-boot"]);
    xorriso.args(["-boot-load-size", "4", "-boot-info-table"]);
    xorriso.args(["-eltorito-alt-boot", "-e", "boot/uefi.img", "-no-emul-boot"]);
    xorriso.arg("-o").arg(output).arg(&disc);
    process::capture(&mut xorriso).map(drop)
}

/// One file of GRUB for a platform.
fn grub(platform: &str, more: &[&str], config: &Path) -> Result<PathBuf> {
    let output = paths::work("iso")?.join(format!("grub-{platform}"));
    let mut command = tools::grub_mkimage()?;
    command.arg("-O").arg(platform).arg("-d").arg(tools::grub_modules(platform)?);
    command.arg("-c").arg(config).arg("-p").arg("/boot").arg("-o").arg(&output);
    process::run(command.args(MODULES).args(more))?;
    Ok(output)
}

/// A FAT file system with GRUB where UEFI looks for it (UEFI 2.10 §3.5.1.1).
fn uefi_partition(grub: &Path, output: &Path) -> Result<()> {
    let size = (fs::metadata(grub)?.len() + (256 << 10)).next_multiple_of(64 << 10);
    fs::write(output, vec![0; usize::try_from(size)?])?;
    let run = |program: &str, arguments: &[&str]| {
        let mut command = tools::mtools(program)?;
        command.arg("-i").arg(output).args(arguments);
        if program == "mcopy" {
            command.arg(grub).arg("::/EFI/BOOT/BOOTX64.EFI");
        }
        process::run(&mut command)
    };
    run("mformat", &["::"])?;
    run("mmd", &["::/EFI", "::/EFI/BOOT"])?;
    run("mcopy", &[])
}
