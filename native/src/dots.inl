// Dot products in F_p, p = 2^51 - 129, over one tile: 2^51 = 129 and 2^52 = 258 mod p.
//
// An element v (int32 or int16) enters as the unsigned number v + offset (offset 2^31 or 2^15), so the sum is too large
// by offset * (sum of the probe); the pass takes that off once per range.
#pragma once

#include "vectors.inl"

namespace fused {
namespace {

using Wide = unsigned __int128;

constexpr uint64_t prime = (uint64_t{1} << 51) - 129;
constexpr uint64_t low_51 = (uint64_t{1} << 51) - 1;
constexpr size_t tile_count = 1024;

inline uint64_t fold(uint64_t value) { return (value & low_51) + (value >> 51) * 129; }  // < 2^51 + 2^21

inline uint64_t subtract_once(uint64_t value) {  // value < 2p; a mask, never a branch
    const uint64_t reduced = value - prime;
    return reduced + (prime & (0 - (reduced >> 63)));
}

inline uint64_t reduce_word(uint64_t value) { return subtract_once(fold(value)); }

inline uint64_t reduce_wide(Wide value) {  // value < 2^114
    // high < 2^63 -> fold(high) < 2^52 -> * 129 < 2^60; + 2^51 < 2^64
    const uint64_t high = fold(static_cast<uint64_t>(value >> 51));
    return reduce_word(high * 129 + (static_cast<uint64_t>(value) & low_51));
}

inline uint64_t multiply_elements(uint64_t a, uint64_t b) { return reduce_wide(Wide{a} * b); }  // < 2^102
inline uint64_t add_elements(uint64_t a, uint64_t b) { return subtract_once(a + b); }           // < 2p

inline uint64_t sum_tile(const uint64_t* elements, size_t count) {
    uint64_t total = 0;  // 1024 terms < 2^51 -> < 2^61
    for (size_t i = 0; i < count; ++i) total += elements[i];
    return reduce_word(total);
}

inline uint64_t sum_elements(const uint64_t* elements, size_t count) {
    uint64_t total = 0;
    for (size_t done = 0; done < count; done += tile_count)
        total = add_elements(total, sum_tile(elements + done, count - done < tile_count ? count - done : tile_count));
    return total;
}

// The probes of one tile.
struct TileProbes {
    const uint64_t* const* arrays;
    size_t count;
};

template <class Value>
inline constexpr uint64_t offset_of = uint64_t{1} << (8 * sizeof(Value) - 1);

#if defined(SLALOM_ISA_AVX512)

// Eight elements as unsigned 64-bit lanes.
inline __m512i widen(const int32_t* v) {
    return _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(v))),
                            _mm512_set1_epi64(int64_t{1} << 31));
}
inline __m512i widen(const int16_t* v) {
    return _mm512_add_epi64(_mm512_cvtepi16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(v))),
                            _mm512_set1_epi64(int64_t{1} << 15));
}

// Sums of the low and the high 52 bits of the products, in eight lanes.
struct Lanes {
    // low: up to 128 terms < 2^52 -> < 2^59; high: up to 128 terms < 2^32 -> < 2^39
    __m512i low = _mm512_setzero_si512(), high = _mm512_setzero_si512();

    void add(__m512i word, __m512i probe) {
        low = _mm512_madd52lo_epu64(low, word, probe);
        high = _mm512_madd52hi_epu64(high, word, probe);
    }

    void join(const Lanes& other) {
        low = _mm512_add_epi64(low, other.low);
        high = _mm512_add_epi64(high, other.high);
    }

    // The same sum in lanes < 2^51 + 2^16 + 2^48, of up to 128 terms each.
    __m512i fold() const {
        const __m512i carry = _mm512_srli_epi64(low, 51);  // < 2^8, weighs 129
        __m512i lanes = _mm512_and_si512(low, _mm512_set1_epi64(low_51));
        lanes = _mm512_add_epi64(lanes, _mm512_add_epi64(carry, _mm512_slli_epi64(carry, 7)));
        return _mm512_add_epi64(lanes, _mm512_add_epi64(_mm512_slli_epi64(high, 1), _mm512_slli_epi64(high, 8)));
    }

    uint64_t reduce() const { return reduce_word(static_cast<uint64_t>(_mm512_reduce_add_epi64(fold()))); }  // < 2^55
};

// Both multiply-adds use the loaded register: GCC would rather load twice, and the loop is bound by loads.
inline __m512i load(const uint64_t* s) {
    __m512i probe = _mm512_loadu_si512(s);
    asm("" : "+v"(probe));
    return probe;
}

// The first `left` <= 8 elements and zeros.
inline __m512i load_part(const uint64_t* s, size_t left) {
    return _mm512_maskz_loadu_epi64(static_cast<__mmask8>((1u << left) - 1), s);
}

// A multiply-add takes 4 cycles and two start in one: eight sums are kept going, here and in dot_two.
template <class Value>
inline uint64_t dot_one(const Value* v, const uint64_t* s, size_t count, const int32_t* ahead) {
    Lanes a, b, c, d;
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        fetch(ahead + i);
        fetch(ahead + i + 16);
        a.add(widen(v + i), load(s + i));
        b.add(widen(v + i + 8), load(s + i + 8));
        c.add(widen(v + i + 16), load(s + i + 16));
        d.add(widen(v + i + 24), load(s + i + 24));
    }
    for (; i + 8 <= count; i += 8) a.add(widen(v + i), load(s + i));
    if (i < count) b.add(widen(v + i), load_part(s + i, count - i));  // v is a tile with room for whole vectors
    a.join(b);
    c.join(d);
    a.join(c);
    return a.reduce();
}

