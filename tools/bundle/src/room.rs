//! How much fits into a boot module: its form (cpio's "newc") has sizes of 32 bits, and boot
//! loaders tell where it is by addresses of 32 bits.

use hypervisor::config::Bytes;

/// The first size that is too large.
const LIMIT: u64 = 1 << 32;
/// What a file takes besides its contents: a header, a name, padding.
const BESIDES: u64 = 512;

/// What is left of a boot module.
#[derive(Debug, Default)]
pub struct Room {
    taken: u64,
}

impl Room {
    /// Takes room for a file. To be asked before it is read.
    ///
    /// # Errors
    /// If there is none left: in words for a person.
    pub fn take(&mut self, name: &str, size: u64) -> Result<(), String> {
        let taken = self.taken.saturating_add(size).saturating_add(BESIDES);
        if taken >= LIMIT {
            let others = match self.taken {
                few if few < 1 << 20 => String::new(),
                others => format!(" and {} are there already", Bytes(others)),
            };
            return Err(format!(
                "{name}: it has {}{others}, and a boot module is smaller than {}: give the machine \
                 a disk with it, and name that as path = \"disk0\" of a disk",
                Bytes(size),
                Bytes(LIMIT)
            ));
        }
        self.taken = taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_named_with_the_limit_and_what_to_do() {
        let mut room = Room::default();
        let error = room.take("x.iso", 5 << 30).unwrap_err();
        assert!(error.starts_with("x.iso: it has 5G, and a boot module is smaller than 4G: give"));
        assert_eq!(room.take("a", 3 << 30), Ok(()));
        let error = room.take("b", 1 << 30).unwrap_err();
        assert!(error.starts_with("b: it has 1G and ") && error.contains("already"), "{error}");
        assert_eq!(room.take("c", 1 << 29), Ok(()));
        assert!(room.take("d", u64::MAX).is_err());
    }
}
