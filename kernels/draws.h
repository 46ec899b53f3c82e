/* Draws of whole operands, on the host. */
#ifndef GS_DRAWS_H
#define GS_DRAWS_H

#include "philox.h"

/* Elements first .. first + count - 1 of a draw with rows of `row` elements. */
static __attribute__((noinline, unused)) void gs_uniforms_f32(
    const unsigned long long *state, long long row, long long first, long long count, float *out) {
    const gs_u32 key0 = (gs_u32)state[0], key1 = (gs_u32)(state[0] >> 32);
    first += gs_first_element(state, row);
    const gs_u64 draw = state[1];
    long long i = 0;
    for (; i < count && (first + i) % 4; i++)
        out[i] = gs_uniform_f32(gs_random_word(key0, key1, draw, (gs_u64)(first + i), 0));
    const gs_u64 block = (gs_u64)(first + i) / 4;
    const long long blocks = (count - i) / 4;
    float *const whole = out + i;
#pragma GCC ivdep
    for (long long b = 0; b < blocks; b++) {
        gs_words w = gs_random_block(key0, key1, draw, block + (gs_u64)b, 0);
        whole[4 * b] = gs_uniform_f32(w.x);
        whole[4 * b + 1] = gs_uniform_f32(w.y);
        whole[4 * b + 2] = gs_uniform_f32(w.z);
        whole[4 * b + 3] = gs_uniform_f32(w.w);
    }
    for (i += 4 * blocks; i < count; i++)
        out[i] = gs_uniform_f32(gs_random_word(key0, key1, draw, (gs_u64)(first + i), 0));
}

static __attribute__((noinline, unused)) void gs_uniforms_f64(
    const unsigned long long *state, long long row, long long first, long long count, double *out) {
    const gs_u32 key0 = (gs_u32)state[0], key1 = (gs_u32)(state[0] >> 32);
    first += gs_first_element(state, row);
    const gs_u64 draw = state[1];
#pragma GCC ivdep
    for (long long i = 0; i < count; i++) {
        const gs_u64 element = (gs_u64)(first + i);
        gs_words w = gs_random_block(key0, key1, draw, element / 2, 0);
        out[i] = element % 2 ? gs_uniform_f64(w.z, w.w) : gs_uniform_f64(w.x, w.y);
    }
}

/* The same of `rows` rows, which are `apart` in the draw and `stride` in memory. */
#define GS_UNIFORM_ROWS(type, t)                                                          \
    static inline __attribute__((unused)) void gs_uniform_rows_##t(                       \
        const unsigned long long *state, long long row, long long first, long long rows,  \
        long long apart, long long count, type *out, long long stride) {                  \
        if (count == apart && stride == apart) {                                          \
            gs_uniforms_##t(state, row, first, rows * count, out);                        \
            return;                                                                       \
        }                                                                                 \
        for (long long r = 0; r < rows; r++)                                              \
            gs_uniforms_##t(state, row, first + r * apart, count, out + r * stride);      \
    }
GS_UNIFORM_ROWS(float, f32)
GS_UNIFORM_ROWS(double, f64)

#endif
