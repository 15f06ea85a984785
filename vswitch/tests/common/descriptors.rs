//! What a process has open, by kind, as the kernel lists it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The kinds of the open descriptors from `first` on, with their numbers.
pub(crate) fn descriptors(pid: u32, first: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let directory = format!("/proc/{pid}/fd");
    for entry in fs::read_dir(directory).expect("it lives").flatten() {
        let number = entry.file_name().to_string_lossy().parse::<u32>();
        // One may be closed meanwhile.
        let target = fs::read_link(entry.path());
        if let (Ok(number), Ok(target)) = (number, target)
            && number >= first
        {
            *kinds.entry(kind(pid, number, &target)).or_default() += 1;
        }
    }
    kinds
}

/// Whether it is an AF_XDP socket, of which no table of the kernel's need tell.
fn is_xdp(pid: u32, number: u32) -> bool {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pid = Pid::from_raw(pid as i32).expect("a process");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
    // It may be closed meanwhile.
    let copy = pidfd_getfd(process, number as i32, PidfdGetfdFlags::empty());
    let domain = copy.and_then(rustix::net::sockopt::socket_domain);
    domain.is_ok_and(|domain| domain == rustix::net::AddressFamily::XDP)
}

fn kind(pid: u32, number: u32, target: &Path) -> String {
    let text = target.to_string_lossy();
    if let Some(inode) = text.strip_prefix("socket:[") {
        if is_xdp(pid, number) {
            return "XDP socket".to_owned();
        }
        return socket(pid, inode.trim_end_matches(']'));
    }
    if text.starts_with("pipe:[") {
        return "pipe".to_owned();
    }
    match text.strip_prefix("/dev/vfio/") {
        Some("vfio") => return "VFIO container".to_owned(),
        Some(_) => return "VFIO group".to_owned(),
        None => {}
    }
    let known = [
        ("/null", "null"),
        ("/log.pipe", "log"),
        ("/schedstat", "schedstat"),
        ("[eventfd]", "event"),
        ("[eventpoll]", "epoll"),
        ("[timerfd]", "timer"),
        ("anon_inode:bpf-prog", "BPF program"),
        ("anon_inode:bpf-map", "BPF map"),
        ("anon_inode:btf", "BPF types"),
        ("[vfio-device]", "VFIO device"),
        ("/memfd:nohuge (deleted)", "packet memory"),
        ("/memfd:memif_region_0 (deleted)", "memory of a memif"),
    ];
    let known = known.iter().find(|(end, _)| text.ends_with(end));
    known.map_or_else(|| text.clone().into_owned(), |(_, kind)| (*kind).to_owned())
}

/// The kind of a socket, by its line in the tables of the process's network namespace.
fn socket(pid: u32, inode: &str) -> String {
    let line = |table: &str, column: usize| {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok()?;
        let mut lines = table.lines().map(|line| {
            let fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            fields
        });
        lines.find(|fields| fields.get(column).is_some_and(|it| it == inode))
    };
    if line("packet", 8).is_some() {
        return "packet socket".to_owned();
    }
    let Some(unix) = line("unix", 6) else {
        return format!("another socket, {inode}");
    };
    const LISTENS: &str = "00010000";
    const UNCONNECTED: &str = "01";
    let path = unix
        .get(7)
        .map(|path| path.rsplit('/').next().unwrap_or_default());
    match (unix[3] == LISTENS, unix[4].as_str(), path) {
        (true, _, Some(name)) => format!("listener on {name}"),
        (_, "0001", _) if unix[5] == UNCONNECTED => "unix socket without a peer".to_owned(),
        (_, "0001", _) => "stream connection".to_owned(),
        (_, "0005", _) => "seqpacket connection".to_owned(),
        (_, kind, _) => format!("unix socket of type {kind}"),
    }
}

/// What every switch has open from descriptor 3 on, and `more`: its devices.
pub(crate) fn of_a_switch(more: &[(&str, usize)]) -> BTreeMap<String, usize> {
    let every = [
        ("epoll", 4),
        ("event", 4),
        ("listener on control.sock", 2),
        ("packet memory", 1),
        ("pipe", 2),
        ("schedstat", 1),
        // By which signals reach the control thread.
        ("stream connection", 3),
        ("timer", 1),
    ];
    let mut all = BTreeMap::new();
    for (kind, number) in every.iter().chain(more) {
        *all.entry((*kind).to_owned()).or_default() += number;
    }
    all
}

/// What a switch on so many PCI functions has open in addition: their group, the function, and an
/// event for each of its interrupts, for errors and for requests to give it back.
#[allow(dead_code, reason = "not every test has functions")]
pub(crate) fn on_functions(functions: usize) -> [(&'static str, usize); 4] {
    [
        ("VFIO container", 1),
        ("VFIO group", functions),
        ("VFIO device", functions),
        ("event", 3 * functions),
    ]
}

/// What the provisioner gives every switch beside its devices.
#[allow(dead_code, reason = "not every test has a provisioner")]
pub(crate) const BY_THE_PROVISIONER: [(&str, usize); 3] =
    [("null", 1), ("log", 2), ("listener on channel.sock", 2)];
