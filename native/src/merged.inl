// The frequent step in one loop that leaves the registers only to store its results: a claim is read, unblinded, dotted
// with its probe, dequantised, activated, requantised, dotted with the next probe image, and blinded. AVX-512 only.
//
// The stages of fused.inl give the same bits; what this saves is their way through the first cache and back.
#pragma once

#include "dots.inl"
#include "functions.inl"

namespace fused {
namespace {

#if defined(SLALOM_ISA_AVX512)

// Elements of one range, and where its neighbours lie in memory.
struct MergedRange {
    const int32_t *claims, *mask_image, *mask;
    const uint8_t* packed;
    int16_t* activation;  // null where nobody reads it again
    int32_t* blinded;
    const uint64_t *probe, *probe_image;
    const int32_t *next_claims, *next_mask_image, *next_mask;
    const float *multiplier, *bias;
    size_t entry, length;  // of the affine: where the range begins in it
    float inverse, limit;
    bool stream_activation, stream_blinded;
};

struct MergedDots {
    Lanes source_low, source_high, output_low, output_high;
};

enum class Masks { none, unblind, both };
enum class Claims { words, packed };

// Sixteen words, each plus `offset`, as two vectors of unsigned 64-bit lanes into two dots.
SLALOM_INLINE void dot_words(__m512i words, const uint64_t* probe, Lanes& low, Lanes& high) {
    low.add(_mm512_cvtepu32_epi64(_mm512_castsi512_si256(words)), load(probe));
    high.add(_mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(words, 1)), load(probe + 8));
}

SLALOM_INLINE void store_shorts(int16_t* to, __m256i q, bool stream) {
    if (stream) {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to), q);
    } else {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), q);
    }
}

template <Unary function, Masks masks, bool imaged, Claims claims>
SLALOM_INLINE void merge_vector(const MergedRange& at, size_t i, size_t entry, MergedDots& dots) {
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
    dot_words(_mm512_xor_si512(y, _mm512_set1_epi32(INT32_MIN)), at.probe + i, dots.source_low, dots.source_high);
    const Floats v = to_floats((Words)y) * load_vector<Floats>(at.multiplier + entry) +
                     load_vector<Floats>(at.bias + entry);
    const Floats scaled = clamp(function(v) * at.inverse, -at.limit, at.limit);  // |scaled| <= 16383 < 2^22
    const Words q = (Words)(scaled + rounder) - rounder_bits;
    if (imaged)
        dot_words(_mm512_add_epi32((__m512i)q, _mm512_set1_epi32(1 << 15)), at.probe_image + i, dots.output_low,
                  dots.output_high);
    if (at.activation != nullptr) store_shorts(at.activation + i, _mm512_cvtepi32_epi16((__m512i)q), at.stream_activation);
    if (masks == Masks::both) {
        const Words blinded = q + load_vector<Words>(at.mask + i);  // wraps mod 2^32
        fetch(at.next_mask + i);
        if (at.stream_blinded) {
            stream_vector(at.blinded + i, blinded);
        } else {
            store_vector(at.blinded + i, blinded);
        }
    }
}

template <Unary function, Masks masks, bool imaged, Claims claims = Claims::words>
void merge_range(MergedRange at, size_t count, uint64_t* source_dot, uint64_t* output_dot) {
    MergedDots dots;
    size_t entry = at.entry;
    for (size_t i = 0; i < count; i += lanes) {
        merge_vector<function, masks, imaged, claims>(at, i, entry, dots);
        entry += lanes;
        if (entry >= at.length) entry -= at.length;  // the arrays go on around for one vector
    }
    dots.source_low.join(dots.source_high);
    *source_dot = add_elements(*source_dot, dots.source_low.reduce());
    if (!imaged) return;
    dots.output_low.join(dots.output_high);
    *output_dot = add_elements(*output_dot, dots.output_low.reduce());
}

using Merge = void (*)(MergedRange, size_t, uint64_t*, uint64_t*);

template <Unary function>
inline Merge choose_merge(const FusedPass& pass) {
    const bool imaged = pass.image_count == 1;
    if (pass.packed != nullptr)
        return imaged ? merge_range<function, Masks::none, true, Claims::packed>
                      : merge_range<function, Masks::none, false, Claims::packed>;
    if (pass.mask != nullptr)
        return imaged ? merge_range<function, Masks::both, true> : merge_range<function, Masks::both, false>;
    if (pass.mask_image != nullptr)
        return imaged ? merge_range<function, Masks::unblind, true> : merge_range<function, Masks::unblind, false>;
    return imaged ? merge_range<function, Masks::none, true> : merge_range<function, Masks::none, false>;
}

// The merged loop for a pass, or null where it is not of the frequent form: a claim, one probe, at most one probe
// image, an affine of at least a vector, perhaps a clamp, an activation.
inline Merge find_merge(const FusedPass& pass) {
    const bool given = pass.claims != nullptr || (pass.packed != nullptr && pass.mask == nullptr);
    const bool claimed = given && pass.probe_count == 1 && pass.image_count <= 1;
    const bool blinded_alone = pass.mask != nullptr && pass.mask_image == nullptr;
    const bool short_program = pass.operation_count == 1 || pass.operation_count == 2;
    if (!claimed || blinded_alone || !short_program || pass.real_out != nullptr) return nullptr;
    if (pass.operations[0].length < lanes) return nullptr;
    if (pass.operation_count == 1) return choose_merge<unchanged>(pass);
    if (pass.operations[1].kind != OperationKind::apply) return nullptr;
    if (pass.operations[1].function == Function::relu) return choose_merge<relu_of>(pass);
    if (pass.operations[1].function == Function::relu6) return choose_merge<relu6_of>(pass);
    return nullptr;
}

#endif

}  // namespace
}  // namespace fused
