/* What all threads of a warp, or of a block, have each a value of, as one: sums and the like.
 *
 * Every thread of the block calls; the block is one-dimensional and of whole warps. The order is
 * that of a tree, so the bits are the same every time and in every lane. */
#ifndef GS_FOLDS_H
#define GS_FOLDS_H

#include "device.h"
#include "scalars.h"

struct gs_sum {
    template <class T> GS_MEMBER T operator()(T a, T b) const { return (T)(a + b); }
};
struct gs_prod {
    template <class T> GS_MEMBER T operator()(T a, T b) const { return (T)(a * b); }
};
struct gs_max { /* as gs_max_f32 */
    template <class T> GS_MEMBER T operator()(T a, T b) const { return a <= b || b != b ? b : a; }
};
struct gs_min {
    template <class T> GS_MEMBER T operator()(T a, T b) const { return a >= b || b != b ? b : a; }
};
struct gs_any {
    template <class T> GS_MEMBER T operator()(T a, T b) const { return (T)(a || b); }
};
struct gs_all {
    template <class T> GS_MEMBER T operator()(T a, T b) const { return (T)(a && b); }
};

/* With the lane whose number differs by `apart`, a power of two. */
template <class Op, class T> GS_FN T gs_lane_fold(T x, Op op, gs_u32 apart) {
    const T y = (T)__shfl_xor_sync(GS_ALL_LANES, x, (int)apart);
    return threadIdx.x & apart ? op(y, x) : op(x, y); /* the lower lane's first */
}

template <class Op, class T> GS_FN T gs_warp_fold(T x, Op op) {
    GS_UNROLL for (gs_u32 apart = GS_WARP / 2; apart >= 1; apart /= 2)
        x = gs_lane_fold(x, op, apart);
    return x;
}

/* `partial`: an element a warp, in shared memory. */
template <class Op, class T> GS_FN T gs_block_fold(T x, Op op, T *partial) {
    const gs_u32 warps = blockDim.x / GS_WARP;
    x = gs_warp_fold(x, op);
    if (threadIdx.x % GS_WARP == 0) partial[threadIdx.x / GS_WARP] = x;
    __syncthreads();
    T all = partial[0];
    for (gs_u32 w = 1; w < warps; w++) all = op(all, partial[w]);
    __syncthreads(); /* partial may be used again */
    return all;
}

#define GS_FOLD(type, t, name)                                                            \
    GS_FN type gs_warp_##name##_##t(type x) { return gs_warp_fold(x, gs_##name()); }      \
    GS_FN type gs_block_##name##_##t(type x, type *partial) {                             \
        return gs_block_fold(x, gs_##name(), partial);                                    \
    }
#define GS_FOLDS(type, t)                                                                 \
    GS_FOLD(type, t, sum) GS_FOLD(type, t, prod) GS_FOLD(type, t, max)                    \
    GS_FOLD(type, t, min) GS_FOLD(type, t, any) GS_FOLD(type, t, all)
GS_FLOATS(GS_FOLDS)
GS_INTEGERS(GS_FOLDS)
GS_FOLDS(unsigned char, b8)

#endif
