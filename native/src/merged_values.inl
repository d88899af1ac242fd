// A pass that computes nothing, in one loop: an activation, such as the maxima of a pool, is dotted with the next probe
// image and blinded. AVX-512 only.
#pragma once

#include "merged.inl"

namespace fused {
namespace {

#if defined(SLALOM_ISA_AVX512)

template <bool masked, bool imaged>
void merge_values(const MergedRange& at, size_t count, uint64_t*, uint64_t* output_dot) {
    MergedDots dots;
    for (size_t i = 0; i < count; i += lanes) {
        const Words q = to_words(load_vector<Shorts>(at.values + i));
        fetch(at.next_values + i);
        if (imaged) dot_image(at, i, q, dots);
        if (masked) blind_vector(at, i, q);
    }
    if (imaged) *output_dot = add_elements(*output_dot, reduce_pair(dots.output_low, dots.output_high));
}

template <bool masked, bool imaged>
void merge_value_pairs(const MergedRange& at, size_t count, ItemSums& sums) {
    constexpr size_t flushed = DigitDots::most_pairs_of_any * pair;
    const __m512i order = _mm512_load_si512(interleaved_order);
    for (size_t i = 0; i < count;) {
        DigitDots digits;
        digits.clear();
        for (const size_t stop = i + flushed < count ? i + flushed : count; i < stop; i += pair) {
            const __m512i values = _mm512_loadu_si512(at.values + i);
            fetch(at.next_values + i);
            if (imaged) digits.add(_mm512_permutexvar_epi8(order, values), at.digits + i * digit_count);
            if (!masked) continue;
            blind_vector(at, i, (Words)_mm512_cvtepi16_epi32(_mm512_castsi512_si256(values)));
            blind_vector(at, i + lanes, (Words)_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(values, 1)));
        }
        if (imaged) digits.flush(sums);
    }
}

template <bool masked, bool imaged>
inline constexpr Merge merge_of_values{merge_values<masked, imaged>, merge_value_pairs<masked, imaged>};

// The loops for a pass whose activation passes through, or null: at most one probe image, and no probe.
inline const Merge* find_values_merge(const FusedPass& pass) {
    const bool through = pass.operation_count == 0 && pass.activation_out == nullptr;
    if (!through || pass.probe_count > 0 || pass.image_count > 1) return nullptr;
    const bool imaged = pass.image_count > 0;
    if (pass.mask != nullptr) return imaged ? &merge_of_values<true, true> : &merge_of_values<true, false>;
    return imaged ? &merge_of_values<false, true> : &merge_of_values<false, false>;
}

#endif

}  // namespace
}  // namespace fused
