//! Reads the kernel's text files.

use std::fmt;

use procfs::{Current, Meminfo};
use serde::{Deserialize, Serialize};

/// The content of a file; empty if it cannot be read.
pub(super) fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value after `name` and a colon.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim_end() == name).then(|| value.trim())
    })
}

/// A list of CPUs such as `0-2,5`.
pub(super) fn cpu_list(text: &str) -> Vec<usize> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        })
        .flatten()
        .collect()
}

/// The frequency governor of a CPU, if it has one.
pub(super) fn governor(cpu: usize) -> Option<String> {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    let governor = std::fs::read_to_string(file).ok()?;
    Some(governor.trim().to_owned())
}

/// Hugepages of the default size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hugepages {
    /// Reserved pages.
    pub total: u64,
    /// Reserved pages that are not in use.
    pub free: u64,
    /// The size of a page in KiB.
    pub kib: u64,
}

impl Hugepages {
    /// The machine's, now; none if the kernel has no hugepages.
    pub(super) fn current() -> Self {
        let meminfo = Meminfo::current().ok();
        let value = |of: fn(&Meminfo) -> Option<u64>| meminfo.as_ref().and_then(of).unwrap_or(0);
        Self {
            total: value(|meminfo| meminfo.hugepages_total),
            free: value(|meminfo| meminfo.hugepages_free),
            kib: value(|meminfo| meminfo.hugepagesize) >> 10,
        }
    }
}

impl fmt::Display for Hugepages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} of {} KiB, {} free",
            self.total, self.kib, self.free
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_list_parses_ranges_and_single_cpus() {
        assert_eq!(cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(cpu_list("7"), [7]);
        assert_eq!(cpu_list(""), Vec::<usize>::new());
    }
}
