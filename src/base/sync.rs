//! Locks that can be taken even if a thread panicked while it held them.
//!
//! Knows nothing of the data behind a lock. A poisoned lock is taken, because the data is consistent even then: code
//! that holds a lock does not panic between two changes that belong together, and computes a value that can fail before
//! it changes anything. If a poisoned lock were refused, the panic of one call's task, which ends only that call, would
//! stop every other call that uses the same index, queue or counter.

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

/// Takes the guard from the result of a lock or of a wait on a condition variable, poisoned or not.
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
