//! Chooses, when a test process starts, which of the mutants compiled into it is active.
//!
//! Only the copy of the sources that `scripts/mutants` makes depends on this crate: there every
//! place that a mutant changes asks [`active`].

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The environment variable with the number of the active mutant, from 1 on.
pub const ACTIVE: &str = "MUTANT";
/// The environment variable with the file that gets the numbers of the mutants reached, a line
/// each. No mutant is active then.
pub const REACHED: &str = "MUTANTS_REACHED";

/// More than there are mutants.
const BOUND: usize = 1 << 16;
/// Values of [`STATE`] that are no mutant's number.
const UNKNOWN: u32 = u32::MAX;
const NOTING: u32 = u32::MAX - 1;
const NONE: u32 = 0;

/// The number of the active mutant, or one of the above.
static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);
/// Whether a mutant has been noted.
static NOTED: [AtomicBool; BOUND] = [const { AtomicBool::new(false) }; BOUND];
/// The file that gets the mutants reached.
static NOTES: Mutex<Option<File>> = Mutex::new(None);

/// Whether the mutant with this number is the active one.
#[inline(always)]
pub fn active(mutant: u32) -> bool {
    match STATE.load(Ordering::Relaxed) {
        UNKNOWN => first(mutant),
        NOTING => noted(mutant),
        state => state == mutant,
    }
}

/// As [`active`], before the environment was asked.
#[cold]
fn first(mutant: u32) -> bool {
    let mut notes = NOTES
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if STATE.load(Ordering::Relaxed) == UNKNOWN {
        STATE.store(chosen(&mut notes), Ordering::Relaxed);
    }
    drop(notes);
    active(mutant)
}

/// Notes that the mutant was reached; it is not active.
#[inline(never)]
fn noted(mutant: u32) -> bool {
    if !NOTED[mutant as usize].swap(true, Ordering::Relaxed) {
        let mut notes = NOTES
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let file = notes
            .as_mut()
            .expect("a file while reached mutants are noted");
        writeln!(file, "{mutant}").expect("the file of the mutants reached can be written");
    }
    false
}

/// The state that the environment asks for.
fn chosen(notes: &mut Option<File>) -> u32 {
    if let Some(path) = std::env::var_os(REACHED) {
        *notes = Some(File::create(path).expect("the file of the mutants reached can be created"));
        return NOTING;
    }
    match std::env::var(ACTIVE) {
        Ok(number) => number.parse().expect("MUTANT is a number"),
        Err(_) => NONE,
    }
}
