//! A round: one burst from every port, and what it sends.

use std::sync::Arc;
use std::time::Duration;

use dpdk::{Burst, Mbuf, Signals};
use ports::Port;

use super::{Worker, nanoseconds};
use pipeline::DropReason;
use pipeline::{PortId, Verdict};

/// How long a device may take none of the frames that it is given, before it is reset.
const TX_STUCK: Duration = Duration::from_secs(2);

/// Frames queued in a round of a tenant with multicast, after which all ports transmit: one frame
/// becomes many there, and what is queued holds buffers.
const QUEUED_MAX: usize = 8 * Burst::CAPACITY;

/// A port, with the frames that it sends in this round.
#[derive(Debug)]
pub(super) struct TxPort {
    pub(super) port: Port,
    /// What its device reports by itself, also while another thread resets it.
    pub(super) signals: Option<Arc<Signals>>,
    /// Frames that the device took, and did not take, since [`Self::is_stuck`] last looked.
    took: u64,
    refused: u64,
    /// Since when it has taken none of those that it was given.
    refuses_since: Option<Duration>,
    burst: Burst,
    /// Whether it sent in this round.
    sent: bool,
    /// Frames that the device did not take, since they were last counted.
    tx_full: u64,
    /// Frames that found no buffer, since they were last counted.
    pub(super) no_buffer: u64,
}

impl TxPort {
    pub(super) fn new(port: Port) -> Self {
        Self {
            signals: port.signals(),
            port,
            took: 0,
            refused: 0,
            refuses_since: None,
            burst: Burst::new(),
            sent: false,
            tx_full: 0,
            no_buffer: 0,
        }
    }

    /// Queues a frame; a full burst is transmitted first.
    #[inline]
    pub(super) fn send(&mut self, mbuf: Mbuf) {
        if let Err(mbuf) = self.burst.push(mbuf) {
            self.send_after_transmission(mbuf);
        }
    }

    #[inline(never)]
    fn send_after_transmission(&mut self, mbuf: Mbuf) {
        self.transmit();
        // It is empty now, so there is room.
        let _ = self.burst.push(mbuf);
    }

    /// Transmits the burst; frames that the device does not take are freed.
    fn transmit(&mut self) {
        if self.burst.is_empty() {
            return;
        }
        let taken = self.port.tx(&mut self.burst);
        self.sent = true;
        self.took += taken as u64;
        self.tx_full += self.burst.len() as u64;
        self.refused += self.burst.len() as u64;
        self.burst.clear();
    }

    /// Whether the device has taken no frame for [`TX_STUCK`], and was given some. A function whose
    /// physical function was reset completes none, so its ring stays full.
    pub(super) fn is_stuck(&mut self, now: Duration) -> bool {
        let took = std::mem::take(&mut self.took);
        let refused = std::mem::take(&mut self.refused);
        if took > 0 {
            self.refuses_since = None;
        } else if refused > 0 {
            self.refuses_since.get_or_insert(now);
        }
        let since = self.refuses_since;
        refused > 0 && since.is_some_and(|since| now.saturating_sub(since) >= TX_STUCK)
    }

    /// Takes the port out; what is given to it meanwhile is not sent.
    pub(super) fn take_out(&mut self) -> Port {
        self.refuses_since = None;
        std::mem::replace(&mut self.port, Port::Absent)
    }
}

/// The port that a frame leaves by; `from` is the one that it came from.
#[inline(always)]
fn way_out(verdict: Verdict, from: PortId) -> Option<PortId> {
    match verdict {
        // The copies come one by one.
        Verdict::Drop(_) | Verdict::Copies => None,
        Verdict::Forward(out) => Some(out),
        Verdict::Reply | Verdict::DropWithError(_) => Some(from),
    }
}

impl Worker {
    /// Handles one burst from every port; returns the number of frames.
    pub(super) fn round(&mut self, now: Duration) -> u64 {
        let now_ns = nanoseconds(now);
        let mut frames = 0;
        let mut burst = Burst::new();
        for index in 0..self.ports.len() {
            let received = self.ports[index].port.rx(&mut burst);
            if received == 0 {
                continue;
            }
            frames += received as u64;
            burst.prefetch();
            let port = PortId(index as u16);
            self.forward(now_ns, port, &mut burst);
        }
        if frames > 0 {
            self.transmit();
        }
        frames
    }

    /// Decides on the frames of a burst, and queues each at the port where it leaves.
    fn forward(&mut self, now_ns: u64, port: PortId, burst: &mut Burst) {
        let Self {
            pipeline, ports, ..
        } = self;
        if pipeline.replicates() {
            let mut queued = 0;
            let mut pass = pipeline.burst(now_ns, port);
            pass.process_all(burst.drain(), |mbuf, verdict| {
                let Some(out) = way_out(verdict, port) else {
                    return;
                };
                ports[out.index()].send(mbuf);
                queued += 1;
                if queued == QUEUED_MAX {
                    ports.iter_mut().for_each(TxPort::transmit);
                    queued = 0;
                }
            });
            return;
        }
        let mut pass = pipeline.burst(now_ns, port);
        pass.process_all(burst.drain(), |mbuf, verdict| {
            if let Some(out) = way_out(verdict, port) {
                ports[out.index()].send(mbuf);
            }
        });
    }

    /// Transmits what the round has queued at every port, and counts what could not be sent.
    pub(super) fn transmit(&mut self) {
        for (index, tx) in self.ports.iter_mut().enumerate() {
            tx.transmit();
            let port = PortId(index as u16);
            for (reason, count) in [
                (DropReason::TxFull, &mut tx.tx_full),
                (DropReason::NoBuffer, &mut tx.no_buffer),
            ] {
                if *count > 0 {
                    self.pipeline.unsent(port, reason, std::mem::take(count));
                }
            }
        }
    }

    /// Flushes the TX rings of the ports that sent nothing in this round; returns whether any ring
    /// may still hold frames.
    pub(super) fn flush_tx(&mut self) -> bool {
        let mut holds_frames = false;
        for TxPort { port, sent, .. } in &mut self.ports {
            if !std::mem::take(sent) && port.may_hold_frames() {
                port.flush_tx();
            }
            holds_frames |= port.may_hold_frames();
        }
        holds_frames
    }
}
