//! The state and usage of a running switch.

use serde::Serialize;

/// A running switch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Running {
    /// Its process, on the host.
    pub pid: i32,
    /// When it started, in clock ticks since boot: distinguishes it from a later process with its
    /// number.
    pub start_ticks: u64,
    /// Seconds since it was started.
    pub uptime_s: f64,
    /// Restarts by the supervisor.
    pub restarts: u64,
    /// Processor time it has used, in seconds.
    pub cpu_s: f64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
}

/// The usage of a tenant's switch, for billing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accounts {
    /// Processor time in seconds of all its processes since the tenant was onboarded.
    pub cpu_s: f64,
    /// Current memory in bytes, without hugepages.
    pub memory_bytes: u64,
    /// Peak memory in bytes.
    pub memory_peak_bytes: u64,
}
