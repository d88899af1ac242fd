// The matrix product on tiles of bytes (Intel AMX, or the same in plain C++): y = W x mod 2^32.
//
// A word is four base-256 digits, an activation two; all but the top one are unsigned. Digits lie in planes, each is
// multiplied with the int8 weights by u8·s8 (s8·s8 at the top) into int32 sums that wrap, and Horner's rule joins them:
// the sums of the digits above, shifted by 8 bits, are what the next digit's sums start from.
#include <cstring>

#include "isa.hpp"
#include "linear.hpp"
#include "linear_geometry.inl"
#include "linear_patches.inl"
#include "linear_tile_registers.inl"

namespace {

// Where the digits of patches are written: plane d lies TILE_PLANE_STRIDE behind plane d - 1.
struct BytePatch {
    uint8_t* first;
    int digits;
};

inline void copy_run(Source source, int64_t offset, int64_t count, BytePatch patch) {
    if (source.words)
        split_words(patch.first, TILE_PLANE_STRIDE, source.words + offset, count);
    else
        split_activations(patch.first, TILE_PLANE_STRIDE, source.activations + offset, count);
}

inline void zero_run(BytePatch patch, int64_t count) {
    for (int digit = 0; digit < patch.digits; ++digit) std::memset(patch.first + digit * TILE_PLANE_STRIDE, 0, count);
}

inline BytePatch advance(BytePatch patch, int64_t count) { return {patch.first + count, patch.digits}; }

// At most 32 rows of patches and two panels of channels.
struct TileProduct {
    const uint8_t* patch;
    int digits;
    const int8_t* panel;
    int64_t panel_stride;  // bytes
    int64_t chunks;        // of 64 bytes of K
    int32_t* y;
    int64_t y_stride, rows, channels;
    bool accumulate;
};

// y (+)= the sums of one tile, for those of its rows and channels that are true.
inline void add_sums(const TileProduct& p, const int32_t* sums, int64_t row, int64_t channel) {
    const int64_t rows = smaller(TILE_EDGE, p.rows - row), channels = smaller(TILE_EDGE, p.channels - channel);
    for (int64_t i = 0; i < rows; ++i) {
        int32_t* y = p.y + (row + i) * p.y_stride + channel;
        const int32_t* sum = sums + i * TILE_EDGE;
        if (!p.accumulate) std::memcpy(y, sum, channels * sizeof(int32_t));
        else if (channels == TILE_EDGE)
            for (int64_t c = 0; c < TILE_EDGE; ++c) y[c] += sum[c];
        else
            for (int64_t c = 0; c < channels; ++c) y[c] += sum[c];
    }
}

// One digit's products over all of K, added to the registers' sums. ROWS and PANELS are tiles: 1 or 2. A register is
// loaded for the next chunk as soon as it was read for this one: loads and products then overlap, as far as they do.
template <int ROWS, int PANELS, bool SIGNED>
inline void add_digit(Tiles& tiles, const TileProduct& p, int digit) {
    constexpr int64_t second_row = TILE_EDGE * TILE_PATCH_STRIDE;
    const uint8_t* patch = p.patch + digit * TILE_PLANE_STRIDE;
    const int8_t* panel = p.panel;
    tiles.load<4>(patch, TILE_PATCH_STRIDE);
    tiles.load<6>(panel, TILE_BYTES);
    if constexpr (ROWS == 2) tiles.load<5>(patch + second_row, TILE_PATCH_STRIDE);
    if constexpr (PANELS == 2) tiles.load<7>(panel + p.panel_stride, TILE_BYTES);
    for (int64_t left = p.chunks - 1; left >= 0; --left) {
        if (left > 0) {  // else the last chunk is loaded again, and not used
            patch += TILE_BYTES;
            panel += TILE_EDGE * TILE_BYTES;
        }
        tiles.dot<0, 4, 6, SIGNED>();
        if constexpr (PANELS == 2) tiles.dot<1, 4, 7, SIGNED>();
        tiles.load<4>(patch, TILE_PATCH_STRIDE);
        if constexpr (ROWS == 2) tiles.dot<2, 5, 6, SIGNED>();
        tiles.load<6>(panel, TILE_BYTES);
        if constexpr (ROWS == 2 && PANELS == 2) tiles.dot<3, 5, 7, SIGNED>();
        if constexpr (ROWS == 2) tiles.load<5>(patch + second_row, TILE_PATCH_STRIDE);
        if constexpr (PANELS == 2) tiles.load<7>(panel + p.panel_stride, TILE_BYTES);
    }
}

// Sums are registers 0..3: row tile * 2 + panel.
template <int ROWS, int PANELS>
[[gnu::noinline]] void multiply_tiles(Tiles& tiles, const TileProduct& p) {
    alignas(64) int32_t sums[4][TILE_EDGE * TILE_EDGE];
    const auto store = [&] {
        tiles.store<0>(sums[0]);
        if constexpr (PANELS == 2) tiles.store<1>(sums[1]);
        if constexpr (ROWS == 2) tiles.store<2>(sums[2]);
        if constexpr (ROWS == 2 && PANELS == 2) tiles.store<3>(sums[3]);
    };
    tiles.zero<0>();
    tiles.zero<1>();
    tiles.zero<2>();
    tiles.zero<3>();
    add_digit<ROWS, PANELS, true>(tiles, p, p.digits - 1);
    for (int digit = p.digits - 2; digit >= 0; --digit) {
        store();
        for (int tile = 0; tile < 4; ++tile)
            if (tile / 2 < ROWS && tile % 2 < PANELS)
                for (int i = 0; i < TILE_EDGE * TILE_EDGE; ++i) sums[tile][i] = int32_t(uint32_t(sums[tile][i]) << 8);
        tiles.load<0>(sums[0], TILE_BYTES);
        if constexpr (PANELS == 2) tiles.load<1>(sums[1], TILE_BYTES);
        if constexpr (ROWS == 2) tiles.load<2>(sums[2], TILE_BYTES);
        if constexpr (ROWS == 2 && PANELS == 2) tiles.load<3>(sums[3], TILE_BYTES);
        add_digit<ROWS, PANELS, false>(tiles, p, digit);
    }
    store();
    for (int row = 0; row < ROWS; ++row)
        for (int panel = 0; panel < PANELS; ++panel)
            add_sums(p, sums[2 * row + panel], row * TILE_EDGE, panel * TILE_EDGE);
}

// A block of patches against panels [first, last) of one group.
void multiply_panels(Tiles& tiles, TileProduct p, int64_t rows, int64_t outputs, int64_t first, int64_t last) {
    const uint8_t* const patch = p.patch;
    const int8_t* const panels = p.panel;
    int32_t* const y = p.y;
    for (int64_t panel = first; panel < last; panel += 2) {
        const int64_t count = smaller(2, last - panel);
        p.panel = panels + panel * p.panel_stride;
        p.channels = smaller(outputs - panel * PANEL_WIDTH, count * PANEL_WIDTH);
        for (int64_t row = 0; row < rows; row += 2 * TILE_EDGE) {
            p.rows = smaller(2 * TILE_EDGE, rows - row);
            p.patch = patch + row * TILE_PATCH_STRIDE;
            p.y = y + row * p.y_stride + panel * PANEL_WIDTH;
            if (p.rows > TILE_EDGE)
                count == 2 ? multiply_tiles<2, 2>(tiles, p) : multiply_tiles<2, 1>(tiles, p);
            else
                count == 2 ? multiply_tiles<1, 2>(tiles, p) : multiply_tiles<1, 1>(tiles, p);
        }
    }
}

// Output pixels [row, row + rows) against panels [first, last) of a group, K in blocks that stay in cache.
void multiply_block(Tiles& tiles, const MapGeometry& g, Source source, const int8_t* panels, int32_t* y,
                    uint8_t* scratch, int64_t group, int64_t first, int64_t last, int64_t row, int64_t rows) {
    const int64_t outputs = group_outputs(g), per_group = (outputs + PANEL_WIDTH - 1) / PANEL_WIDTH;
    const int64_t depth = g.kernel_height * g.kernel_width * group_inputs(g);
    TileProduct p{};
    p.patch = scratch;
    p.digits = source.words ? 4 : 2;
    p.panel_stride = (depth + TILE_BYTES - 1) / TILE_BYTES * TILE_BYTES * PANEL_WIDTH;
    p.y = y + row * g.output_channels + group * outputs;
    p.y_stride = g.output_channels;
    for (int64_t k = 0; k < depth; k += TILE_BLOCK_DEPTH) {
        const int64_t k_end = smaller(depth, k + TILE_BLOCK_DEPTH);
        p.chunks = (k_end - k + TILE_BYTES - 1) / TILE_BYTES;
        const auto reader = PatchReader<BytePatch>::make(g, source, group, k, k_end);
        Pixel pixel = Pixel::at(g, row);
        for (int64_t i = 0; i < rows; ++i, pixel.step(g)) {
            const BytePatch end = reader.read(pixel, {scratch + i * TILE_PATCH_STRIDE, p.digits});
            zero_run(end, p.chunks * TILE_BYTES - (k_end - k));
        }
        p.panel = panels + group * per_group * p.panel_stride + k * PANEL_WIDTH;
        p.accumulate = k > 0;
        multiply_panels(tiles, p, rows, outputs, first, last);
    }
}

void gemm(const MapGeometry& g, Source source, const int8_t* panels, int32_t* y, int16_t* scratch, GemmRange range) {
    // A row of a patch and its panel are whole cache lines.
    uint8_t* const aligned = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(scratch) + 63) / 64 * 64);
    const int64_t per_group = (group_outputs(g) + PANEL_WIDTH - 1) / PANEL_WIDTH;
    Tiles tiles;
    for (int64_t row = range.row_begin; row < range.row_end; row += TILE_BLOCK_ROWS) {
        const int64_t rows = smaller(TILE_BLOCK_ROWS, range.row_end - row);
        for (int64_t panel = range.panel_begin; panel < range.panel_end;) {
            const int64_t group = panel / per_group, start = group * per_group;
            const int64_t stop = smaller(range.panel_end, start + per_group);
            multiply_block(tiles, g, source, panels, y, aligned, group, panel - start, stop - start, row, rows);
            panel = stop;
        }
    }
}

}  // namespace

extern Gemm* const SLALOM_TILES_GEMM;
Gemm* const SLALOM_TILES_GEMM = &gemm;
