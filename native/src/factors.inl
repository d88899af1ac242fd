// What the merged loops make of a tile's probes once for all items of a batch, and the sums that they keep for each.
// AVX-512 only.
#pragma once

#include "dots.inl"

namespace fused {
namespace {

#if defined(SLALOM_ISA_AVX512)

constexpr float largest_activation = 16383.0f;  // 15 bits, the widest that a plan has
constexpr int digit_count = 4, digit_bits = 13;
constexpr size_t pair = 2 * lanes;  // elements that are done together

struct TileFactors {
    alignas(64) uint64_t source[tile_count];               // of each sixteen the even ones, then the odd ones
    alignas(64) int16_t digits[tile_count * digit_count];  // of each pair of vectors: its digits, the lowest first

    TileFactors() = default;
    TileFactors(const TileFactors&) = delete;
    TileFactors& operator=(const TileFactors&) = delete;

    // LOAD-BEARING: probes are secrets, and a stack is nobody's; the barrier keeps the compiler from leaving it out.
    ~TileFactors() {
        __builtin_memset(source, 0, sizeof source);
        __builtin_memset(digits, 0, sizeof digits);
        asm volatile("" : : "r"(source), "r"(digits) : "memory");
    }

    static void sort_source(const uint64_t* probe, size_t count, uint64_t* to) {
        const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
        const __m512i odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
        for (size_t i = 0; i < count; i += lanes) {
            const __m512i low = _mm512_loadu_si512(probe + i), high = _mm512_loadu_si512(probe + i + 8);
            _mm512_store_si512(to + i, _mm512_permutex2var_epi64(low, even, high));
            _mm512_store_si512(to + i + 8, _mm512_permutex2var_epi64(low, odd, high));
        }
    }

    // t = sum of digit d times 2^13d, |digit| <= 2^12. Lane k of a vector of digits is elements k and 16 + k of the
    // pair, as interleave gives them.
    void split_image(const uint64_t* image, size_t count) {
        for (size_t i = 0; i < count; i += pair) {
            // from 16 elements, those whose digits the unpacking below brings in order
            const __m512i first = _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13);
            const __m512i second = _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15);
            const __m512i a = digits_of(image + i, first), b = digits_of(image + i, second);
            const __m512i c = digits_of(image + i + lanes, first), d = digits_of(image + i + lanes, second);
            // each quarter: one digit after another of element k, with that of element 16 + k beside it
            const __m512i ac0 = _mm512_unpacklo_epi16(a, c), ac1 = _mm512_unpackhi_epi16(a, c);
            const __m512i bd0 = _mm512_unpacklo_epi16(b, d), bd1 = _mm512_unpackhi_epi16(b, d);
            const __m512i ac01 = _mm512_unpacklo_epi32(ac0, ac1), ac23 = _mm512_unpackhi_epi32(ac0, ac1);
            const __m512i bd01 = _mm512_unpacklo_epi32(bd0, bd1), bd23 = _mm512_unpackhi_epi32(bd0, bd1);
            int16_t* const to = digits + i * digit_count;
            _mm512_store_si512(to, _mm512_unpacklo_epi64(ac01, bd01));
            _mm512_store_si512(to + pair, _mm512_unpackhi_epi64(ac01, bd01));
            _mm512_store_si512(to + 2 * pair, _mm512_unpacklo_epi64(ac23, bd23));
            _mm512_store_si512(to + 3 * pair, _mm512_unpackhi_epi64(ac23, bd23));
        }
    }

private:
    // Eight of sixteen elements, each as its four digits.
    static __m512i digits_of(const uint64_t* image, __m512i which) {
        constexpr int64_t half = int64_t{1} << (digit_bits - 1);
        const __m512i low = _mm512_loadu_si512(image), high = _mm512_loadu_si512(image + 8);
        const __m512i chosen = _mm512_permutex2var_epi64(low, which, high);
        // with half of a digit added to the lowest three, the bits of each are the digit plus that half
        const __m512i raised = _mm512_add_epi64(chosen, _mm512_set1_epi64(half | half << 13 | half << 26));
        // bytes from bits 0, 8, 13, 21, 26, 34, 39, 47
        const __m512i places = _mm512_set1_epi64(0x2F27'221A'150D'0800);
        const __m512i fields = _mm512_multishift_epi64_epi8(places, raised);
        const __m512i bits = _mm512_and_si512(fields, _mm512_set1_epi16((1 << digit_bits) - 1));
        return _mm512_sub_epi16(bits, _mm512_set1_epi64(half | half << 16 | half << 32));
    }
};

// The dots of one item while tile after tile goes by, reduced at the end, for it would take a fifth of a tile's time.
struct ItemSums {
    // each < 2^51 + 2^49 a lane; together < 2^63
    static constexpr size_t most_tiles = 2048;

    __m512i source, output[digit_count];

    void clear() {
        source = _mm512_setzero_si512();
        for (__m512i& sum : output) sum = _mm512_setzero_si512();
    }

    void add_source(Lanes low, const Lanes& high) {
        low.join(high);
        source = _mm512_add_epi64(source, low.fold());
    }

    void settle_source(uint64_t& dot) {
        // 8 lanes < 2^63 each: added one by one, for their sum would not fit
        alignas(64) uint64_t parts[8];
        _mm512_store_si512(parts, source);
        for (const uint64_t part : parts) dot = add_elements(dot, reduce_word(part));
        source = _mm512_setzero_si512();
    }

    void settle_output(uint64_t& dot) {
        // the digits' sums may be negative: a tile's < 2^34, of 2048 tiles, in 8 lanes, < 2^(34 + 11 + 3 + 39)
        Wide total = Wide{prime} << 60;
        for (int d = 0; d < digit_count; ++d) {
            total += static_cast<Wide>(static_cast<__int128>(_mm512_reduce_add_epi64(output[d])) << (digit_bits * d));
            output[d] = _mm512_setzero_si512();
        }
        dot = add_elements(dot, reduce_wide(total));
    }
};

// The dot of activations with their probe image, digit by digit.
struct DigitDots {
    static constexpr size_t most_pairs = 16;        // 16 * 2 * 16383 * 2^12 < 2^31
    static constexpr size_t most_pairs_of_any = 7;  // 7 * 2 * 2^15 * 2^12 < 2^31, of any int16

    __m512i sums[digit_count];

    SLALOM_INLINE void clear() {
        for (__m512i& sum : sums) sum = _mm512_setzero_si512();
    }

    SLALOM_INLINE void add(__m512i pairs, const int16_t* digits) {
        for (int d = 0; d < digit_count; ++d)
            sums[d] = _mm512_dpwssd_epi32(sums[d], pairs, _mm512_load_si512(digits + d * pair));
    }

    SLALOM_INLINE void flush(ItemSums& to) const {
        for (int d = 0; d < digit_count; ++d) {
            const __m512i odd = _mm512_srai_epi64(sums[d], 32);
            const __m512i even = _mm512_srai_epi64(_mm512_slli_epi64(sums[d], 32), 32);
            to.output[d] = _mm512_add_epi64(to.output[d], _mm512_add_epi64(even, odd));
        }
    }
};

#endif

}  // namespace
}  // namespace fused
