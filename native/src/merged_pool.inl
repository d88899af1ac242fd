// The frequent step before a maximum pool of 2x2 pixels, in one loop: the four claims of a window are read, unblinded,
// dotted and dequantised, and the largest alone is activated and requantised. AVX-512 only.
//
// The bits are those of a pass and then a pool: what follows the affine is monotone, so the maximum commutes with it.
#pragma once

#include "merged_pass.inl"

namespace fused {
namespace {

#if defined(SLALOM_ISA_AVX512)

// Output pixels and a block of channels, whose probes stay in the first cache while the items of the band use them.
struct PoolTile {
    size_t column, columns;    // of the maxima
    size_t channel, channels;  // a multiple of the lanes
};

// The windows of a tile are two stretches of each item: its part of the upper and of the lower row.
template <Unary function, Masks masks, Claims claims>
SLALOM_INLINE void pool_tile(const MergedRange& at, const PoolBand& band, PoolTile tile, int16_t* maxima,
                             ItemSums& sums) {
    MergedDots dots;
    const size_t down = band.row_elements, right = band.channels;
    for (size_t column = 0; column < tile.columns; ++column) {
        const size_t pixel = 2 * (tile.column + column) * band.channels + tile.channel;
        int16_t* const out = maxima + (tile.column + column) * band.channels + tile.channel;
        for (size_t c = 0; c < tile.channels; c += lanes) {
            const size_t entry = tile.channel + c;
            const auto real = [&](size_t i) {
                return dequantise(at, read_claim<masks, claims, Factors::single>(at, i, at.probe + i, dots), entry);
            };
            const Floats upper = maximum(real(pixel + c), real(pixel + right + c));
            const Floats lower = maximum(real(pixel + down + c), real(pixel + down + right + c));
            store_shorts(out + c, narrow(requantise_words<function>(at, maximum(upper, lower))), false);
        }
    }
    sums.add_source(dots.source_low, dots.source_high);
}

// The items of a band, tile by tile: its maxima, and its dots with their offset, those of the last tiles in `sums`.
template <Unary function, Masks masks, Claims claims>
void pool_items(const FusedPass& pass, const PoolBand& band, ItemSums* sums) {
    constexpr size_t window = 4, most = tile_count / window;  // as many elements as a tile of merged.inl, at most
    const size_t channels = band.channels < most ? band.channels : most, columns = most / channels;
    PoolTile tile{};
    Tile nothing;
    size_t tiles = 0;
    for (tile.channel = 0; tile.channel < band.channels; tile.channel += channels) {
        tile.channels = band.channels - tile.channel < channels ? band.channels - tile.channel : channels;
        for (tile.column = 0; tile.column < band.columns; tile.column += columns) {
            tile.columns = band.columns - tile.column < columns ? band.columns - tile.column : columns;
            for (size_t item = 0; item < pass.batch; ++item) {
                const Range range{item, pass.begin, 2 * columns * band.channels};  // to the next tile in the upper row
                MergedRange at = merged_range(pass, range, look_ahead(pass, range, nothing));
                at.probe = pass.probes[0] + pass.begin;
                pool_tile<function, masks, claims>(at, band, tile, band.maxima + item * band.stride, sums[item]);
            }
            if (++tiles % ItemSums::most_tiles == 0)
                for (size_t item = 0; item < pass.batch; ++item) sums[item].settle_source(pass.source_dots[item]);
        }
    }
}

template <Unary function, Masks masks, Claims claims>
void pool_band(const FusedPass& pass, const PoolBand& band) {
    const FloatGuard guard;
    ItemSums sums[pool_band_items];
    const uint64_t sum = sum_elements(pass.probes[0] + pass.begin, pass.end - pass.begin);
    const uint64_t excess = multiply_elements(sum, offset_of<int32_t>);
    for (size_t item = 0; item < pass.batch; ++item) {
        pass.source_dots[item] = prime - excess;
        sums[item].clear();
    }
    pool_items<function, masks, claims>(pass, band, sums);
    for (size_t item = 0; item < pass.batch; ++item) sums[item].settle_source(pass.source_dots[item]);
}

template <Unary function>
inline PoolBanded choose_pool(const FusedPass& pass) {
    if (pass.packed != nullptr) return pool_band<function, Masks::none, Claims::packed>;
    return pass.mask_image != nullptr ? pool_band<function, Masks::unblind, Claims::words>
                                      : pool_band<function, Masks::none, Claims::words>;
}

// The loop for bands of a pass, or null: as find_merge, with an entry of the affine for each channel.
inline PoolBanded find_pool(const FusedPass& pass, size_t channels) {
    if (!is_frequent(pass) || channels % lanes != 0 || pass.operations[0].period != channels) return nullptr;
    return choose_by_end<PoolBanded>(pass, 1, [&](auto end) { return choose_pool<end.value>(pass); });
}

#else

inline PoolBanded find_pool(const FusedPass&, size_t) { return nullptr; }

#endif

}  // namespace
}  // namespace fused
