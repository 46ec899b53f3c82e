/* Floats of 16 bits and products of matrices by a warp, as cuda_fp16.h, cuda_bf16.h and mma.h name
 * them. The elements of a matrix are spread over the lanes otherwise than on any device: which
 * are whose is nothing that a kernel may know. */
#ifndef GS_EMULATED_WMMA_H
#define GS_EMULATED_WMMA_H

#include "emulated.h"

struct __half {
    unsigned short bits;
};
struct __nv_bfloat16 {
    unsigned short bits;
};
typedef __half half;
typedef __nv_bfloat16 nv_bfloat16;

/* to the nearest, ties to even */
EMULATED __half __float2half_rn(float x) {
    const unsigned u = __float_as_uint(x), size = u & 0x7fffffffu;
    unsigned h;
    if (size > 0x7f800000u) return {0x7fff};
    if (size >= 0x477ff000u) h = 0x7c00; /* from 65520 on */
    else if (size < 0x38800000u) /* a multiple of 2^-24, which is what 0.5f adds up in */
        h = __float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u;
    else h = (size + 0xfffu + (size >> 13 & 1) - 0x38000000u) >> 13;
    return {(unsigned short)(h | (u >> 16 & 0x8000u))};
}
EMULATED float __half2float(__half x) {
    const unsigned sign = (x.bits & 0x8000u) << 16, size = x.bits & 0x7fffu;
    float y;
    if (size < 0x400) y = (float)size * 5.9604644775390625e-8f;
    else y = __uint_as_float((size << 13) + (size < 0x7c00 ? 0x38000000u : 0x70000000u));
    return __uint_as_float(__float_as_uint(y) | sign);
}
EMULATED __nv_bfloat16 __float2bfloat16_rn(float x) {
    const unsigned u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {(unsigned short)((u + 0x7fffu + (u >> 16 & 1)) >> 16)};
}
EMULATED float __bfloat162float(__nv_bfloat16 x) {
    return __uint_as_float((unsigned)x.bits << 16);
}
EMULATED __half __float2half(float x) { return __float2half_rn(x); }
EMULATED __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }

namespace nvcuda {
namespace wmma {

struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32;
}

/* To the nearest of 10 bits, ties away from zero. */
EMULATED float __float_to_tf32(float x) {
    const unsigned u = __float_as_uint(x);
    return (u & 0x7f800000u) == 0x7f800000u ? x : __uint_as_float((u + 0x1000u) & ~0x1fffu);
}

}  // namespace wmma
}  // namespace nvcuda

namespace emulated {

/* Which floats a product is of: a device reads no more of a tf32 than these bits. */
EMULATED float factor(__half x) { return __half2float(x); }
EMULATED float factor(__nv_bfloat16 x) { return __bfloat162float(x); }
EMULATED float factor(float x) { return __uint_as_float(__float_as_uint(x) & ~0x1fffu); }

template <class T> struct Stored {
    typedef T type;
};
template <> struct Stored<nvcuda::wmma::precision::tf32> {
    typedef float type;
};

/* Rows and columns of what a fragment holds. */
template <class Use, int M, int N, int K> struct Extent;
template <int M, int N, int K> struct Extent<nvcuda::wmma::matrix_a, M, N, K> {
    static constexpr int rows = M, columns = K;
};
template <int M, int N, int K> struct Extent<nvcuda::wmma::matrix_b, M, N, K> {
    static constexpr int rows = K, columns = N;
};
template <int M, int N, int K> struct Extent<nvcuda::wmma::accumulator, M, N, K> {
    static constexpr int rows = M, columns = N;
};

template <class T, int M, int N, int K> constexpr bool has_shape() {
    if (sizeof(T) == 4) return M == 16 && N == 16 && K == 8;
    return K == 16 && ((M == 16 && N == 16) || (M == 32 && N == 8) || (M == 8 && N == 32));
}

template <class F, class S> EMULATED void load(F &f, const S *p, unsigned stride, bool by_columns) {
    for (int i = 0; i < F::num_elements; i++) {
        const int e = element((int)machine->here->lane, i, F::rows * F::columns);
        const long long row = e / F::columns, column = e % F::columns;
        f.x[i] = p[by_columns ? column * stride + row : row * stride + column];
    }
}

template <class T> EMULATED void check(const T *p, unsigned stride, Spot spot) {
    if ((unsigned long long)p % 32) machine->fail("a matrix that is not on 32 bytes", spot);
    if (stride * sizeof(T) % 16)
        machine->fail("a matrix whose rows are not a multiple of 16 bytes apart", spot);
}

}  // namespace emulated

namespace nvcuda {
namespace wmma {

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment : emulated::Extent<Use, M, N, K> {
    typedef emulated::Extent<Use, M, N, K> Extent;
    typedef typename emulated::Stored<T>::type element_type, storage_element_type;
    static constexpr int num_elements = Extent::rows * Extent::columns / 32;
    element_type x[num_elements];
};

template <class Use, int M, int N, int K, class T, class L, class S>
EMULATED void fill_fragment(fragment<Use, M, N, K, T, L> &f, const S &value) {
    for (auto &x : f.x) x = value;
}

template <class Use, int M, int N, int K, class T, class L>
EMULATED void load_matrix_sync(fragment<Use, M, N, K, T, L> &f,
                               const typename emulated::Stored<T>::type *p, unsigned stride,
                               EMULATED_SPOT) {
    emulated::check(p, stride, spot);
    emulated::machine->meet_warp(0xffffffffu, "load_matrix_sync", false, spot);
    emulated::load(f, p, stride, __is_same(L, col_major));
}

template <int M, int N, int K, class T>
EMULATED void load_matrix_sync(fragment<accumulator, M, N, K, T> &f, const T *p, unsigned stride,
                               layout_t layout, EMULATED_SPOT) {
    emulated::check(p, stride, spot);
    emulated::machine->meet_warp(0xffffffffu, "load_matrix_sync", false, spot);
    emulated::load(f, p, stride, layout == mem_col_major);
}

template <int M, int N, int K, class T>
EMULATED void store_matrix_sync(T *p, const fragment<accumulator, M, N, K, T> &f, unsigned stride,
                                layout_t layout, EMULATED_SPOT) {
    emulated::check(p, stride, spot);
    for (int i = 0; i < f.num_elements; i++) {
        const int e = emulated::element((int)emulated::machine->here->lane, i, M * N);
        const long long row = e / N, column = e % N;
        p[layout == mem_col_major ? column * stride + row : row * stride + column] = f.x[i];
    }
    emulated::machine->meet_warp(0xffffffffu, "store_matrix_sync", false, spot);
}

template <int M, int N, int K, class T, class A, class B>
EMULATED void mma_sync(fragment<accumulator, M, N, K, float> &d,
                       const fragment<matrix_a, M, N, K, T, A> &a,
                       const fragment<matrix_b, M, N, K, T, B> &b,
                       const fragment<accumulator, M, N, K, float> &c, EMULATED_SPOT) {
    static_assert(emulated::has_shape<typename emulated::Stored<T>::type, M, N, K>());
    float of_a[a.num_elements], of_b[b.num_elements];
    for (int i = 0; i < a.num_elements; i++) of_a[i] = emulated::factor(a.x[i]);
    for (int i = 0; i < b.num_elements; i++) of_b[i] = emulated::factor(b.x[i]);
    d = c;
    emulated::Product product = {M, N, K, of_a, of_b, d.x};
    emulated::machine->multiply(&product, spot);
}

}  // namespace wmma
}  // namespace nvcuda

#endif
