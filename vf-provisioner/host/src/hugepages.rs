//! The host's hugepages of the default size.

use procfs::{Current, Meminfo};

const NUMBER: &str = "/proc/sys/vm/nr_hugepages";

/// Their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hugepages {
    /// All of them.
    pub total: u64,
    /// The unused ones.
    pub free: u64,
    /// The size of each, in bytes.
    pub page_bytes: u64,
}

impl Hugepages {
    /// Reads them. A kernel without hugepages reads as none, of 2 MiB each.
    pub fn read() -> Self {
        let meminfo = Meminfo::current().ok();
        let of = |value: fn(&Meminfo) -> Option<u64>| meminfo.as_ref().and_then(value);
        Self {
            total: of(|it| it.hugepages_total).unwrap_or(0),
            free: of(|it| it.hugepages_free).unwrap_or(0),
            page_bytes: of(|it| it.hugepagesize).unwrap_or(2 << 20),
        }
    }

    /// Raises their number so that so many MiB are free; returns how many pages were missing. The
    /// kernel may find fewer.
    ///
    /// # Errors
    /// If their number cannot be set.
    pub fn reserve(mib: u64) -> std::io::Result<u64> {
        let is = Self::read();
        let missing = is.missing(mib);
        if missing > 0 {
            std::fs::write(NUMBER, (is.total + missing).to_string())?;
        }
        Ok(missing)
    }

    /// The MiB of the pages that hold so many MiB.
    pub fn whole_mib(&self, mib: u32) -> u32 {
        let bytes = self.pages(mib.into()) * self.page_bytes;
        u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
    }

    /// How many pages hold this many MiB.
    pub fn pages(&self, mib: u64) -> u64 {
        (mib << 20).div_ceil(self.page_bytes)
    }

    /// How many pages are missing for this many MiB.
    pub fn missing(&self, mib: u64) -> u64 {
        self.pages(mib).saturating_sub(self.free)
    }
}
