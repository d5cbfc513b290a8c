//! `cargo xtask iso`: a disc that boots the image, by a BIOS and by UEFI, with GRUB and
//! multiboot2; as a CD, a disk or a USB stick.
//!
//! GRUB is one file for each platform with its few modules and its configuration inside; nothing
//! else of it is on the disc. [`Disc`] makes discs of other things, too: the tests' guests boot one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::bundle;
use crate::setup::boot_disc as tools;
use crate::{linux, paths, process};

/// Options of `cargo xtask iso`.
#[derive(clap::Args)]
pub struct Options {
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// In place of the image a disc for a guest: Debian's Linux, started by GRUB, with a shell
    #[arg(long, conflicts_with_all = ["module", "bundle", "words"])]
    linux: bool,
    /// The boot module
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Files and folders to make the boot module of, in place of --module
    #[arg(long, value_name = "PATH", conflicts_with = "module")]
    bundle: Vec<PathBuf>,
    /// The image's command line, such as `log=debug`: see docs/baremetal.md
    #[arg(last = true, value_name = "WORD")]
    words: Vec<String>,
}

/// Builds what goes on the disc, and the disc.
pub fn run(options: &Options) -> Result<()> {
    if options.linux {
        linux::build()?;
        linux::disc::make(&options.output)?;
    } else {
        run_image(options)?;
    }
    let size = fs::metadata(&options.output)?.len();
    process::say(&format!("{}: {} KiB", options.output.display(), size.div_ceil(1024)));
    Ok(())
}

fn run_image(options: &Options) -> Result<()> {
    let image = super::build()?;
    let module = match (&options.module, options.bundle.is_empty()) {
        (Some(path), _) => {
            Some(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)
        }
        (None, true) => None,
        (None, false) => Some(bundle::make(&options.bundle)?),
    };
    make(&image, module.as_deref(), &options.words.join(" "), &options.output)
}

/// Modules of GRUB that every disc needs, on both platforms.
const MODULES: [&str; 6] = ["iso9660", "normal", "search", "search_fs_file", "serial", "terminal"];

/// What is on a disc, and what GRUB does with it.
pub struct Disc<'a> {
    /// The volume's name: capitals, digits, underlines.
    pub name: &'a str,
    /// Where its folder of files is, which GRUB's own files are added to.
    pub files: &'a Path,
    /// A file by which GRUB knows the disc.
    pub mark: &'a str,
    /// GRUB's commands once it has found the disc; it boots after them.
    pub commands: &'a str,
    /// Modules of GRUB that they need.
    pub modules: &'a [&'a str],
}

/// Makes a disc of an image, a boot module and a command line.
pub fn make(image: &Path, module: Option<&[u8]>, words: &str, output: &Path) -> Result<()> {
    let files = folder("image")?;
    fs::copy(image, files.join("boot/image.elf")).context("cannot copy the image")?;
    let mut commands = format!("multiboot2 /boot/image.elf {words}\n");
    if let Some(module) = module {
        fs::write(files.join("boot/module"), module)?;
        commands.push_str("module2 /boot/module\n");
    }
    let name = "REDOX_HYPERVISOR";
    let (mark, modules) = ("/boot/image.elf", &["multiboot2"][..]);
    Disc { name, files: &files, mark, commands: &commands, modules }.make(output)
}

/// An empty folder for a disc's files, with `boot` in it.
pub fn folder(name: &str) -> Result<PathBuf> {
    let files = paths::work("iso")?.join(name);
    let _ = fs::remove_dir_all(&files);
    fs::create_dir_all(files.join("boot"))?;
    Ok(files)
}

impl Disc<'_> {
    /// Writes the disc: El Torito for CDs, and a table of partitions for disks and USB sticks. Both
    /// lead to the same two files of GRUB.
    pub fn make(&self, output: &Path) -> Result<()> {
        let work = paths::work("iso")?;
        let config = work.join("grub.cfg");
        let (mark, commands) = (self.mark, self.commands);
        fs::write(&config, format!("search --file --set=root {mark}\n{commands}boot\n"))?;

        let bios = self.grub("i386-pc", &["biosdisk"], &config)?;
        let modules = tools::grub_modules("i386-pc")?;
        let start = fs::read(modules.join("cdboot.img"))?;
        fs::write(self.files.join("boot/bios.img"), [start, fs::read(bios)?].concat())?;
        let uefi = work.join("uefi.img");
        uefi_partition(&self.grub("x86_64-efi", &[], &config)?, &uefi)?;

        let mut xorriso = tools::xorriso()?;
        xorriso.args(["-report_about", "SORRY", "-as", "mkisofs", "-graft-points", "-R"]);
        xorriso.args(["-V", self.name, "-b", "boot/bios.img", "-no-emul-boot"]);
        xorriso.args(["-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info"]);
        xorriso.arg("--grub2-mbr").arg(modules.join("boot_hybrid.img"));
        // UEFI's system partition (UEFI 2.10 §5.2), which is also what El Torito leads to.
        xorriso.args(["-append_partition", "2", "0xef"]).arg(&uefi);
        xorriso.args(["-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::"]);
        xorriso.arg("-no-emul-boot");
        xorriso.arg("-o").arg(output).arg(self.files);
        process::capture(&mut xorriso).map(drop)
    }

    /// One file of GRUB for a platform.
    fn grub(&self, platform: &str, more: &[&str], config: &Path) -> Result<PathBuf> {
        let output = paths::work("iso")?.join(format!("grub-{platform}"));
        let mut command = tools::grub_mkimage()?;
        command.arg("-O").arg(platform).arg("-d").arg(tools::grub_modules(platform)?);
        command.arg("-c").arg(config).arg("-p").arg("/boot").arg("-o").arg(&output);
        process::run(command.args(MODULES).args(self.modules).args(more))?;
        Ok(output)
    }
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
