//! Work on many things at once, so that one that is slow delays no other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The most threads at once, besides the caller's.
const HELPERS: usize = 31;

/// `work` on each item, with the results in the items' order. The caller's thread works as well, so
/// it is done even if no thread can be started.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    map_at_most(HELPERS + 1, items, work)
}

/// The same, on this number of items at once.
pub(crate) fn map_at_most<T: Sync, R: Send>(
    at_once: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            match items.get(place) {
                Some(item) => done.push((place, work(item))),
                None => return done,
            }
        }
    };
    let mut all = thread::scope(|scope| {
        let helpers = items.len().min(at_once).saturating_sub(1);
        let helpers: Vec<_> = (0..helpers)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, run).ok())
            .collect();
        let mut all = run();
        for helper in helpers {
            match helper.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(
            map(&items, |item| item * 2),
            (0..100).map(|it| it * 2).collect::<Vec<_>>()
        );
        assert_eq!(map(&[] as &[usize], |item| *item), Vec::<usize>::new());
    }

    #[test]
    fn no_more_are_worked_on_at_once_than_allowed() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let all = Barrier::new(3);
        map_at_most(3, &[(); 12], |()| {
            let count = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(count, Ordering::SeqCst);
            all.wait();
            now.fetch_sub(1, Ordering::SeqCst);
        });
        assert_eq!(most.into_inner(), 3);
    }

    #[test]
    fn items_are_worked_on_at_once() {
        let all = Barrier::new(8);
        map(&[(); 8], |()| all.wait());
    }
}
