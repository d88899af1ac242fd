// The frequent step in one loop that leaves the registers only to store its results: a claim is read, unblinded, dotted
// with its probe, dequantised, activated, requantised, dotted with the next probe image, and blinded. AVX-512 only.
//
// The stages of fused.inl give the same bits; what this saves is their way through the first cache and back.
#pragma once

#include "dots.inl"
#include "factors.inl"
#include "functions.inl"

namespace fused {
namespace {

#if defined(SLALOM_ISA_AVX512)

// What brings a pair of vectors into the order of its digits, and back: bytes.
alignas(64) constexpr uint8_t interleaved_order[64] = {
    0,  1,  32, 33, 2,  3,  34, 35, 4,  5,  36, 37, 6,  7,  38, 39, 8,  9,  40, 41, 10, 11,
    42, 43, 12, 13, 44, 45, 14, 15, 46, 47, 16, 17, 48, 49, 18, 19, 50, 51, 20, 21, 52, 53,
    22, 23, 54, 55, 24, 25, 56, 57, 26, 27, 58, 59, 28, 29, 60, 61, 30, 31, 62, 63};
alignas(64) constexpr uint8_t pair_order[64] = {
    0,  1,  4,  5,  8,  9,  12, 13, 16, 17, 20, 21, 24, 25, 28, 29, 32, 33, 36, 37, 40, 41,
    44, 45, 48, 49, 52, 53, 56, 57, 60, 61, 2,  3,  6,  7,  10, 11, 14, 15, 18, 19, 22, 23,
    26, 27, 30, 31, 34, 35, 38, 39, 42, 43, 46, 47, 50, 51, 54, 55, 58, 59, 62, 63};

// Elements of one range, and where its neighbours lie in memory.
struct MergedRange {
    const int32_t *claims, *mask_image, *mask;
    const uint8_t* packed;
    int16_t* activation;  // null where nobody reads it again
    int32_t* blinded;
    const uint64_t *probe, *probe_image;
    const int16_t* digits;  // of the probe image, as in TileFactors, for pairs of vectors
    const int32_t *next_claims, *next_mask_image, *next_mask;
    const float *multiplier, *bias;
    size_t entry, length;  // of the affine: where the range begins in it
    const int16_t *operand, *next_operand;  // what is added
    float operand_scale;
    const int16_t *values, *next_values;  // of a pass that computes nothing
    float inverse, limit;
    bool stream_activation, stream_blinded;
};

struct MergedDots {
    Lanes source_low, source_high, output_low, output_high;  // or the even and the odd elements
};

enum class Masks { none, unblind, both };
enum class Claims { words, packed };
enum class Operand { none, added };

// single: the probes are read as they are. shared: several items share what TileFactors makes of them.
enum class Factors { single, shared };

// Sixteen words, each plus `offset`, as two vectors of unsigned 64-bit lanes into two dots.
SLALOM_INLINE void dot_words(__m512i words, const uint64_t* probe, Lanes& low, Lanes& high) {
    low.add(_mm512_cvtepu32_epi64(_mm512_castsi512_si256(words)), load(probe));
    high.add(_mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(words, 1)), load(probe + 8));
}

// The same with probes that are sorted as in TileFactors: a mask and a shift instead of three moves between lanes.
SLALOM_INLINE void dot_sorted(__m512i words, const uint64_t* probe, Lanes& even, Lanes& odd) {
    even.add(_mm512_maskz_mov_epi32(0x5555, words), load(probe));
    odd.add(_mm512_srli_epi64(words, 32), load(probe + 8));
}

SLALOM_INLINE void store_shorts(int16_t* to, __m256i q, bool stream) {
    if (stream) {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to), q);
    } else {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), q);
    }
}

// A vector of the claim: read once, unblinded, dotted with its probe.
template <Masks masks, Claims claims, Factors factors>
SLALOM_INLINE Words read_claim(const MergedRange& at, size_t i, const uint64_t* probe, MergedDots& dots) {
    __m512i y = claims == Claims::packed ? (__m512i)unpack_vector(at.packed + 3 * i)
                                         : _mm512_loadu_si512(at.claims + i);
    // LOAD-BEARING: the device can change the claim while it is used. The barrier hides where y came from, so the
    // compiler cannot read memory again for the second use: what is checked is what is used.
    asm volatile("" : "+v"(y));
    fetch(at.next_claims + i);
    if (masks != Masks::none) {
        y = _mm512_sub_epi32(y, _mm512_loadu_si512(at.mask_image + i));  // wraps mod 2^32
        fetch(at.next_mask_image + i);
    }
    const __m512i raised = _mm512_xor_si512(y, _mm512_set1_epi32(INT32_MIN));
    if (factors == Factors::shared) {
        dot_sorted(raised, probe, dots.source_low, dots.source_high);
    } else {
        dot_words(raised, probe, dots.source_low, dots.source_high);
    }
    return (Words)y;
}

