//! The requirements of a scenario, and what is missing here.

use std::path::PathBuf;

use super::proc::{Hugepages, cpu_list, field, read};
use crate::site::Cpus;

/// The requirements of a scenario.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    /// The CPUs it runs on; `None` if any one CPU will do.
    pub cpus: Option<Cpus>,
    /// Namespaces, network devices and hugepages, which are only for root.
    pub root: bool,
    /// Packet memory.
    pub hugepages: bool,
}

/// MiB of hugepages for the load, a switch and the peer's ports.
const MEMORY_MIB: u64 = 512;

/// What is missing, as sentences that say what to do.
pub fn missing(needs: Needs, programs: &[&str]) -> Vec<String> {
    let mut missing = Vec::new();
    if needs.root && !nix::unistd::geteuid().is_root() {
        missing.push(
            "switches need root, for hugepages and network devices: sudo scripts/bench …"
                .to_owned(),
        );
    }
    if needs.hugepages {
        let pages = Hugepages::current();
        if pages.free * pages.kib < MEMORY_MIB * 1024 {
            missing.push(format!(
                "{MEMORY_MIB} MiB of free hugepages are needed, but there are {pages}: run \
                 scripts/bench, which reserves them, or echo 512 >/proc/sys/vm/nr_hugepages"
            ));
        }
    }
    if let Some(cpus) = needs.cpus {
        let allowed =
            cpu_list(field(&read("/proc/self/status"), "Cpus_allowed_list").unwrap_or(""));
        missing.extend(missing_cpus(cpus, &allowed));
    }
    missing.extend(missing_programs(&search_path(), programs));
    missing
}

fn missing_programs(path: &[PathBuf], programs: &[&str]) -> Vec<String> {
    programs
        .iter()
        .filter(|program| find_in(path, program).is_none())
        .map(|program| format!("{program} is missing: run scripts/setup --for bench"))
        .collect()
}

fn missing_cpus(cpus: Cpus, allowed: &[usize]) -> Option<String> {
    let list = match allowed {
        [] => "none".to_owned(),
        some => some
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(","),
    };
    if allowed.len() < 2 {
        Some(format!(
            "two CPUs are needed, one for the switch under test and one for the load, but this \
             process may use only CPU {list}: use a larger machine, or undo taskset"
        ))
    } else if cpus.switch == cpus.load {
        Some(format!(
            "the switch under test and the load need a CPU each: --cpus {},{}",
            allowed[1], allowed[0]
        ))
    } else {
        let absent = [cpus.switch, cpus.load]
            .into_iter()
            .find(|cpu| !allowed.contains(cpu))?;
        Some(format!(
            "this process may not use CPU {absent}, only {list}: choose two of them with \
             --cpus SWITCH,LOAD"
        ))
    }
}

/// The directories of `PATH`, and those of daemons.
fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .collect()
}

fn find_in(path: &[PathBuf], name: &str) -> Option<PathBuf> {
    path.iter()
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_named() {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::write(place.path().join("iperf3"), "").expect("a file");
        assert_eq!(
            missing_programs(
                &[place.path().to_owned()],
                &["iperf3", "memcached", "memcaslap"]
            ),
            [
                "memcached is missing: run scripts/setup --for bench",
                "memcaslap is missing: run scripts/setup --for bench"
            ]
        );
    }

    #[test]
    fn unusable_cpus_are_refused() {
        let cpus = Cpus { switch: 1, load: 0 };
        assert_eq!(missing_cpus(cpus, &[0, 1]), None);
        let one = missing_cpus(cpus, &[0]).expect("one is not enough");
        assert!(one.starts_with("two CPUs are needed"), "{one}");
        let other = missing_cpus(Cpus { switch: 4, load: 0 }, &[0, 1]).expect("it is absent");
        assert_eq!(
            other,
            "this process may not use CPU 4, only 0,1: choose two of them with --cpus SWITCH,LOAD"
        );
        let same = missing_cpus(Cpus { switch: 1, load: 1 }, &[2, 3]).expect("they are the same");
        assert_eq!(
            same,
            "the switch under test and the load need a CPU each: --cpus 3,2"
        );
    }
}
