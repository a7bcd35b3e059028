//! How the C library's allocator deals with batches: it keeps what they leave.
//!
//! Batches are some hundred KiB, made and dropped thousands of times a second. Left to itself, glibc gives each back to the
//! system and takes it again zeroed, page by page: a third of the CPU time of a job that only reads and decodes.
//!
//! Invariant: only speed depends on it, and some tens of MiB that a process holds between batches.

/// For the whole process, once.
pub(super) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_freed();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    #![expect(unsafe_code, reason = "the C library's allocator is set by a C call")]

    use std::ffi::c_int;
    use std::sync::Once;

    // Of malloc.h.
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;

    /// Free bytes at the end of a thread's heap that are kept.
    const KEPT: c_int = 64 << 20;
    /// Allocations from here on are the system's each, so that what is large goes back at once.
    const LARGE: c_int = 8 << 20;

    unsafe extern "C" {
        fn mallopt(param: c_int, value: c_int) -> c_int;
    }

    pub(super) fn keep_freed() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: glibc takes its own lock; a value that it does not take changes nothing.
            unsafe {
                mallopt(M_TRIM_THRESHOLD, KEPT);
                mallopt(M_MMAP_THRESHOLD, LARGE);
            }
        });
    }
}
