//! What a device reports by itself, on DPDK's interrupt thread: its driver, that its physical
//! function was reset or that its link changed; VFIO, that the kernel wants the function back.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dpdk_sys as sys;
use sys::rte_eth_event_type as event;

/// What was reported and not yet taken. Any thread may set and take it.
#[derive(Debug, Default)]
pub struct Signals {
    reset: AtomicBool,
    link: AtomicBool,
    removal: AtomicBool,
}

impl Signals {
    /// Notes that the device must be reset before it carries frames again.
    pub fn demand_reset(&self) {
        self.reset.store(true, Ordering::Release);
    }

    /// Notes that the link's state changed.
    pub fn change_link(&self) {
        self.link.store(true, Ordering::Release);
    }

    /// Notes that the device must be closed: the kernel waits for that.
    pub fn demand_removal(&self) {
        self.removal.store(true, Ordering::Release);
    }

    /// Whether a reset is demanded, once.
    pub fn take_reset(&self) -> bool {
        take(&self.reset)
    }

    /// Whether the link's state changed, once.
    pub fn take_link(&self) -> bool {
        take(&self.link)
    }

    /// Whether the device must be closed. That demand stays.
    pub fn must_close(&self) -> bool {
        self.removal.load(Ordering::Acquire)
    }
}

/// Reads first, so that asking often is cheap.
fn take(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::AcqRel)
}

/// The driver's events that are listened to.
const EVENTS: [event::Type; 3] = [
    event::RTE_ETH_EVENT_INTR_RESET,
    event::RTE_ETH_EVENT_INTR_LSC,
    event::RTE_ETH_EVENT_INTR_RMV,
];

/// Notes in its [`Signals`] what DPDK reports on a device, until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    id: u16,
    device: CString,
    signals: Arc<Signals>,
}

impl Listener {
    /// Listens to port `id`, whose device has that name on its bus.
    ///
    /// # Errors
    /// DPDK's error.
    pub(crate) fn new(id: u16, device: &CStr) -> Result<Self, c_int> {
        let listener = Self {
            id,
            device: device.to_owned(),
            signals: Arc::default(),
        };
        // DPDK owns one more reference, which `drop` takes back.
        let argument = Arc::into_raw(Arc::clone(&listener.signals)) as *mut c_void;
        for event in EVENTS {
            // SAFETY: `on_event` casts the argument to what it is, and `drop` unregisters it before
            // it takes the reference back.
            let code =
                unsafe { sys::rte_eth_dev_callback_register(id, event, Some(on_event), argument) };
            if code != 0 {
                return Err(code);
            }
        }
        // SAFETY: as above; DPDK copies the name.
        let code = unsafe {
            sys::rte_dev_event_callback_register(
                listener.device.as_ptr(),
                Some(on_device_event),
                argument,
            )
        };
        if code == 0 { Ok(listener) } else { Err(code) }
    }

    pub(crate) fn signals(&self) -> Arc<Signals> {
        Arc::clone(&self.signals)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let argument = Arc::as_ptr(&self.signals);
        let mut gone = true;
        for event in EVENTS {
            // SAFETY: the same values as when it was registered; an event that was not is no error.
            gone &= unsafe {
                sys::rte_eth_dev_callback_unregister(
                    self.id,
                    event,
                    Some(on_event),
                    argument as *mut c_void,
                )
            } == 0;
        }
        // SAFETY: as above. It returns the number of those that it has removed.
        gone &= unsafe {
            sys::rte_dev_event_callback_unregister(
                self.device.as_ptr(),
                Some(on_device_event),
                argument as *mut c_void,
            )
        } > 0;
        // A callback that runs at this moment stays registered. Then the reference is never taken
        // back, so what it writes to is never freed.
        if gone {
            // SAFETY: made by `Arc::into_raw` in `new`, and nothing uses it any more.
            unsafe { Arc::decrement_strong_count(argument) };
        }
    }
}

/// # Safety
/// `argument` is from [`Listener::new`].
unsafe fn signals<'a>(argument: *mut c_void) -> &'a Signals {
    // SAFETY: a `Signals` with a reference that is taken back only when nothing calls us any more.
    unsafe { &*argument.cast::<Signals>() }
}

extern "C" fn on_event(
    _port: u16,
    event: event::Type,
    argument: *mut c_void,
    _answer: *mut c_void,
) -> c_int {
    // SAFETY: DPDK passes what was registered.
    let signals = unsafe { signals(argument) };
    match event {
        event::RTE_ETH_EVENT_INTR_RESET => signals.demand_reset(),
        event::RTE_ETH_EVENT_INTR_LSC => signals.change_link(),
        event::RTE_ETH_EVENT_INTR_RMV => signals.demand_removal(),
        _ => {}
    }
    0
}

extern "C" fn on_device_event(
    _device: *const c_char,
    event: sys::rte_dev_event_type::Type,
    argument: *mut c_void,
) {
    if event == sys::rte_dev_event_type::RTE_DEV_EVENT_REMOVE {
        // SAFETY: DPDK passes what was registered.
        unsafe { signals(argument) }.demand_removal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_is_taken_once_and_removal_stays() {
        let signals = Signals::default();
        assert!(!signals.take_reset() && !signals.take_link() && !signals.must_close());
        signals.demand_reset();
        signals.change_link();
        signals.demand_removal();
        assert!(signals.take_reset() && signals.take_link());
        assert!(!signals.take_reset() && !signals.take_link());
        assert!(signals.must_close() && signals.must_close());
    }
}
