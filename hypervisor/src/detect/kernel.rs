//! Linux kernels (Linux `Documentation/arch/{x86/boot,arm64/booting,riscv/boot-image-header}.rst`).

use super::{Image, ImageKind};
use crate::host::HostError;

pub(super) fn look(image: &Image<'_>) -> Result<Option<ImageKind>, HostError> {
    if image.has(0x1fe, &[0x55, 0xaa])? && image.has(0x202, b"HdrS")? {
        return Ok(Some(ImageKind::BzImage));
    }
    if image.has(56, b"ARM\x64")? || image.has(56, b"RSC\x05")? {
        return Ok(Some(ImageKind::LinuxImage));
    }
    Ok(None)
}
