/* Philox4x32-10 (Salmon et al., SC11, Random123); gpuscan/philox.py says how draws are numbered. */
#ifndef GS_PHILOX_H
#define GS_PHILOX_H
#include "maths.h"

typedef struct {
    gs_u32 x, y, z, w;
} gs_words;

/* All bits of a product, as NVRTC makes one instruction of it; of a * b, b constant, it makes two. */
GS_FN gs_u64 gs_wide_product(gs_u32 a, gs_u32 b) {
#ifdef __CUDACC__
    return (gs_u64)__umulhi(a, b) << 32 | a * b;
#else
    return (gs_u64)a * b;
#endif
}

GS_FN gs_words gs_philox4x32(gs_words c, gs_u32 key0, gs_u32 key1) {
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int i = 0; i < 10; i++) {
        gs_u64 a = gs_wide_product(c.x, 0xD2511F53u), b = gs_wide_product(c.z, 0xCD9E8D57u);
        gs_words d;
        d.x = (gs_u32)(b >> 32) ^ c.y ^ key0;
        d.y = (gs_u32)b;
        d.z = (gs_u32)(a >> 32) ^ c.w ^ key1;
        d.w = (gs_u32)a;
        c = d;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

/* The four words of block `block` (elements 4 block .. 4 block + 3) of a draw. */
GS_FN gs_words gs_random_block(gs_u32 key0, gs_u32 key1, gs_u64 draw, gs_u64 block, gs_u32 lane) {
    gs_words c;
    c.x = (gs_u32)block;
    c.y = lane + ((gs_u32)(block >> 32) << 16);
    c.z = (gs_u32)draw;
    c.w = (gs_u32)(draw >> 32);
    return gs_philox4x32(c, key0, key1);
}

GS_FN gs_u32 gs_random_word(gs_u32 key0, gs_u32 key1, gs_u64 draw, gs_u64 element, gs_u32 lane) {
    gs_words r = gs_random_block(key0, key1, draw, element >> 2, lane);
    gs_u32 low = element & 1 ? r.y : r.x, high = element & 1 ? r.w : r.z;
    return element & 2 ? high : low;
}

/* Where a draw begins whose first state[2] rows, of `row` elements each, are drawn elsewhere. */
GS_FN gs_i64 gs_first_element(const unsigned long long *state, gs_i64 row) {
    return (gs_i64)state[2] * row;
}

/* In (0, 1), both ends left out. */
GS_FN float gs_uniform_f32(gs_u32 word) {
    return (float)(gs_i32)(word >> 9) * 1.1920928955078125e-7f + 5.9604644775390625e-8f;
}

/* Words 2i and 2i + 1 of the draw: low and high. */
GS_FN double gs_uniform_f64(gs_u32 low, gs_u32 high) {
    gs_u64 r = (((gs_u64)high << 32) | low) >> 12;
    return (double)(gs_i64)r * 2.220446049250313080847e-16 + 1.110223024625156540424e-16;
}

GS_FN float gs_normal_f32(gs_u32 word) { return gs_normal_icdf_f32(gs_uniform_f32(word)); }

GS_FN double gs_normal_f64(gs_u32 low, gs_u32 high) {
    return gs_normal_icdf_f64(gs_uniform_f64(low, high));
}

#endif
