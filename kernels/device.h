/* The first include of every CUDA text, for NVRTC, nvcc, and a host's C++ compiler that emulates.
 *
 * A kernel has one array of shared memory, which GS_SHARED(name) declares; how many bytes it has
 * the launch says, and what lies where in it the kernel's text. */
#ifndef GS_DEVICE_H
#define GS_DEVICE_H

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define GS_DEVICE 1 /* compiled for a device */
#define GS_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define GS_MEMBER __device__ __forceinline__ /* a function of a class */
#define GS_FMA_f32(x, y, z) __fmaf_rn(x, y, z)
#define GS_FMA_f64(x, y, z) __fma_rn(x, y, z)
#define GS_UNROLL _Pragma("unroll")
#define GS_ROLLED _Pragma("unroll 1")
#else
#include "emulated.h"
#define GS_DEVICE 0
#define GS_MEMBER inline __attribute__((always_inline))
#define GS_FMA_f32(x, y, z) __builtin_fmaf(x, y, z)
#define GS_FMA_f64(x, y, z) __builtin_fma(x, y, z)
#define GS_UNROLL /* arrays need no constant index here, and unrolled they take long to compile */
#define GS_ROLLED _Pragma("GCC unroll 1")
#endif

#include "portable.h"

#define GS_WARP 32
#define GS_ALL_LANES 0xffffffffu

/* C's word is dropped: a device would read what is const and restrict through a cache that does
 * not see what another block wrote. */
#define restrict

GS_FN float gs_fma(float x, float y, float z) { return GS_FMA_f32(x, y, z); }
GS_FN double gs_fma(double x, double y, double z) { return GS_FMA_f64(x, y, z); }

/* Sixteen bytes of a float type, read or written at once. */
template <class T> struct alignas(16) gs_vector {
    static constexpr int size = 16 / sizeof(T);
    T at[size];
};

GS_FN bool gs_is_vector(const void *p) { return ((gs_u64)p & 15) == 0; }

template <class T> GS_FN gs_vector<T> gs_vector_at(const T *p) {
    return *(const gs_vector<T> *)p;
}

#endif
