//! Instructions one at a time, on a page of memory.
