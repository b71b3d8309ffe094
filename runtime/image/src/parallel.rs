//! The same for each of many things, on all processors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many threads have something to do at once.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does it for each item, in as many threads as there are processors; the order of the results is that of the items.
///
/// # Errors
/// One of the failures. Others finish what they have begun by then, and begin nothing new.
pub(crate) fn for_each<I: Sync, T: Send, E: Send>(
    items: &[I],
    act: impl Fn(&I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = act(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..processors().min(items.len()) {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_failures_end_it() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = for_each(&items, |n| Ok::<_, ()>(n * 2)).unwrap();
        assert!(doubled.iter().zip(&items).all(|(d, n)| *d == n * 2) && doubled.len() == 100);
        let seen = AtomicUsize::new(0);
        let act = |n: &u32| {
            seen.fetch_add(1, Ordering::Relaxed);
            if *n == 0 { Err("first") } else { Ok(()) }
        };
        let many: Vec<u32> = std::iter::once(0).chain(std::iter::repeat_n(1, 100_000)).collect();
        assert_eq!(for_each(&many, act), Err("first"));
        assert!(for_each(&[] as &[u32], |_| Err::<(), ()>(())).unwrap().is_empty());
    }
}
