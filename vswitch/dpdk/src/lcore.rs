//! The scheduler's settings for the worker's thread, DPDK's lcore.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

/// Requests a time slice for the calling thread under contention, from 0.1 to 100 ms.
///
/// A thread with a short slice is scheduled sooner, and loses less of its share by yielding. It
/// takes effect from Linux 6.12 on, and needs no privilege. A real-time thread has no slice and is
/// left alone.
///
/// # Errors
/// The kernel's error.
pub fn set_time_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    if ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&(attributes.sched_policy as i32)) {
        return Ok(());
    }
    attributes.sched_runtime = slice.as_nanos() as u64;
    // SAFETY: the kernel reads as many bytes of the structure as its first field says.
    let code = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Errno::result(code)?;
    Ok(())
}

/// The calling thread's attributes.
fn attributes() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attributes = MaybeUninit::<libc::sched_attr>::zeroed();
    let place = attributes.as_mut_ptr();
    // SAFETY: the kernel writes at most `size` bytes of the structure; the first 0 is the calling
    // thread, the last one means no flags.
    let code = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, place, size, 0) };
    Errno::result(code)?;
    // SAFETY: all fields are numbers, either zero or written by the kernel.
    Ok(unsafe { attributes.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_slice_leaves_policy_and_nice_value() {
        let before = attributes().expect("the attributes");
        set_time_slice(Duration::from_micros(300)).expect("it needs no privilege");
        let after = attributes().expect("the attributes");
        // Kernels before 6.12 ignore it.
        assert!([0, 300_000].contains(&after.sched_runtime));
        assert_eq!(
            (after.sched_policy, after.sched_nice),
            (before.sched_policy, before.sched_nice)
        );
    }
}