SLALOM_INLINE Floats dequantise(const MergedRange& at, Words y, size_t entry) {
    return to_floats(y) * load_vector<Floats>(at.multiplier + entry) + load_vector<Floats>(at.bias + entry);
}

template <Operand operand>
SLALOM_INLINE Floats add_operand(const MergedRange& at, size_t i, Floats v) {
    if (operand == Operand::none) return v;
    fetch(at.next_operand + i);
    return v + to_floats(to_words(load_vector<Shorts>(at.operand + i))) * at.operand_scale;
}

// The activation plus rounder_bits: its low half is the activation's.
template <Unary function>
SLALOM_INLINE Words requantise_words(const MergedRange& at, Floats v) {
    constexpr bool never_negative = function == relu_of || function == relu6_of;
    const Floats below = minimum(function(v) * at.inverse, splat(at.limit));
    const Floats scaled = never_negative ? below : maximum(below, splat(-at.limit));  // |scaled| <= 16383 < 2^22
    return (Words)(scaled + rounder);
}

// int16 of sixteen words, each plus rounder_bits or not.
SLALOM_INLINE __m256i narrow(Words q) { return _mm512_cvtepi32_epi16((__m512i)q); }

SLALOM_INLINE void blind_vector(const MergedRange& at, size_t i, Words q) {
    const Words blinded = q + load_vector<Words>(at.mask + i);  // wraps mod 2^32
    fetch(at.next_mask + i);
    if (at.stream_blinded) {
        stream_vector(at.blinded + i, blinded);
    } else {
        store_vector(at.blinded + i, blinded);
    }
}

// Where a range's vectors find their entries of the affine, which go on around for one vector.
struct AffinePlace {
    size_t entry, length;

    SLALOM_INLINE size_t take() {
        const size_t taken = entry;
        entry += lanes;
        if (entry >= length) entry -= length;
        return taken;
    }
};

// Sixteen activations, with an image that is read as it is.
SLALOM_INLINE void dot_image(const MergedRange& at, size_t i, Words q, MergedDots& dots) {
    dot_words(_mm512_add_epi32((__m512i)q, _mm512_set1_epi32(1 << 15)), at.probe_image + i, dots.output_low,
              dots.output_high);
}

SLALOM_INLINE uint64_t reduce_pair(Lanes low, const Lanes& high) {
    low.join(high);
    return low.reduce();
}

template <Unary function, Operand operand, Masks masks, bool imaged, Claims claims>
void merge_range(const MergedRange& at, size_t count, uint64_t* source_dot, uint64_t* output_dot) {
    MergedDots dots;
    AffinePlace affine{at.entry, at.length};
    for (size_t i = 0; i < count; i += lanes) {
        const Words y = read_claim<masks, claims, Factors::single>(at, i, at.probe + i, dots);
        const Floats v = add_operand<operand>(at, i, dequantise(at, y, affine.take()));
        const Words q = requantise_words<function>(at, v) - rounder_bits;
        if (imaged) dot_image(at, i, q, dots);
        if (at.activation != nullptr) store_shorts(at.activation + i, narrow(q), at.stream_activation);
        if (masks == Masks::both) blind_vector(at, i, q);
    }
    *source_dot = add_elements(*source_dot, reduce_pair(dots.source_low, dots.source_high));
    if (imaged) *output_dot = add_elements(*output_dot, reduce_pair(dots.output_low, dots.output_high));
}

// The low halves of two vectors: lane k is word k of the first and word k of the second.
SLALOM_INLINE __m512i interleave(Words first, Words second) {
    return _mm512_mask_blend_epi16(0xAAAAAAAA, (__m512i)first, _mm512_slli_epi32((__m512i)second, 16));
}

SLALOM_INLINE void store_pair(int16_t* to, __m512i pairs, bool stream) {
    const __m512i order = _mm512_load_si512(pair_order);
    const __m512i sorted = _mm512_permutexvar_epi8(order, pairs);
    if (stream) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to), sorted);
    } else {
        _mm512_storeu_si512(to, sorted);
    }
}

