// The few vector operations of linear.inl, for one instruction set.
//
// add_pairs(sum, x, w): each int32 lane gains x0*w0 + x1*w1 of its two int16 lanes, mod 2^32. |w| <= 128 and
// |x| <= 2^15, so a pair is at most 2^23 in magnitude and no step saturates.
// LOAD-BEARING: never the saturating forms (vpdpwssds, vpmaddubsw, vpdpbusds): sums must wrap.
#include <cstdint>
#include <cstring>

#if defined(SLALOM_ISA_AVX512) || defined(SLALOM_ISA_AVX2)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own AVX-512 headers (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace {

inline int32_t load_pair(const int16_t* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    return pair;
}

#if defined(SLALOM_ISA_AVX512)

using Words = __m512i;
constexpr int LANES = 16, PANEL_VECTORS = 1, TILE_ROWS = 12, TILE_PANELS = 2;

inline Words zero_words() { return _mm512_setzero_si512(); }
inline Words load_words(const int32_t* p) { return _mm512_loadu_si512(p); }
inline void store_words(int32_t* p, Words w) { _mm512_storeu_si512(p, w); }
inline Words add_words(Words a, Words b) { return _mm512_add_epi32(a, b); }
inline Words shift_half(Words a) { return _mm512_slli_epi32(a, 16); }
inline Words broadcast_pair(const int16_t* x) { return _mm512_set1_epi32(load_pair(x)); }
inline Words widen_pairs(const int8_t* w) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)));
}
inline Words add_pairs(Words sum, Words x, Words w) { return _mm512_dpwssd_epi32(sum, x, w); }

inline Words widen_bytes(const int8_t* w) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
}
inline Words add_scaled(Words sum, const int32_t* x, const int8_t* w) {
    return _mm512_add_epi32(sum, _mm512_mullo_epi32(load_words(x), widen_bytes(w)));
}
inline Words add_scaled(Words sum, const int16_t* x, const int8_t* w) {
    // x is widened with zeros: its upper int16 lane adds 0 * w1, its lower one is x itself
    const __m512i pairs = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    return _mm512_dpwssd_epi32(sum, pairs, widen_bytes(w));
}

inline void copy_halves(int16_t* out, const int16_t* in, int64_t count) {
    for (; count >= 32; count -= 32, in += 32, out += 32) _mm512_storeu_si512(out, _mm512_loadu_si512(in));
    const __mmask32 mask = (__mmask32)((1ull << count) - 1);
    _mm512_mask_storeu_epi16(out, mask, _mm512_maskz_loadu_epi16(mask, in));
}

// A 32-bit word is low + 65536 * high mod 2^32 with low = int16(word): high = (word - low) / 65536 mod 2^16.
inline void split_words(int16_t* low, int16_t* high, const int32_t* words, int64_t count) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    for (; count > 0; count -= 16, words += 16, low += 16, high += 16) {
        const __mmask16 mask = count >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << count) - 1);
        const __m512i word = _mm512_maskz_loadu_epi32(mask, words);
        _mm512_mask_cvtepi32_storeu_epi16(low, mask, word);
        _mm512_mask_cvtepi32_storeu_epi16(high, mask, _mm512_srli_epi32(_mm512_add_epi32(word, half), 16));
    }
}

#elif defined(SLALOM_ISA_AVX2)

using Words = __m256i;
constexpr int LANES = 8, PANEL_VECTORS = 2, TILE_ROWS = 6, TILE_PANELS = 1;

inline Words zero_words() { return _mm256_setzero_si256(); }
inline Words load_words(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void store_words(int32_t* p, Words w) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), w); }
inline Words add_words(Words a, Words b) { return _mm256_add_epi32(a, b); }
inline Words shift_half(Words a) { return _mm256_slli_epi32(a, 16); }
inline Words broadcast_pair(const int16_t* x) { return _mm256_set1_epi32(load_pair(x)); }
inline Words widen_pairs(const int8_t* w) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
}
inline Words add_pairs(Words sum, Words x, Words w) { return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)); }

inline Words widen_bytes(const int8_t* w) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w)));
}
inline Words add_scaled(Words sum, const int32_t* x, const int8_t* w) {
    return _mm256_add_epi32(sum, _mm256_mullo_epi32(load_words(x), widen_bytes(w)));
}
inline Words add_scaled(Words sum, const int16_t* x, const int8_t* w) {
    // x is widened with zeros: its upper int16 lane adds 0 * w1, its lower one is x itself
    const __m256i pairs = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, widen_bytes(w)));
}

#else

// GCC's and Clang's vector types: one SSE2 or NEON register, and plain code elsewhere.
typedef int32_t Words __attribute__((vector_size(16)));
typedef int16_t Halves __attribute__((vector_size(16)));
typedef int16_t FourHalves __attribute__((vector_size(8)));
typedef int8_t Bytes __attribute__((vector_size(8)));
typedef int8_t FourBytes __attribute__((vector_size(4)));
constexpr int LANES = 4, PANEL_VECTORS = 4, TILE_ROWS = 3, TILE_PANELS = 1;

template <typename Vector>
inline Vector load_vector(const void* p) {
    Vector vector;
    std::memcpy(&vector, p, sizeof vector);
    return vector;
}

inline Words zero_words() { return Words{}; }
inline Words load_words(const int32_t* p) { return load_vector<Words>(p); }
inline void store_words(int32_t* p, Words w) { std::memcpy(p, &w, sizeof w); }
inline Words add_words(Words a, Words b) { return a + b; }
inline Words shift_half(Words a) { return a << 16; }
inline Words broadcast_pair(const int16_t* x) { return Words{} + load_pair(x); }
inline Words widen_pairs(const int8_t* w) { return (Words)__builtin_convertvector(load_vector<Bytes>(w), Halves); }
inline Words add_pairs(Words sum, Words x, Words w) {
#if defined(__SSE2__)
    return sum + (Words)_mm_madd_epi16((__m128i)x, (__m128i)w);
#else
    // halves sign-extended in place: the pair's two products, order of lanes immaterial to their sum
    return sum + ((x << 16) >> 16) * ((w << 16) >> 16) + (x >> 16) * (w >> 16);
#endif
}
inline Words widen_bytes(const int8_t* w) { return __builtin_convertvector(load_vector<FourBytes>(w), Words); }
inline Words add_scaled(Words sum, const int32_t* x, const int8_t* w) { return sum + load_words(x) * widen_bytes(w); }
inline Words add_scaled(Words sum, const int16_t* x, const int8_t* w) {
    return sum + __builtin_convertvector(load_vector<FourHalves>(x), Words) * widen_bytes(w);
}

#endif

#if !defined(SLALOM_ISA_AVX512)

inline void copy_halves(int16_t* out, const int16_t* in, int64_t count) {
    std::memcpy(out, in, count * sizeof(int16_t));
}

// A 32-bit word is low + 65536 * high mod 2^32 with low = int16(word): high = (word - low) / 65536 mod 2^16.
inline void split_words(int16_t* low, int16_t* high, const int32_t* words, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t word = uint32_t(words[i]);
        low[i] = int16_t(word);
        high[i] = int16_t((word + 0x8000u) >> 16);
    }
}

#endif

}  // namespace
