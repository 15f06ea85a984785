//! What is shown of an apply under way: one line that changes on a terminal, a line for each tenant
//! elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use vf_host::batch::{Outcome, Part, Progress};
use vswitch_api::plain::PlainWriter;

use super::output::complain;

/// The line's most characters: a wrapped one could not be removed.
const WIDTH: usize = 79;

/// The progress of a batch.
pub(super) struct Shown {
    /// How many tenants there are.
    total: usize,
    json: bool,
    terminal: bool,
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    /// How many tenants are done.
    done: usize,
    began: BTreeMap<Part, Instant>,
}

impl Shown {
    pub(super) fn new(total: usize, json: bool) -> Self {
        Self {
            total,
            json,
            terminal: std::io::stderr().is_terminal(),
            under_way: Mutex::default(),
        }
    }

    /// Shows what happens, and always why a part failed.
    pub(super) fn tell(&self, progress: &Progress<'_>, label: &dyn Fn(&Part) -> String) {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Step(part, action) => {
                let began = &mut under_way.began;
                began.entry((*part).clone()).or_insert_with(Instant::now);
                if self.terminal && !self.json {
                    let count = (under_way.done + 1).min(self.total);
                    self.line(&format!("[{count}/{}] {action}", self.total));
                }
            }
            Progress::Ended(Outcome { part, result }) => {
                if let Part::Set(names) | Part::Release(names) = part {
                    under_way.done += names.len();
                }
                if self.terminal && !self.json {
                    self.line("");
                }
                let began = under_way.began.remove(part);
                match result {
                    Err(error) => complain(&format!("vf-provisioner: {}: {error}", label(part))),
                    Ok(applied) if !applied.actions.is_empty() && !self.json => {
                        let seconds = began.map_or(0.0, |began| began.elapsed().as_secs_f64());
                        complain(&format!(
                            "[{}/{}] {}: {} actions in {seconds:.1} s",
                            under_way.done,
                            self.total,
                            label(part),
                            applied.actions.len()
                        ));
                    }
                    Ok(_) => {}
                }
            }
        }
    }

    /// Puts a line in the place of the last one.
    fn line(&self, text: &str) {
        let mut err = std::io::stderr();
        let _ = err.write_all(b"\r\x1b[K");
        let text: String = text.chars().take(WIDTH).collect();
        let _ = PlainWriter(&mut err).write_all(text.as_bytes());
        let _ = err.flush();
    }
}
