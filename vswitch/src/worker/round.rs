//! A round: one burst from every port, and what it sends.

use std::time::Duration;

use dpdk::{Burst, Mbuf};
use ports::Port;

use super::{Worker, nanoseconds};
use pipeline::DropReason;
use pipeline::{PortId, Verdict};

/// A port, with the frames that it sends in this round.
#[derive(Debug)]
pub(super) struct TxPort {
    pub(super) port: Port,
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
            port,
            burst: Burst::new(),
            sent: false,
            tx_full: 0,
            no_buffer: 0,
        }
    }

    /// Queues a frame; a full burst is transmitted first.
    pub(super) fn send(&mut self, mbuf: Mbuf) {
        let Err(mbuf) = self.burst.push(mbuf) else {
            return;
        };
        self.transmit();
        // It is empty now, so there is room.
        let _ = self.burst.push(mbuf);
    }

    /// Transmits the burst; frames that the device does not take are freed.
    fn transmit(&mut self) {
        if self.burst.is_empty() {
            return;
        }
        self.port.tx(&mut self.burst);
        self.sent = true;
        self.tx_full += self.burst.len() as u64;
        self.burst.clear();
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
        let mut pass = self.pipeline.burst(now_ns, port);
        for mut mbuf in burst.drain() {
            // In several buffers: longer than any MTU that the pool was made for.
            if mbuf.segments() != 1 {
                pass.refuse_too_long(mbuf.frame_len());
                continue;
            }
            let Some(mut frame) = mbuf.frame() else {
                continue;
            };
            let verdict = pass.process(&mut frame);
            let position = frame.position();
            let out = match verdict {
                Verdict::Drop(_) => continue,
                Verdict::Forward(out) => out,
                Verdict::Reply | Verdict::DropWithError(_) => port,
            };
            mbuf.set_position(position);
            self.ports[out.index()].send(mbuf);
        }
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
