//! The entropy of the C library. The iteration order of the hash tables of the standard library depends on it, and a
//! schedule must depend on its seed alone.

use std::cell::Cell;

thread_local!(static NEXT: Cell<u8> = const { Cell::new(1) });

/// # Safety
/// The same conditions as for the function of the C library.
#[expect(unsafe_code, reason = "the signature of the C library")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    let next = NEXT.try_with(|next| next.replace(next.get().wrapping_add(1))).unwrap_or(1);
    // SAFETY: the caller provides `length` bytes at `buffer`.
    unsafe { std::ptr::write_bytes(buffer, next, length) };
    isize::try_from(length).unwrap_or(isize::MAX)
}
