//! What is known of a running switch.

use serde::Serialize;

/// What is known of a running switch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Running {
    /// Its process, on the host.
    pub pid: i32,
    /// When it started, in clock ticks since boot: tells it from a later process of the same number.
    pub start_ticks: u64,
    /// Seconds since it was started.
    pub uptime_s: f64,
    /// How often the supervisor started it again.
    pub restarts: u64,
    /// Processor time it has used, in seconds.
    pub cpu_s: f64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
}

/// What a tenant's switch has used, for billing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accounts {
    /// Processor time in seconds, of every process that ran for it since the tenant was onboarded.
    pub cpu_s: f64,
    /// Memory that it has now, in bytes. Hugepages are not among it.
    pub memory_bytes: u64,
    /// The most that it had.
    pub memory_peak_bytes: u64,
}
