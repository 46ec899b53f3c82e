/* Draws for a block's threads, for one thread's own registers, and for a whole grid.
 *
 * Of the gs_uniform_rows_* and gs_uniforms_* names and arguments are those of draws.h, so that one
 * kernel calls either: every thread of the block calls with the same arguments, and what they wrote
 * may be read behind a barrier, which is the caller's. */
#ifndef GS_BLOCK_DRAWS_H
#define GS_BLOCK_DRAWS_H

#include "persistent.h"
#include "philox.h"
#include "scalars.h"

GS_FN void gs_uniforms_of(gs_words w, float (&u)[4]) {
    u[0] = gs_uniform_f32(w.x), u[1] = gs_uniform_f32(w.y);
    u[2] = gs_uniform_f32(w.z), u[3] = gs_uniform_f32(w.w);
}
GS_FN void gs_uniforms_of(gs_words w, double (&u)[2]) {
    u[0] = gs_uniform_f64(w.x, w.y), u[1] = gs_uniform_f64(w.z, w.w);
}

/* Elements first + r * apart .. first + r * apart + count - 1 of a draw with rows of `row`
 * elements, of `rows` rows r, to out[r * stride]; a thread takes the words of one counter. */
template <class T>
GS_FN void gs_uniform_rows(const unsigned long long *state, long long row, long long first,
                           long long rows, long long apart, long long count, T *out,
                           long long stride) {
    constexpr int N = gs_vector<T>::size; /* elements of a counter */
    const gs_u32 key0 = (gs_u32)state[0], key1 = (gs_u32)(state[0] >> 32);
    const long long counters = (count + N - 2) / N + 1; /* of a row, at most */
    first += gs_first_element(state, row);
    for (long long i = threadIdx.x; i < rows * counters; i += blockDim.x) {
        const long long r = i / counters, begin = first + r * apart;
        const long long counter = begin / N + i % counters;
        T u[N];
        gs_uniforms_of(gs_random_block(key0, key1, state[1], (gs_u64)counter, 0), u);
        GS_UNROLL for (int k = 0; k < N; k++) {
            const long long element = counter * N + k - begin;
            if (element >= 0 && element < count) out[r * stride + element] = u[k];
        }
    }
}

#define GS_DRAWS(type, t)                                                                 \
    GS_APART void gs_uniform_rows_##t(const unsigned long long *state, long long row,     \
                                      long long first, long long rows, long long apart,   \
                                      long long count, type *out, long long stride) {     \
        gs_uniform_rows(state, row, first, rows, apart, count, out, stride);              \
    }                                                                                     \
    GS_APART void gs_uniforms_##t(const unsigned long long *state, long long row,         \
                                  long long first, long long count, type *out) {          \
        gs_uniform_rows(state, row, first, 1, 0, count, out, 0);                          \
    }
GS_FLOATS(GS_DRAWS)

GS_FN void gs_uniform_of(const gs_u32 *words, float *out) { *out = gs_uniform_f32(words[0]); }
GS_FN void gs_uniform_of(const gs_u32 *words, double *out) {
    *out = gs_uniform_f64(words[0], words[1]);
}

/* Elements first .. first + COUNT - 1 of a draw with rows of `row` elements, for one thread: the
 * words of the blocks they are in, moved to the front by selects, since registers have no index. */
template <int COUNT, class T>
GS_FN void gs_own_uniforms(const unsigned long long *state, long long row, long long first,
                           T *out) {
    constexpr int EACH = sizeof(T) / sizeof(gs_u32); /* words of an element */
    constexpr int WORDS = (COUNT * EACH + (4 - EACH) + 3) / 4 * 4;
    const gs_u32 key0 = (gs_u32)state[0], key1 = (gs_u32)(state[0] >> 32);
    const gs_u64 at = (gs_u64)(first + gs_first_element(state, row)) * EACH;
    gs_u32 w[WORDS];
    GS_UNROLL for (int i = 0; i < WORDS; i += 4) {
        const gs_words b = gs_random_block(key0, key1, state[1], at / 4 + i / 4, 0);
        w[i] = b.x, w[i + 1] = b.y, w[i + 2] = b.z, w[i + 3] = b.w;
    }
    GS_UNROLL for (int i = 0; i < WORDS - 1; i++) w[i] = at & 1 ? w[i + 1] : w[i];
    GS_UNROLL for (int i = 0; i < WORDS - 2; i++) w[i] = at & 2 ? w[i + 2] : w[i];
    GS_UNROLL for (int i = 0; i < COUNT; i++) gs_uniform_of(w + i * EACH, out + i);
}

/* The first `count` elements of a draw with rows of `row` elements, by the whole grid's threads. */
template <class T>
GS_FN void gs_grid_uniforms(const unsigned long long *state, long long row, T *out,
                            long long count) {
    constexpr int N = gs_vector<T>::size; /* elements of a counter */
    const gs_u32 key0 = (gs_u32)state[0], key1 = (gs_u32)(state[0] >> 32);
    const long long first = gs_first_element(state, row), skip = first % N;
    for (long long c = gs_thread(); c * N < count + skip; c += gs_threads()) {
        T u[N];
        gs_uniforms_of(gs_random_block(key0, key1, state[1], (gs_u64)(first / N + c), 0), u);
        for (int k = 0; k < N; k++) {
            const long long element = c * N + k - skip;
            if (element >= 0 && element < count) out[element] = u[k];
        }
    }
}

#endif
