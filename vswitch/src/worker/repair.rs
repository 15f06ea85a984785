//! Resets of devices, on a thread of their own.
//!
//! A virtual function whose physical function was reset carries nothing until it is reset too. That
//! takes milliseconds, and seconds with some drivers, so the worker hands the whole port over and
//! carries the frames of the others meanwhile. It has the port back once a reset has succeeded;
//! until then the reset is repeated with growing pauses.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use ports::Port;

use super::link::{Link, PortState, add};

/// The pause after a failed reset, and before one that follows another closely; each further one is
/// twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const MAX_WAIT: Duration = Duration::from_secs(10);
/// A port that carried frames for this long starts again without a pause.
const CALM: Duration = Duration::from_secs(20);
/// How long the thread waits if no port needs it. Only the end of the worker matters then.
const IDLE: Duration = Duration::from_secs(3600);

/// A port on its way to its reset or back.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) index: usize,
    /// Its name, for messages.
    pub(super) name: String,
    pub(super) port: Port,
}

/// The worker's side.
#[derive(Debug)]
pub(super) struct Workshop {
    sick: SyncSender<Parcel>,
    well: Receiver<Parcel>,
}

impl Workshop {
    /// The worker's side and the thread's, for so many ports.
    pub(super) fn new(ports: usize, link: &Arc<Link>) -> (Self, Repair) {
        // Each port is in one place, so there is always room.
        let (sick, to_repair) = sync_channel(ports);
        let (from_repair, well) = sync_channel(ports);
        let repair = Repair {
            sick: to_repair,
            well: from_repair,
            link: Arc::clone(link),
            history: (0..ports).map(|_| History::default()).collect(),
            patients: Vec::with_capacity(ports),
        };
        (Self { sick, well }, repair)
    }

    /// Hands a port over; returns it if nobody resets ports.
    pub(super) fn send(&self, parcel: Parcel) -> Option<Port> {
        match self.sick.try_send(parcel) {
            Ok(()) => None,
            Err(TrySendError::Full(parcel) | TrySendError::Disconnected(parcel)) => {
                Some(parcel.port)
            }
        }
    }

    /// A port that carries frames again.
    pub(super) fn take(&self) -> Option<Parcel> {
        self.well.try_recv().ok()
    }
}

/// The thread's side: resets the ports that a worker hands over.
#[derive(Debug)]
pub struct Repair {
    sick: Receiver<Parcel>,
    well: SyncSender<Parcel>,
    link: Arc<Link>,
    /// Of each port.
    history: Vec<History>,
    patients: Vec<Patient>,
}

/// The resets of one port so far.
#[derive(Debug, Default, Clone, Copy)]
struct History {
    /// The pause before the next.
    wait: Duration,
    /// When the last one succeeded.
    well_since: Option<Instant>,
}

/// A port that is to be reset.
#[derive(Debug)]
struct Patient {
    parcel: Parcel,
    due: Instant,
}

impl Repair {
    /// Resets ports until the worker ends.
    pub fn run(mut self) {
        loop {
            let next = self.patients.iter().map(|it| it.due).min();
            let pause = next.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
            match self.sick.recv_timeout(pause) {
                Ok(parcel) => self.admit(parcel),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            while let Some(at) = self.patients.iter().position(|it| it.due <= Instant::now()) {
                let patient = self.patients.swap_remove(at);
                if !self.treat(patient) {
                    return self.end();
                }
            }
        }
    }

    fn admit(&mut self, parcel: Parcel) {
        let history = &mut self.history[parcel.index];
        let is_calm = |since: Instant| since.elapsed() > CALM;
        if history.well_since.is_none_or(is_calm) {
            history.wait = Duration::ZERO;
        }
        let due = Instant::now() + history.wait;
        self.patients.push(Patient { parcel, due });
    }

    /// Resets a port once; false if the worker has ended.
    fn treat(&mut self, mut patient: Patient) -> bool {
        let Parcel { index, name, port } = &mut patient.parcel;
        let device = &self.link.devices[*index];
        // What is reported from now on demands another reset.
        if let Some(signals) = port.signals() {
            signals.take_reset();
        }
        let began = Instant::now();
        let reset = port.reset();
        let history = &mut self.history[*index];
        history.wait = (history.wait * 2).clamp(FIRST_WAIT, MAX_WAIT);
        match reset {
            Ok(()) => {
                add(&device.resets, 1);
                history.well_since = Some(Instant::now());
                let ms = began.elapsed().as_millis();
                tracing::info!(port = %name, ms, "the device was reset");
                self.well.send(patient.parcel).is_ok()
            }
            Err(error) => {
                add(&device.reset_failures, 1);
                device.set(PortState::Failed);
                let again_s = history.wait.as_secs_f64();
                tracing::warn!(port = %name, %error, again_s, "the device cannot be reset");
                patient.due = Instant::now() + history.wait;
                self.patients.push(patient);
                true
            }
        }
    }

    /// The process ends: the kernel closes the devices. DPDK must not, while others still use it.
    fn end(self) {
        std::mem::forget(self.patients);
    }
}
