//! Locks, entered whether a thread panicked under them or not.
//!
//! Knows nothing of what a lock guards. A poisoned lock is entered because what is guarded is whole all the same: each
//! change under a lock of ours is made in steps that do not panic between one field and the next, and where a change
//! can fail, it is worked out first and stored last. To refuse the lock would let the panic of one call's task, which
//! ends that call alone, stop every other call that shares an index, a queue or a counter with it.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locks `mutex`, poisoned or not.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    entered(mutex.lock())
}

/// Locks `shared` for reading, poisoned or not.
pub fn read<T: ?Sized>(shared: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    entered(shared.read())
}

/// Locks `shared` for writing, poisoned or not.
pub fn write<T: ?Sized>(shared: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    entered(shared.write())
}

/// What a lock, or a wait on a condition variable, gave, poisoned or not.
pub fn entered<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn lock_after_a_panic_under_it_is_entered() {
        let (mutex, shared) = (Mutex::new(1), RwLock::new(1));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let (mut one, mut other) = (lock(&mutex), write(&shared));
            (*one, *other) = (2, 3);
            panic!("under both locks");
        }));
        assert!(panicked.is_err() && mutex.is_poisoned() && shared.is_poisoned());
        assert_eq!((*lock(&mutex), *read(&shared)), (2, 3));
        *write(&shared) = 4;
        assert_eq!((entered(mutex.into_inner()), entered(shared.into_inner())), (2, 4));
    }
}
