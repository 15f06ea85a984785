//! Reads the kernel's text files.

use std::fmt;

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
    /// The machine's, now.
    pub(super) fn current() -> Self {
        Self::parse(&read("/proc/meminfo"))
    }

    fn parse(meminfo: &str) -> Self {
        let number = |name| {
            let value = field(meminfo, name)?;
            value.split(' ').next()?.parse().ok()
        };
        Self {
            total: number("HugePages_Total").unwrap_or(0),
            free: number("HugePages_Free").unwrap_or(0),
            kib: number("Hugepagesize").unwrap_or(0),
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
    fn meminfo_parses_to_hugepages() {
        let text = "MemTotal:       24654792 kB\nHugePages_Total:     512\n\
            HugePages_Free:      500\nHugepagesize:       2048 kB\n";
        let expected = Hugepages {
            total: 512,
            free: 500,
            kib: 2048,
        };
        assert_eq!(Hugepages::parse(text), expected);
        assert_eq!(Hugepages::parse(""), Hugepages::default());
    }

    #[test]
    fn cpu_list_parses_ranges_and_single_cpus() {
        assert_eq!(cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(cpu_list("7"), [7]);
        assert_eq!(cpu_list(""), Vec::<usize>::new());
    }
}
