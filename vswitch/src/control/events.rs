//! Events: what an operator should hear of without a question. They go to the log.

use std::convert::Infallible;
use std::time::Duration;

use pipeline::{Counters, PathMtuRejection};

use super::Control;

/// How often the counters are compared, and so the most that an attacker can write to the log.
const INTERVAL: Duration = Duration::from_secs(30);

/// What may be worth a line, as it was counted last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counted {
    contested: u64,
    moved: u64,
    believed: u64,
    /// Those that only somebody sends who has not seen the packets that he quotes.
    guessed: u64,
}

impl Counted {
    fn of(counters: &Counters) -> Self {
        use PathMtuRejection::{Distrusted, SourcePort};
        let reports = &counters.path_mtu;
        let guesses = [SourcePort, Distrusted].map(|why| reports.rejected(why).get());
        Self {
            contested: counters.contested_next_hops.get(),
            moved: counters.holder_changes.get(),
            believed: reports.believed.get(),
            guessed: guesses.iter().sum(),
        }
    }
}

impl Control {
    /// Logs what has changed, again and again.
    pub(super) async fn log_events(&self) -> Infallible {
        let mut last = Counted::default();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = Counted::of(&self.counters.borrow());
            let contested = now.contested.saturating_sub(last.contested);
            if contested > 0 {
                tracing::warn!(
                    contested,
                    "another station claims the address of a next hop"
                );
            }
            let moved = now.moved.saturating_sub(last.moved);
            if moved > 0 {
                tracing::info!(moved, "shared addresses have moved to other ports");
            }
            let believed = now.believed.saturating_sub(last.believed);
            if believed > 0 {
                tracing::info!(believed, "routers reported a smaller path MTU to a peer");
            }
            let guessed = now.guessed.saturating_sub(last.guessed);
            if guessed > 0 {
                tracing::warn!(
                    guessed,
                    "somebody forges reports of a smaller path MTU: they quote packets with source \
                     ports that the switch did not use"
                );
            }
            last = now;
        }
    }
}
