/* What a generated CUDA text needs, and how it ends. */
#ifndef GS_PERSISTENT_H
#define GS_PERSISTENT_H

#include "blocks.h"
#include "grid.h"
#include "held.h"
#include "rows.h"

/* The number of a thread in the whole grid, and how many there are. */
GS_FN long long gs_thread() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
GS_FN long long gs_threads() { return (long long)gridDim.x * blockDim.x; }

/* done[0]: how many steps were run; done[1]: 1 where a check failed, 2 where blocks did not meet. */
GS_FN void gs_finish(long long *done, long long steps) {
    if (gs_thread() == 0) done[0] = steps;
}
GS_FN void gs_unmet(long long *done) { /* the block gives up, as it waited for others in vain */
    atomicExch((unsigned long long *)(done + 1), 2ull);
}
GS_FN void gs_break(long long *done) { atomicExch((unsigned long long *)(done + 1), 1ull); }

/* For all threads of the last block that calls: 1; it sees what the others wrote before. The counter
 * is 0 when the kernel starts. */
GS_FN int gs_is_last(long long *counter) {
    __syncthreads();
    int last = 0;
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd((unsigned long long *)counter, 1ull) == gridDim.x - 1;
        __threadfence();
    }
    return __syncthreads_or(last);
}

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

GS_FN float gs_exp(float x) { return gs_exp_f32(x); }
GS_FN double gs_exp(double x) { return gs_exp_f64(x); }
GS_FN float gs_log(float x) { return gs_log_f32(x); }
GS_FN double gs_log(double x) { return gs_log_f64(x); }

/* The softmax of rows.h, and its logarithm, of COUNT elements that are a thread's own: all indices
 * are known, as registers have none. Its sums are in the same order. */
template <int COUNT, int STRIDE, class T> GS_FN T gs_own_centred_sum(T *y, bool keep) {
    T lanes[GS_LANES] = {0}, most = y[0];
    GS_UNROLL for (int i = 1; i < COUNT; i++) most = y[i * STRIDE] > most ? y[i * STRIDE] : most;
    GS_UNROLL for (int i = 0; i < COUNT; i++) {
        y[i * STRIDE] -= most;
        const T e = gs_exp(y[i * STRIDE]);
        if (keep) y[i * STRIDE] = e;
        lanes[i % GS_LANES] += e;
    }
    GS_UNROLL for (int width = GS_LANES / 2; width > 0; width /= 2)
        GS_UNROLL for (int l = 0; l < GS_LANES / 2; l++) if (l < width) lanes[l] += lanes[l + width];
    return lanes[0];
}
template <int COUNT, int STRIDE, class T> GS_FN void gs_own_softmax(T *y) {
    const T sum = gs_own_centred_sum<COUNT, STRIDE>(y, true);
    GS_UNROLL for (int i = 0; i < COUNT; i++) y[i * STRIDE] /= sum;
}
template <int COUNT, int STRIDE, class T> GS_FN void gs_own_log_softmax(T *y) {
    const T log_sum = gs_log(gs_own_centred_sum<COUNT, STRIDE>(y, false));
    GS_UNROLL for (int i = 0; i < COUNT; i++) y[i * STRIDE] -= log_sum;
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

/* rows[i] = rows[i] * size + at[i], without what was there where this is the `first` of a row's
 * positions. One below 0 counts from the end; one that is none of `size` breaks off. */
template <class T>
GS_FN void gs_grid_places(long long *rows, const T *at, long long *done, long long count,
                          long long size, long long first) {
    for (long long i = gs_thread(); i < count; i += gs_threads()) {
        const long long given = (long long)at[i], k = given < 0 ? given + size : given;
        const bool none = k < 0 || k >= size;
        if (none) gs_break(done);
        rows[i] = (first ? 0 : rows[i] * size) + (none ? 0 : k);
    }
}

/* out[i] = x[rows[i]] for i = 0 .. count - 1, rows of `wide` elements. */
template <class T>
GS_FN void gs_grid_gather(T *out, const T *x, const long long *rows, long long count,
                          long long wide) {
    for (long long k = gs_thread(); k < count * wide; k += gs_threads())
        out[k] = x[rows[k / wide] * wide + k % wide];
}

/* out[rows[i]] += y[i] for i = 0 .. count - 1. A warp has some columns of those rows that are its
 * share, of as many as a power of two says, and goes through all i: so each sum has its order. It
 * keeps what it adds to while the row is the same, and reads some of y ahead. */
template <class T>
GS_FN void gs_grid_scatter(T *out, const T *y, const long long *rows, long long count,
                           long long wide, long long shares) {
    constexpr int AHEAD = 32 / sizeof(T);
    const int lane = threadIdx.x % GS_WARP;
    const long long groups = (wide + GS_WARP - 1) / GS_WARP, warps = gs_threads() / GS_WARP;
    for (long long part = gs_thread() / GS_WARP; part < shares * groups; part += warps) {
        const long long share = part / groups, column = part % groups * GS_WARP + lane;
        const bool is_real = column < wide;
        long long held = -1;
        T sum = 0;
        for (long long first = 0; first < count; first += GS_WARP) {
            const long long row = first + lane < count ? rows[first + lane] : -1;
            const bool is_mine = row >= 0 && (row & (shares - 1)) == share;
            unsigned left = __ballot_sync(GS_ALL_LANES, is_mine);
            while (left) {
                T terms[AHEAD];
                int from[AHEAD];
                GS_UNROLL for (int a = 0; a < AHEAD; a++) {
                    from[a] = left ? __ffs((int)left) - 1 : -1;
                    left &= left - 1;
                    if (from[a] >= 0 && is_real) terms[a] = y[(first + from[a]) * wide + column];
                }
                GS_UNROLL for (int a = 0; a < AHEAD; a++) {
                    if (from[a] < 0) break;
                    const long long to = __shfl_sync(GS_ALL_LANES, row, from[a]);
                    if (to != held) {
                        if (held >= 0 && is_real) out[held * wide + column] = sum;
                        held = to;
                        if (is_real) sum = out[held * wide + column];
                    }
                    if (is_real) sum += terms[a];
                }
            }
        }
        if (held >= 0 && is_real) out[held * wide + column] = sum;
    }
}

/* The `count` elements of a view of four axes go to those of another, or (ADD) are added there: n1 ..
 * n3 are the sizes of all axes but the first, s0 .. s3 the strides of what is read, t0 .. t3 of what
 * is written, where no two elements share a place. */
template <bool ADD, class T>
GS_FN void gs_grid_elements(const T *from, T *to, long long count, long long n1, long long n2,
                            long long n3, long long s0, long long s1, long long s2, long long s3,
                            long long t0, long long t1, long long t2, long long t3) {
    for (long long i = gs_thread(); i < count; i += gs_threads()) {
        const long long row = i / n3, plane = row / n2;
        const long long i0 = plane / n1, i1 = plane % n1, i2 = row % n2, i3 = i % n3;
        const T x = from[i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3];
        T *const y = to + (i0 * t0 + i1 * t1 + i2 * t2 + i3 * t3);
        *y = ADD ? (T)(*y + x) : x;
    }
}

#endif
