// What a pass goes through one after another: a tile of elements of one item, its probes, and what comes after it.
#pragma once

#include "fused.hpp"

#include "dots.inl"

namespace fused {
namespace {

struct Tile {  // room for the vector that begins at the last element
    static constexpr size_t room = tile_count + lanes;
    alignas(64) int32_t source[room];
    alignas(64) float real[room];
    alignas(64) float spare[room];
    alignas(64) int16_t operand[room];
    alignas(64) int16_t output[room];
};

struct Range {
    size_t item, begin, count;  // elements begin..begin+count-1 of one item; count <= tile_count
};

// Calls body(place in the tile, entry of the array, how many) for each stretch without a wrap of `e mod length`.
template <class Body>
inline void for_stretches(const Range& range, size_t length, Body body) {
    size_t entry = range.begin % length;
    for (size_t done = 0; done < range.count;) {
        const size_t left = range.count - done, stretch = length - entry < left ? length - entry : left;
        body(done, entry, stretch);
        done += stretch;
        entry = 0;
    }
}

// Where the next range's memory lies. It is asked for while this range is computed, a line at a time between the
// arithmetic: all at once would fill the miss buffers and stand still. Points into the tile where there is nothing.
struct Ahead {
    const int32_t *claims, *mask_image, *mask, *blinded;
    const int16_t* activation_out;
};

inline Ahead look_ahead(const FusedPass& pass, const Range& range, const Tile& tile) {
    const bool last = range.item + 1 == pass.batch && range.begin + range.count == pass.end;
    const auto next = [&](size_t stride) {
        return range.item + 1 < pass.batch ? (range.item + 1) * stride + range.begin
                                           : range.begin + range.count;  // item 0, the next tile
    };
    const auto place = [&](const auto* array, const auto* nothing, size_t offset) {
        return array == nullptr || last ? nothing : array + offset;
    };
    const size_t own = next(pass.count), claim = next(pass.claim_stride);
    const bool no_activation = pass.activation_out == nullptr || pass.stream_values || last;
    // asked for, never read, so the type does not matter
    const auto* claims = pass.packed == nullptr
                             ? place(pass.claims, tile.source, claim)
                             : reinterpret_cast<const int32_t*>(
                                   place(pass.packed, reinterpret_cast<const uint8_t*>(tile.source), 3 * claim));
    return {claims, place(pass.mask_image, tile.source, own), place(pass.mask, tile.source, own),
            place(pass.stream ? nullptr : pass.blinded, tile.source, next(pass.blinded_stride)),
            no_activation ? tile.output : pass.activation_out + next(pass.activation_stride)};
}

// The probes of one side of the pass: advanced tile by tile, with their sums.
struct Probes {
    const uint64_t* tile[maximum_probes];
    uint64_t sums[maximum_probes];
    size_t count;
};

inline void start_probes(Probes& probes, size_t count) {
    probes.count = count;
    for (size_t k = 0; k < count; ++k) probes.sums[k] = 0;
}

inline void clear_dots(uint64_t* dots, size_t count) {
    for (size_t i = 0; i < count; ++i) dots[i] = 0;
}

inline void advance_probes(Probes& probes, const uint64_t* const* arrays, size_t begin, size_t count) {
    for (size_t k = 0; k < probes.count; ++k) {
        probes.tile[k] = arrays[k] + begin;
        probes.sums[k] = add_elements(probes.sums[k], sum_tile(probes.tile[k], count));
    }
}

// Takes offset * (sum of the probe) off every dot.
inline void finish_probes(const Probes& probes, uint64_t offset, uint64_t* dots, size_t batch) {
    for (size_t k = 0; k < probes.count; ++k) {
        const uint64_t excess = multiply_elements(probes.sums[k], offset);
        for (size_t i = 0; i < batch; ++i)
            dots[i * probes.count + k] = add_elements(dots[i * probes.count + k], prime - excess);
    }
}

}  // namespace
}  // namespace fused
