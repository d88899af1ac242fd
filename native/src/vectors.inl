// One vector of the instruction set: float32, int32 and int16 of the same number of lanes, as GCC and Clang vectors.
//
// LOAD-BEARING: the epilogue is written on vectors, not left to the loop vectoriser. That one turns clamps into
// discarded branches of its own, whose subnormal intermediates make the time depend on the data.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SSE__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own headers (bug 105593)
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace fused {
namespace {

#if defined(SLALOM_ISA_AVX512)
constexpr size_t lanes = 16;
#elif defined(SLALOM_ISA_AVX2)
constexpr size_t lanes = 8;
#else
constexpr size_t lanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * lanes)));
typedef int32_t Words __attribute__((vector_size(4 * lanes)));
typedef int16_t Shorts __attribute__((vector_size(2 * lanes)));

#define SLALOM_INLINE inline __attribute__((always_inline))

template <class Vector, class Element>
SLALOM_INLINE Vector load_vector(const Element* from) {
    Vector vector;
    __builtin_memcpy(&vector, from, sizeof vector);
    return vector;
}

template <class Vector, class Element>
SLALOM_INLINE void store_vector(Element* to, Vector vector) {
    __builtin_memcpy(to, &vector, sizeof vector);
}

// Stores past the caches, to an address that is a multiple of the vector's size.
// LOAD-BEARING: finish_stream() must follow, or another core or the device may see these words late.
#if defined(SLALOM_ISA_AVX512)
SLALOM_INLINE void stream_vector(int32_t* to, Words v) { _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)v); }
#elif defined(SLALOM_ISA_AVX2)
SLALOM_INLINE void stream_vector(int32_t* to, Words v) { _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)v); }
#elif defined(__SSE2__)
SLALOM_INLINE void stream_vector(int32_t* to, Words v) { _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)v); }
#else
SLALOM_INLINE void stream_vector(int32_t* to, Words v) { store_vector(to, v); }
#endif

// A line of 64 bytes, from one address that begins a line to another, past the caches.
SLALOM_INLINE void stream_line(void* to, const void* from) {
#if defined(__SSE2__)
    for (int part = 0; part < 4; ++part)
        _mm_stream_si128(static_cast<__m128i*>(to) + part, _mm_load_si128(static_cast<const __m128i*>(from) + part));
#else
    __builtin_memcpy(to, from, 64);
#endif
}

SLALOM_INLINE void finish_stream() {
#if defined(__SSE__)
    _mm_sfence();
#endif
}

// Asks for the cache line of an address, to read or to write it soon. Any address may be asked for.
SLALOM_INLINE void fetch(const void* line) { __builtin_prefetch(line, 0, 3); }
SLALOM_INLINE void fetch_to_write(const void* line) { __builtin_prefetch(line, 1, 3); }

SLALOM_INLINE Floats splat(float v) { return v - Floats{}; }
SLALOM_INLINE Floats to_floats(Words v) { return __builtin_convertvector(v, Floats); }
SLALOM_INLINE Words to_words(Shorts v) { return __builtin_convertvector(v, Words); }
SLALOM_INLINE Shorts to_shorts(Words v) { return __builtin_convertvector(v, Shorts); }

// An integer of three bytes, and a vector of them. Each byte is read once, and none beyond the last.
SLALOM_INLINE int32_t unpack_word(const uint8_t* from) {
    const uint32_t bytes = uint32_t{from[0]} << 8 | uint32_t{from[1]} << 16 | uint32_t{from[2]} << 24;
    return static_cast<int32_t>(bytes) >> 8;  // arithmetic: the sign comes along
}

SLALOM_INLINE Words unpack_vector(const uint8_t* from) {
#if defined(SLALOM_ISA_AVX512)
    // twelve bytes to each quarter, then each three of them above a byte of nothing, then down with the sign
    const __m512i bytes = _mm512_maskz_loadu_epi32(0x0FFF, from);
    const __m512i quarters = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11), bytes);
    const __m512i above = _mm512_broadcast_i32x4(
        _mm_setr_epi8(-1, 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11));
    return (Words)_mm512_srai_epi32(_mm512_shuffle_epi8(quarters, above), 8);
#else
    Words vector;
    for (size_t lane = 0; lane < lanes; ++lane) vector[lane] = unpack_word(from + 3 * lane);
    return vector;
#endif
}

// v < limit ? v : limit, and v > limit ? v : limit: what the x86 instructions do, for NaN and zeros too.
#if defined(SLALOM_ISA_AVX512)
SLALOM_INLINE Floats minimum(Floats v, Floats limit) { return (Floats)_mm512_min_ps((__m512)v, (__m512)limit); }
SLALOM_INLINE Floats maximum(Floats v, Floats limit) { return (Floats)_mm512_max_ps((__m512)v, (__m512)limit); }
#elif defined(SLALOM_ISA_AVX2)
SLALOM_INLINE Floats minimum(Floats v, Floats limit) { return (Floats)_mm256_min_ps((__m256)v, (__m256)limit); }
SLALOM_INLINE Floats maximum(Floats v, Floats limit) { return (Floats)_mm256_max_ps((__m256)v, (__m256)limit); }
#elif defined(__SSE__)
SLALOM_INLINE Floats minimum(Floats v, Floats limit) { return (Floats)_mm_min_ps((__m128)v, (__m128)limit); }
SLALOM_INLINE Floats maximum(Floats v, Floats limit) { return (Floats)_mm_max_ps((__m128)v, (__m128)limit); }
#else
SLALOM_INLINE Floats minimum(Floats v, Floats limit) { return v < limit ? v : limit; }
SLALOM_INLINE Floats maximum(Floats v, Floats limit) { return v > limit ? v : limit; }
#endif

SLALOM_INLINE Floats select(Words condition, Floats yes, Floats no) { return condition ? yes : no; }
SLALOM_INLINE Floats magnitude(Floats v) { return (Floats)((Words)v & 0x7FFFFFFF); }

// Round to nearest even, no flushing of subnormals, no traps: whatever the caller's thread had, and back to it.
class FloatGuard {
public:
#if defined(__SSE__)
    FloatGuard() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
    ~FloatGuard() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#elif defined(__aarch64__)
    FloatGuard() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" ::"r"(uint64_t{0}) : "memory");
    }
    ~FloatGuard() { asm volatile("msr fpcr, %0" ::"r"(saved_) : "memory"); }

private:
    uint64_t saved_;
#endif
};

}  // namespace
}  // namespace fused
