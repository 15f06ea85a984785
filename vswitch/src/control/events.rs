//! Events: what an operator should hear of without a question. They go to the log.

use std::convert::Infallible;
use std::time::Duration;

use pipeline::{PathMtuCounters, PathMtuRejection};

use super::Control;

/// How often the counters are compared, and so the most that an attacker can write to the log.
const INTERVAL: Duration = Duration::from_secs(30);

/// The counters of path MTU reports as they were reported last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Reports {
    believed: u64,
    /// Those that only somebody sends who has not seen the packets that he quotes.
    guessed: u64,
}

impl Reports {
    fn of(counters: &PathMtuCounters) -> Self {
        use PathMtuRejection::{Distrusted, SourcePort};
        let guesses = [SourcePort, Distrusted].map(|why| counters.rejected(why).get());
        Self {
            believed: counters.believed.get(),
            guessed: guesses.iter().sum(),
        }
    }
}

impl Control {
    /// Logs what has changed, again and again.
    pub(super) async fn log_events(&self) -> Infallible {
        let mut last = Reports::default();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let reports = Reports::of(&self.counters.borrow().path_mtu);
            let believed = reports.believed.saturating_sub(last.believed);
            if believed > 0 {
                tracing::info!(believed, "routers reported a smaller path MTU to a peer");
            }
            let guessed = reports.guessed.saturating_sub(last.guessed);
            if guessed > 0 {
                tracing::warn!(
                    guessed,
                    "somebody forges reports of a smaller path MTU: they quote packets with source \
                     ports that the switch did not use"
                );
            }
            last = reports;
        }
    }
}