template <class Value>
inline void dot_two(const Value* v, const uint64_t* const* probes, size_t count, uint64_t* dots, const int32_t* ahead) {
    const uint64_t *s = probes[0], *t = probes[1];
    Lanes s_even, s_odd, t_even, t_odd;
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        fetch(ahead + i);
        const __m512i even = widen(v + i), odd = widen(v + i + 8);
        s_even.add(even, load(s + i));
        t_even.add(even, load(t + i));
        s_odd.add(odd, load(s + i + 8));
        t_odd.add(odd, load(t + i + 8));
    }
    for (; i < count; i += 8) {
        const size_t left = count - i < 8 ? count - i : 8;
        s_even.add(widen(v + i), load_part(s + i, left));
        t_even.add(widen(v + i), load_part(t + i, left));
    }
    s_even.join(s_odd);
    t_even.join(t_odd);
    dots[0] = add_elements(dots[0], s_even.reduce());
    dots[1] = add_elements(dots[1], t_even.reduce());
}

// dots[k] += <v, arrays[k]>; meanwhile asks for the lines of ahead[0..count-1].
template <class Value>
inline void dot_tile(const Value* v, size_t count, TileProbes probes, uint64_t* dots, const int32_t* ahead) {
    const uint64_t* const* s = probes.arrays;
    size_t k = 0;
    for (; k + 2 <= probes.count; k += 2) dot_two(v, s + k, count, dots + k, ahead);
    if (k < probes.count) dots[k] = add_elements(dots[k], dot_one(v, s[k], count, ahead));
}

#elif defined(SLALOM_ISA_AVX2)

inline __m256i widen(const int32_t* v) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(v));
    return _mm256_cvtepu32_epi64(_mm_xor_si128(words, _mm_set1_epi32(INT32_MIN)));
}
inline __m256i widen(const int16_t* v) {
    const __m128i words = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(v));
    return _mm256_cvtepu16_epi64(_mm_xor_si128(words, _mm_set1_epi16(INT16_MIN)));
}

inline __m256i fold_lanes(__m256i lanes) {  // any lanes -> < 2^51 + 2^21
    const __m256i carry = _mm256_srli_epi64(lanes, 51);
    const __m256i rest = _mm256_and_si256(lanes, _mm256_set1_epi64x(low_51));
    return _mm256_add_epi64(rest, _mm256_add_epi64(carry, _mm256_slli_epi64(carry, 7)));
}

inline uint64_t sum_lanes(__m256i lanes) {
    alignas(32) uint64_t parts[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(parts), lanes);
    return parts[0] + parts[1] + parts[2] + parts[3];
}

template <class Value>
inline uint64_t dot_one(const Value* v, const uint64_t* s, size_t count) {
    constexpr size_t flush_count = 256;  // 64 turns of 4 elements
    const __m256i low_26 = _mm256_set1_epi64x((int64_t{1} << 26) - 1);
    __m256i low_total = _mm256_setzero_si256(), high_total = low_total;
    size_t i = 0;
    const size_t whole = count & ~size_t{3};
    while (i < whole) {
        const size_t stop = i + flush_count < whole ? i + flush_count : whole;
        __m256i low = _mm256_setzero_si256(), high = low;
        for (; i < stop; i += 4) {
            const __m256i word = widen(v + i);
            const __m256i probe = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(s + i));
            // word < 2^32, planes < 2^26 and < 2^25 -> products < 2^58; 64 terms < 2^64
            low = _mm256_add_epi64(low, _mm256_mul_epu32(word, _mm256_and_si256(probe, low_26)));
            high = _mm256_add_epi64(high, _mm256_mul_epu32(word, _mm256_srli_epi64(probe, 26)));
        }
        low_total = _mm256_add_epi64(low_total, fold_lanes(low));  // 4 flushes a tile -> < 2^54
        high_total = _mm256_add_epi64(high_total, fold_lanes(high));
    }
    Wide total = Wide{sum_lanes(low_total)} + (Wide{sum_lanes(high_total)} << 26);  // < 2^56 + 2^82
    for (; i < count; ++i) total += Wide{static_cast<uint64_t>(v[i]) + offset_of<Value>} * s[i];  // 3 terms < 2^83
    return reduce_wide(total);
}

#else

template <class Value>
inline uint64_t dot_one(const Value* v, const uint64_t* s, size_t count) {
    Wide total = 0;  // 1024 terms < 2^83 -> < 2^93
    for (size_t i = 0; i < count; ++i) total += Wide{static_cast<uint64_t>(v[i]) + offset_of<Value>} * s[i];
    return reduce_wide(total);
}

#endif

#if !defined(SLALOM_ISA_AVX512)
template <class Value>
inline void dot_tile(const Value* v, size_t count, TileProbes probes, uint64_t* dots, const int32_t*) {
    for (size_t k = 0; k < probes.count; ++k) dots[k] = add_elements(dots[k], dot_one(v, probes.arrays[k], count));
}
#endif

}  // namespace
}  // namespace fused
