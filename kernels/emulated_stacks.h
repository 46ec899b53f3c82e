/* Stacks of fibers, and the switch between them: a part of emulated.cpp. */
#ifndef GS_EMULATED_STACKS_H
#define GS_EMULATED_STACKS_H

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(EMULATED_UCONTEXT)
#define EMULATED_UCONTEXT
#endif
#ifdef EMULATED_UCONTEXT
#include <ucontext.h>
#endif

/* A sanitizer's words, there in a program that is linked with one. */
extern "C" {
#define WEAK __attribute__((weak))
WEAK void __sanitizer_start_switch_fiber(void **, const void *, size_t);
WEAK void __sanitizer_finish_switch_fiber(void *, const void **, size_t *);
WEAK void *__tsan_get_current_fiber();
WEAK void *__tsan_create_fiber(unsigned);
WEAK void __tsan_destroy_fiber(void *);
WEAK void __tsan_switch_to_fiber(void *, unsigned);
WEAK void __tsan_set_fiber_name(void *, const char *);
WEAK void __tsan_acquire(void *);
WEAK void __tsan_release(void *);
#undef WEAK
}

namespace {

#if defined(EMULATED_UCONTEXT)

/* Slow, and everywhere. A context lies on the stack that it belongs to. */
void emulated_switch(void **from, void *to) {
    ucontext_t here;
    *from = &here;
    swapcontext(&here, (ucontext_t *)to);
}
void *first_frame(char *top, void (*entry)()) {
    const size_t below = (sizeof(ucontext_t) + 63) / 64 * 64;
    ucontext_t *first = (ucontext_t *)(top - below);
    getcontext(first);
    first->uc_stack.ss_sp = top - 65536;
    first->uc_stack.ss_size = 65536 - below;
    first->uc_link = nullptr;
    makecontext(first, entry, 0);
    return first;
}

#elif defined(__x86_64__)

/* What a call keeps goes onto the old stack, and comes back from the new one. */
extern "C" void emulated_switch(void **from, void *to) __asm__("emulated_switch");
__asm__(
    ".text\n"
    "emulated_switch:\n"
    " pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    " movq %rsp, (%rdi)\n"
    " movq %rsi, %rsp\n"
    " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
    " ret\n");
void *first_frame(char *top, void (*entry)()) {
    void **frame = (void **)top - 2; /* a return address lies 8 bytes off 16 */
    frame[1] = nullptr;
    frame[0] = (void *)entry;
    return frame - 6;
}

#elif defined(__aarch64__)

extern "C" void emulated_switch(void **from, void *to) __asm__("emulated_switch");
__asm__(
    ".text\n"
    ".p2align 2\n"
    "emulated_switch:\n"
    " sub sp, sp, #160\n"
    " stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n"
    " stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
    " stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n"
    " stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
    " mov x9, sp\n str x9, [x0]\n"
    " mov sp, x1\n"
    " ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n"
    " ldp x25, x26, [sp, #48]\n ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
    " ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n"
    " ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
    " add sp, sp, #160\n"
    " ret\n");
void *first_frame(char *top, void (*entry)()) {
    void **frame = (void **)(top - 160);
    memset(frame, 0, 160);
    frame[11] = (void *)entry; /* x30, where `ret` goes */
    return frame;
}

#endif

struct Stack {
    char *bottom, *top;
};

bool sanitized() { return __sanitizer_start_switch_fiber || __tsan_switch_to_fiber; }

/* Stacks that were used before are used again, the last one first. */
std::vector<Stack> stacks;
size_t stacks_made;

/* Makes sure of `count` stacks; false where the system gives no more. */
bool make_stacks(size_t count) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), size = sanitized() ? 256 << 10 : 128 << 10;
    while (stacks.size() < count) {
        void *const place = mmap(nullptr, size + page, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (place == MAP_FAILED) return false;
        char *const bottom = (char *)place + page;
        mprotect(place, page, PROT_NONE); /* under the stack */
        /* tops that are a power of two apart would lie in the same few sets of the caches */
        stacks.push_back({bottom, bottom + size - stacks_made++ % 29 * 128});
    }
    return true;
}

}  // namespace

#endif
