//! What the thread that DPDK calls an lcore asks of the scheduler.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

/// Asks the scheduler to give the calling thread the CPU for so long at a time where others want it too, from 0.1 to 100 ms.
///
/// Whoever asks for little at a time gets it sooner, and gives away less of its share by yielding. Linux takes notice from 6.12 on. It
/// needs no privilege. A thread at real-time priority has no such slice, and is left as it is.
///
/// # Errors
/// What the kernel says.
pub fn set_time_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    if ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&(attributes.sched_policy as i32)) {
        return Ok(());
    }
    attributes.sched_runtime = slice.as_nanos() as u64;
    // SAFETY: the kernel reads the bytes of the structure that its first field counts.
    let code = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Errno::result(code)?;
    Ok(())
}

/// Of the calling thread.
fn attributes() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attributes = MaybeUninit::<libc::sched_attr>::zeroed();
    let place = attributes.as_mut_ptr();
    // SAFETY: the kernel writes at most `size` bytes of the structure; 0 is the calling thread, and there are no flags.
    let code = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, place, size, 0) };
    Errno::result(code)?;
    // SAFETY: numbers, all zero or the kernel's.
    Ok(unsafe { attributes.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_slice_is_changed() {
        let before = attributes().expect("the kernel tells");
        set_time_slice(Duration::from_micros(300)).expect("it needs no privilege");
        let after = attributes().expect("the kernel tells");
        // Older kernels take no notice.
        assert!([0, 300_000].contains(&after.sched_runtime));
        assert_eq!(
            (after.sched_policy, after.sched_nice),
            (before.sched_policy, before.sched_nice)
        );
    }
}
