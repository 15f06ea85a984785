//! Waiting with a time limit.

use std::time::{Duration, Instant};

#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{what}: not in 20 s"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
