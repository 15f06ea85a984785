//! One look at the host: what several objects need of it is read once.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::HostError;

/// How old a shared reading may become. It is read again for objects that are looked at later.
const AGE_MAX: Duration = Duration::from_secs(10);

type Shared<T> = Result<Arc<T>, Arc<HostError>>;
type Slot = Arc<Mutex<Option<(Instant, Box<dyn Any + Send>)>>>;

/// What was read so far, by type and name. It serves one comparison of many objects and ends with
/// it: what an apply changes is read back anew.
pub struct Look {
    objects: usize,
    slots: Mutex<HashMap<(TypeId, String), Slot>>,
    reads: Mutex<usize>,
}

impl Look {
    /// A look at this number of objects.
    pub fn at(objects: usize) -> Self {
        Self {
            objects,
            slots: Mutex::default(),
            reads: Mutex::default(),
        }
    }

    /// Whether so many objects are looked at that reading all of their kind is cheaper.
    pub(crate) fn is_wide(&self) -> bool {
        /// Of some four tenants.
        const MANY: usize = 40;
        self.objects > MANY
    }

    /// What `read` returns, read once for all who share this name. They wait for each other; those
    /// who ask for something else do not.
    ///
    /// # Errors
    /// The error of reading, for all of them.
    pub(crate) fn share<T: Any + Send + Sync>(
        &self,
        name: &str,
        read: impl FnOnce() -> Result<T, HostError>,
    ) -> Result<Arc<T>, HostError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (TypeId::of::<T>(), name.to_owned());
            Arc::clone(slots.entry(key).or_default())
        };
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = held.as_ref().filter(|(at, _)| at.elapsed() < AGE_MAX);
        let known = fresh.and_then(|(_, value)| value.downcast_ref::<Shared<T>>().cloned());
        let shared = known.unwrap_or_else(|| {
            *self.reads.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            let at = Instant::now();
            let shared: Shared<T> = read().map(Arc::new).map_err(Arc::new);
            *held = Some((at, Box::new(shared.clone())));
            shared
        });
        shared.map_err(HostError::Shared)
    }

    /// How often something was read.
    pub fn reads(&self) -> usize {
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> HostError {
        HostError::Program {
            program: "fake",
            message: "no".to_owned(),
        }
    }

    #[test]
    fn reading_is_shared_by_type_and_name() {
        let look = Look::at(3);
        for _ in 0..3 {
            assert_eq!(*look.share("a", || Ok(1_u8)).expect("it is read"), 1);
            assert_eq!(*look.share("b", || Ok(2_u8)).expect("it is read"), 2);
            assert_eq!(*look.share("a", || Ok(3_u16)).expect("it is read"), 3);
            let error = look.share::<u32>("a", || Err(failure())).map(|_| ());
            assert_eq!(
                error.map_err(|it| it.to_string()),
                Err(failure().to_string())
            );
        }
        assert_eq!(look.reads(), 4);
    }

    #[test]
    fn threads_wait_for_one_reading() {
        let look = Look::at(3);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| look.share("a", || Ok(1_u8)).expect("it is read"));
            }
        });
        assert_eq!(look.reads(), 1);
    }
}
