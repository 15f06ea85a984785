//! Events: what an operator should hear of without a question. They go to the log.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use pipeline::{Counters, ReportRejection};
use vswitch_api::endpoint::tunnels::{OtherStation, Peer, Tunnel, Unreachable};

use super::Control;

/// How often the counters are compared, and so the most that an attacker can write to the log.
const INTERVAL: Duration = Duration::from_secs(30);
/// Lines about peers within an interval. Further ones are counted.
const TROUBLE_LINES: usize = 16;

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
        use ReportRejection::{Distrusted, SourcePort};
        let guesses = [&counters.path_mtu, &counters.unreachable]
            .map(|reports| [SourcePort, Distrusted].map(|why| reports.rejected(why).get()));
        Self {
            contested: counters.contested_next_hops.get(),
            moved: counters.holder_changes.get(),
            believed: counters.path_mtu.believed.get(),
            guessed: guesses.iter().flatten().sum(),
        }
    }
}

/// What is wrong with the tunnel, in a sentence: by kind, and by the name or the address that it is
/// about.
type Troubles = BTreeMap<(Trouble, String), String>;

/// `None` is of our own endpoint.
type Trouble = Option<pipeline::Trouble>;

fn troubles(tunnel: &Tunnel) -> Troubles {
    let own = tunnel.vtep_conflict.iter().map(|OtherStation { mac, .. }| {
        let what = format!("another station, {mac}, claims the address of our own VTEP");
        ((None, tunnel.vtep.clone()), what)
    });
    let of_peers = tunnel.peers.iter().flat_map(|peer| {
        let each = of_peer(peer).into_iter().flatten();
        each.map(|(kind, of, what)| ((Some(kind), of.clone()), what))
    });
    own.chain(of_peers).collect()
}

/// Peers with one endpoint or next hop share what is wrong with that.
fn of_peer(peer: &Peer) -> [Option<(pipeline::Trouble, &String, String)>; 3] {
    use pipeline::Trouble::{Mac, NextHop, Unreachable as Lost};
    let mac = peer.other_mac.as_ref().map(|OtherStation { mac, .. }| {
        let expected = &peer.mac;
        let what = format!("its frames come from MAC {mac}, and ours go to {expected}");
        (Mac, &peer.name, what)
    });
    let lost = peer.unreachable.as_ref();
    let lost = lost.map(|Unreachable { why, from, .. }| {
        let what = format!("{from} says that our packets do not arrive: {why} unreachable");
        (Lost, &peer.vtep, what)
    });
    let next_hop = peer.next_hop_conflict.as_ref();
    let next_hop = next_hop.map(|OtherStation { mac, .. }| {
        let what = format!("another station, {mac}, claims the address of this next hop");
        (NextHop, &peer.next_hop, what)
    });
    [mac, lost, next_hop]
}

/// The lines about what has changed: whether it begins, of whom, and what. Trouble of one kind that
/// has another cause now is no change.
fn changes<'t>(
    before: &'t Troubles,
    now: &'t Troubles,
) -> impl Iterator<Item = (bool, &'t str, &'t str)> {
    let only = |these: &'t Troubles, those: &'t Troubles| {
        let these = these.iter();
        these.filter(|(key, _)| !those.contains_key(*key))
    };
    let began = only(now, before).map(|it| (true, it));
    let ended = only(before, now).map(|it| (false, it));
    let all = began.chain(ended);
    all.map(|(begins, ((_, of), what))| (begins, of.as_str(), what.as_str()))
}

fn log_changes(before: &Troubles, now: &Troubles) {
    for (begins, of, trouble) in changes(before, now).take(TROUBLE_LINES) {
        match begins {
            true => tracing::warn!(of, trouble, "something is wrong with the tunnel"),
            false => tracing::info!(of, trouble, "no more sign of it for two minutes"),
        }
    }
    let further = changes(before, now).skip(TROUBLE_LINES).count();
    if further > 0 {
        tracing::warn!(further, "more has changed at the tunnel: see show tunnels");
    }
}

impl Control {
    /// Logs what has changed, again and again.
    pub(super) async fn log_events(&self) -> Infallible {
        let mut last = Counted::default();
        let (mut troubled, mut contested) = (Troubles::new(), false);
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = Counted::of(&self.counters.borrow());
            let before = std::mem::replace(&mut contested, now.contested > last.contested);
            if contested && !before {
                let contested = now.contested;
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
                    "somebody forges reports about packets of the tunnel: they quote packets with \
                     source ports that the switch did not use"
                );
            }
            last = now;
            let present = self
                .tunnel(false)
                .as_ref()
                .map(troubles)
                .unwrap_or_default();
            log_changes(&troubled, &present);
            troubled = present;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn troubled(list: &[(Trouble, &str, &str)]) -> Troubles {
        let list = list.iter();
        list.map(|(kind, of, what)| ((*kind, (*of).to_owned()), (*what).to_owned()))
            .collect()
    }

    #[test]
    fn trouble_is_logged_when_it_begins_and_ends() {
        use pipeline::Trouble::{Mac, Unreachable};
        let before = troubled(&[
            (Some(Mac), "a", "mac x"),
            (Some(Unreachable), "192.0.2.66", "port"),
        ]);
        let now = troubled(&[
            (Some(Mac), "a", "mac y"),
            (Some(Unreachable), "192.0.2.67", "host"),
            (None, "192.0.2.2", "own"),
        ]);
        let lines: Vec<_> = changes(&before, &now).collect();
        let expected = [
            (true, "192.0.2.2", "own"),
            (true, "192.0.2.67", "host"),
            (false, "192.0.2.66", "port"),
        ];
        assert_eq!(lines, expected);
        assert_eq!(changes(&now, &now).count(), 0);
    }
}
