//! Locks of the core: the one place that names where they come from.
//!
//! They spin, as the core may run where nothing can sleep. So whoever holds one does bounded work:
//! no host call that can block, no running vCPU, no second lock except in an order that is written
//! where the fields are.

/// Mutual exclusion.
pub type Mutex<T> = spin::mutex::SpinMutex<T>;
/// Many readers or one writer. A reader may be let in while a writer waits.
pub type RwLock<T> = spin::rwlock::RwLock<T>;
