//! VirtIO manifests: descriptions in TOML.

use super::{DetectError, Image, ImageKind, MAX_TEXT};
use crate::config::file::ConfigFile;
use crate::mode::ModeKind;
use alloc::vec;

pub(super) fn look(image: &Image<'_>) -> Result<Option<ImageKind>, DetectError> {
    let length = image.0.len();
    let Some(length) = usize::try_from(length).ok().filter(|len| *len <= MAX_TEXT) else {
        return Ok(None);
    };
    let mut bytes = vec![0; length];
    let length = image.fill(0, &mut bytes)?;
    let Ok(text) = core::str::from_utf8(&bytes[..length]) else { return Ok(None) };
    if !text.lines().any(is_header) {
        return Ok(None);
    }
    let file = ConfigFile::parse(text).map_err(DetectError::Manifest)?;
    match file.vm.and_then(|vm| vm.explicit_mode()) {
        Some(ModeKind::VirtIO) => Ok(Some(ImageKind::VirtioManifest)),
        Some(mode) => Err(DetectError::Description(mode)),
        None => Ok(None),
    }
}

/// `[vm]` or `[vm.…]`: no text without one is taken for a description, so no stranger's text
/// ends in a message about TOML.
fn is_header(line: &str) -> bool {
    line.trim_start().strip_prefix("[vm").is_some_and(|rest| rest.starts_with([']', '.']))
}
