//! The load's process: reads its plan, carries it out phase by phase, and reports.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use super::worker::Worker;
use super::{Event, LoadPlan};

/// Carries out the plan on standard input and reports on standard output; errors become
/// [`Event::Failed`].
pub fn serve() {
    let event = carry_out().unwrap_or_else(|error| Event::Failed(format!("{error:#}")));
    report(&event);
    if matches!(event, Event::Done(_)) {
        // The ports stay open until the parent ends this process: some peers crash if they close.
        let _ = std::io::stdin().lock().lines().next();
    }
}

fn report(event: &Event) {
    let line = serde_json::to_string(event).expect("plain numbers and text");
    // Without a reader there is nobody to wait either.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn carry_out() -> anyhow::Result<Event> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let plan: LoadPlan = serde_json::from_str(&line).context("the plan cannot be read")?;
    let mut worker = Worker::new(&plan)?;
    worker.wait_for_links()?;
    report(&Event::Open);
    std::io::stdin().lock().read_line(&mut line)?;
    worker.make_ready()?;
    worker.run_until(|worker| worker.phase_time() >= plan.warm_up);
    report(&Event::Begin);
    let measured = worker.measure(plan.measure);
    report(&Event::End);
    let stop = Arc::new(AtomicBool::new(false));
    let stop_on_input = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
        stop_on_input.store(true, Ordering::Relaxed);
    });
    worker.run_until(|_| stop.load(Ordering::Relaxed));
    Ok(Event::Done(worker.finish(measured)))
}
