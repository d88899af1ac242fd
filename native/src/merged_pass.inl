// A whole pass of the frequent form, in the loops of merged.inl.
#pragma once

#include "merged.inl"
#include "merged_values.inl"
#include "ranges.inl"

namespace fused {
namespace {

#if defined(SLALOM_ISA_AVX512)

constexpr size_t sharing_batch = 4;  // items from which on it pays to make a tile's factors
constexpr size_t sharing_items = 64;  // that share them: their sums lie in the first cache, or the second

inline bool is_aligned(const void* address, size_t size) { return reinterpret_cast<uintptr_t>(address) % size == 0; }

// LOAD-BEARING: every branch here depends on shapes and addresses, never on what an array holds.
inline MergedRange merged_range(const FusedPass& pass, const Range& range, const Ahead& ahead) {
    const size_t place = range.item * pass.count + range.begin;
    const size_t claim = range.item * pass.claim_stride + range.begin;
    MergedRange at{};
    at.claims = pass.claims + claim;
    at.packed = pass.packed + 3 * claim;
    at.mask_image = pass.mask_image + place;
    at.mask = pass.mask + place;
    at.activation = pass.activation_out == nullptr
                        ? nullptr
                        : pass.activation_out + range.item * pass.activation_stride + range.begin;
    at.blinded = pass.blinded + range.item * pass.blinded_stride + range.begin;
    at.next_claims = ahead.claims;
    at.next_mask_image = ahead.mask_image;
    at.next_mask = ahead.mask;
    at.values = pass.activation + place;
    at.next_values = at.values + pass.count;  // of the next item
    if (pass.operation_count > 0) {
        const Operation& affine = pass.operations[0];
        at.multiplier = affine.multiplier;
        at.bias = affine.bias;
        at.entry = range.begin % affine.length;
        at.length = affine.length;
    }
    if (adds_operand(pass)) {
        at.operand = pass.operations[1].operand + place;
        at.next_operand = at.operand + pass.count;
        at.operand_scale = pass.operations[1].parameter;
    }
    at.inverse = pass.inverse;
    at.limit = pass.limit;
    at.stream_activation = pass.stream_values && is_aligned(at.activation, sizeof(Words));
    at.stream_blinded = pass.stream && is_aligned(at.blinded, sizeof(Words));
    return at;
}

// Whole vectors of the pass, for items first..end-1. Adds to the dots.
class MergedPass {
public:
    MergedPass(const FusedPass& pass, const Merge& merge, size_t first, size_t end)
        : pass_(pass), merge_(merge), first_(first), end_(end) {
        start_probes(probes_, pass.probe_count);
        start_probes(images_, pass.image_count);
        for (size_t item = first_; item < end_; ++item) sums_[item - first_].clear();
    }

    void run(size_t begin, size_t end) {
        size_t tiles = 0;
        for (size_t place = begin; place < end; place += tile_count) {
            const size_t count = end - place < tile_count ? end - place : tile_count;
            advance_probes(probes_, pass_.probes, place, count);
            if (end_ - first_ >= sharing_batch && count % pair == 0) {
                run_shared(place, count);
                if (++tiles % ItemSums::most_tiles == 0) settle();
            } else {
                run_single(place, count);
            }
        }
        settle();
        finish_probes(probes_, offset_of<int32_t>, pass_.source_dots + first_ * probes_.count, end_ - first_);
        finish_probes(images_, offset_of<int16_t>, pass_.output_dots + first_ * images_.count, end_ - first_);
    }

private:
    void run_shared(size_t begin, size_t count) {
        if (probes_.count > 0) TileFactors::sort_source(probes_.tile[0], count, factors_.source);
        if (images_.count > 0) factors_.split_image(pass_.probe_images[0] + begin, count);
        for (size_t item = first_; item < end_; ++item) {
            MergedRange at = range_of({item, begin, count});
            at.probe = factors_.source;
            at.digits = factors_.digits;
            merge_.shared(at, count, sums_[item - first_]);
        }
    }

    void run_single(size_t begin, size_t count) {
        advance_probes(images_, pass_.probe_images, begin, count);
        for (size_t item = first_; item < end_; ++item) {
            MergedRange at = range_of({item, begin, count});
            at.probe = probes_.count > 0 ? probes_.tile[0] : nullptr;
            at.probe_image = images_.count > 0 ? images_.tile[0] : nullptr;
            merge_.single(at, count, pass_.source_dots + item, pass_.output_dots + item);
        }
    }

    MergedRange range_of(const Range& range) { return merged_range(pass_, range, look_ahead(pass_, range, tile_)); }

    void settle() {
        for (size_t item = first_; item < end_; ++item) {
            if (probes_.count > 0) sums_[item - first_].settle_source(pass_.source_dots[item]);
            if (images_.count > 0) sums_[item - first_].settle_output(pass_.output_dots[item]);
        }
    }

    const FusedPass& pass_;
    const Merge& merge_;
    const size_t first_, end_;
    Probes probes_, images_;  // images_: of what is not dotted by digits, which need no offset
    Tile tile_;               // fetched from where nothing else is
    TileFactors factors_;
    ItemSums sums_[sharing_items];
};

// The whole vectors of a pass of the frequent form; where the rest begins.
inline size_t run_merged_pass(const FusedPass& pass) {
    const Merge* const merge = pass.activation == nullptr ? find_merge(pass) : find_values_merge(pass);
    if (merge == nullptr) return pass.begin;
    const size_t end = pass.end - (pass.end - pass.begin) % lanes;
    for (size_t first = 0; first < pass.batch; first += sharing_items)
        MergedPass(pass, *merge, first, pass.batch - first < sharing_items ? pass.batch : first + sharing_items)
            .run(pass.begin, end);
    return end;
}

#else

inline size_t run_merged_pass(const FusedPass& pass) { return pass.begin; }

#endif

}  // namespace
}  // namespace fused
