//! Whether this is the emulated machine.

use std::path::Path;

/// Whether this is the emulated machine; if not, prints that.
pub(crate) fn is_emulated() -> bool {
    let there = Path::new("/run/emulated-machine").exists();
    if !there {
        eprintln!("skipped: needs the emulated machine (scripts/test sriov)");
    }
    there
}