// The same for a range of whole pairs of vectors whose TileFactors are made.
template <Unary function, Operand operand, Masks masks, bool imaged, Claims claims>
void merge_pairs(const MergedRange& at, size_t count, ItemSums& sums) {
    constexpr size_t flushed = DigitDots::most_pairs * pair;
    MergedDots dots;
    AffinePlace affine{at.entry, at.length};
    for (size_t i = 0; i < count;) {
        DigitDots digits;
        digits.clear();
        for (const size_t stop = i + flushed < count ? i + flushed : count; i < stop; i += pair) {
            const auto half = [&](size_t k) {
                const Words y = read_claim<masks, claims, Factors::shared>(at, k, at.probe + k, dots);
                const Floats v = add_operand<operand>(at, k, dequantise(at, y, affine.take()));
                const Words raised = requantise_words<function>(at, v);
                if (masks == Masks::both) blind_vector(at, k, raised - rounder_bits);
                return raised;
            };
            const Words first = half(i), second = half(i + lanes);
            if (!imaged && at.activation == nullptr) continue;
            const __m512i pairs = interleave(first, second);
            if (imaged) digits.add(pairs, at.digits + i * digit_count);
            if (at.activation != nullptr) store_pair(at.activation + i, pairs, at.stream_activation);
        }
        if (imaged) digits.flush(sums);
    }
    sums.add_source(dots.source_low, dots.source_high);
}

// The loop for any range of whole vectors, and the one for ranges of pairs.
struct Merge {
    void (*single)(const MergedRange&, size_t, uint64_t* source_dot, uint64_t* output_dot);
    void (*shared)(const MergedRange&, size_t, ItemSums&);
};

template <Unary function, Operand operand, Masks masks, bool imaged, Claims claims = Claims::words>
inline constexpr Merge merge_of{merge_range<function, operand, masks, imaged, claims>,
                                merge_pairs<function, operand, masks, imaged, claims>};

template <Unary function, Operand operand, bool imaged>
inline const Merge* choose_masks(const FusedPass& pass) {
    if (pass.packed != nullptr) return &merge_of<function, operand, Masks::none, imaged, Claims::packed>;
    if (pass.mask != nullptr) return &merge_of<function, operand, Masks::both, imaged>;
    if (pass.mask_image != nullptr) return &merge_of<function, operand, Masks::unblind, imaged>;
    return &merge_of<function, operand, Masks::none, imaged>;
}

template <Unary function, Operand operand>
inline const Merge* choose_merge(const FusedPass& pass) {
    return pass.image_count == 1 ? choose_masks<function, operand, true>(pass)
                                 : choose_masks<function, operand, false>(pass);
}

// Whether a pass has the frequent form: a claim, one probe, an affine and perhaps more, an activation.
inline bool is_frequent(const FusedPass& pass) {
    const bool claimed = pass.claims != nullptr || pass.packed != nullptr;
    return claimed && pass.probe_count == 1 && pass.operation_count > 0 && pass.real_out == nullptr;
}

template <Unary function>
struct Clamp {
    static constexpr Unary value = function;
};

// choose(Clamp<function>) for what a program ends with from operation `place` on, or null where it is no clamp.
template <class Loop, class Choose>
inline Loop choose_by_end(const FusedPass& pass, size_t place, Choose choose) {
    if (pass.operation_count == place) return choose(Clamp<unchanged>{});
    if (pass.operation_count > place + 1 || pass.operations[place].kind != OperationKind::apply) return nullptr;
    if (pass.operations[place].function == Function::relu) return choose(Clamp<relu_of>{});
    if (pass.operations[place].function == Function::relu6) return choose(Clamp<relu6_of>{});
    return nullptr;
}

// Whether what follows the affine adds another activation, element by element.
inline bool adds_operand(const FusedPass& pass) {
    return pass.operation_count > 1 && pass.operations[1].kind == OperationKind::add &&
           pass.operations[1].length == pass.count;
}

// The merged loops for a pass, or null: the frequent form with an affine of at least a vector, perhaps an operand that
// is added, perhaps a clamp, and at most one probe image.
inline const Merge* find_merge(const FusedPass& pass) {
    // packed claims have no mask image
    const bool blinded_alone = pass.mask != nullptr && pass.mask_image == nullptr;
    if (!is_frequent(pass) || pass.image_count > 1 || blinded_alone) return nullptr;
    if (pass.operations[0].length < lanes || pass.limit > largest_activation) return nullptr;
    if (adds_operand(pass))
        return choose_by_end<const Merge*>(
            pass, 2, [&](auto end) { return choose_merge<end.value, Operand::added>(pass); });
    return choose_by_end<const Merge*>(pass, 1, [&](auto end) { return choose_merge<end.value, Operand::none>(pass); });
}

#endif

}  // namespace
}  // namespace fused
