//! The heap of a handler that has no WASI: it begins in the memory that the module has from the start. The target's own
//! begins by growing the memory, which for a fresh instance costs as much as half of an event.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::{memory_grow, memory_size};
use std::cell::UnsafeCell;

use dlmalloc::{Allocator, Dlmalloc};

const PAGE: usize = 64 * 1024;

/// Where the allocator gets memory from: first what lies between the module's data and the end of its memory, then pages.
struct Memory {
    begun: UnsafeCell<bool>,
}

unsafe extern "C" {
    /// The linker puts it where the heap may begin.
    static __heap_base: u8;
}

// SAFETY: every piece that is handed out lies in the linear memory, has no other owner (the linker puts nothing behind
// `__heap_base`; grown pages are new), and is never taken back.
unsafe impl Allocator for Memory {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        // SAFETY: a guest has one thread, and nothing here is entered twice.
        let first = unsafe { !std::mem::replace(&mut *self.begun.get(), true) };
        if first {
            let base = (&raw const __heap_base as usize).next_multiple_of(16);
            let room = (memory_size(0) * PAGE).saturating_sub(base);
            if room >= size {
                return (base as *mut u8, room, 0);
            }
        }
        let pages = size.div_ceil(PAGE);
        match memory_grow(0, pages) {
            usize::MAX => (std::ptr::null_mut(), 0, 0),
            before => ((before * PAGE) as *mut u8, pages * PAGE, 0),
        }
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    /// A reused instance's memory, and a snapshot's, need not be zero.
    fn allocates_zeros(&self) -> bool {
        false
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}

struct Heap(UnsafeCell<Dlmalloc<Memory>>);

// SAFETY: a guest has one thread.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(Dlmalloc::new_with_allocator(Memory {
    begun: UnsafeCell::new(false),
})));

// SAFETY: `dlmalloc` keeps the contract; one thread, and it never calls back into the allocator.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { (*self.0.get()).free(pointer, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { (*self.0.get()).realloc(pointer, layout.size(), layout.align(), size) }
    }
}
