// The register-blocked product of linear.inl: a few output pixels by one or two panels of channels.

namespace {

// One tile's operands: rows of patches (high is null for int16 activations), panels that lie panel_stride bytes apart.
struct Tile {
    const int16_t* low;
    const int16_t* high;
    int64_t row_stride;  // elements
    const int8_t* panel;
    int64_t panel_stride;  // bytes
    int64_t pairs;
    int32_t* y;
    int64_t y_stride;
    bool accumulate;
};

// y (+)= patches * panels for ROWS rows and PANELS panels, all sums in registers.
template <int ROWS, int PANELS>
[[gnu::noinline]] void multiply_tile(const Tile& tile) {
    constexpr int VECTORS = PANELS * PANEL_VECTORS;
    // Rows are addressed as one of ROWS / 3 bases plus 0, 1 or 2 strides, which spares the address registers.
    constexpr int BASES = (ROWS + 2) / 3;
    const int64_t stride = tile.row_stride;
    Words sums[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) sums[row][v] = zero_words();
    const int16_t* const planes[2] = {tile.high, tile.low};
    for (int plane = tile.high ? 0 : 1; plane < 2; ++plane) {
        // what the high halves gave weighs 2^16; before the first plane this shifts zeros
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) sums[row][v] = shift_half(sums[row][v]);
        const int16_t* bases[BASES];
#pragma GCC unroll 8
        for (int base = 0; base < BASES; ++base) bases[base] = planes[plane] + 3 * base * stride;
        const int8_t* panel = tile.panel;
        for (int64_t pair = 0; pair < tile.pairs; ++pair) {
            Words weights[VECTORS];
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v)
                weights[v] =
                    widen_pairs(panel + (v / PANEL_VECTORS) * tile.panel_stride + (v % PANEL_VECTORS) * 2 * LANES);
#pragma GCC unroll 16
            for (int row = 0; row < ROWS; ++row) {
                const Words x = broadcast_pair(bases[row / 3] + (row % 3) * stride);
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) sums[row][v] = add_pairs(sums[row][v], x, weights[v]);
            }
            panel += 2 * PANEL_WIDTH;
#pragma GCC unroll 8
            for (int base = 0; base < BASES; ++base) bases[base] += 2;
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            int32_t* y = tile.y + row * tile.y_stride + v * LANES;
            store_words(y, tile.accumulate ? add_words(sums[row][v], load_words(y)) : sums[row][v]);
        }
}

// Multiplies as many whole tiles of ROWS rows as there are, and steps past them.
template <int ROWS, int PANELS>
void multiply_tiles(Tile& tile, int64_t& rows) {
    if constexpr (ROWS <= TILE_ROWS)
        for (; rows >= ROWS; rows -= ROWS) {
            multiply_tile<ROWS, PANELS>(tile);
            tile.low += ROWS * tile.row_stride;
            if (tile.high) tile.high += ROWS * tile.row_stride;
            tile.y += ROWS * tile.y_stride;
        }
}

// All rows of a block against PANELS panels: full tiles, then ever smaller ones.
template <int PANELS>
void multiply_rows(Tile tile, int64_t rows) {
    multiply_tiles<TILE_ROWS, PANELS>(tile, rows);
    multiply_tiles<8, PANELS>(tile, rows);
    multiply_tiles<4, PANELS>(tile, rows);
    multiply_tiles<2, PANELS>(tile, rows);
    multiply_tiles<1, PANELS>(tile, rows);
}

// As multiply_rows for a panel of fewer than 16 true channels: through a buffer, a few rows at a time.
void multiply_rows_partial(Tile tile, int64_t rows, int64_t channels) {
    int32_t buffer[TILE_ROWS * PANEL_WIDTH] = {};
    int32_t* y = tile.y;
    const int64_t y_stride = tile.y_stride;
    while (rows > 0) {
        const int64_t count = smaller(rows, TILE_ROWS);
        if (tile.accumulate)
            for (int64_t row = 0; row < count; ++row)
                std::memcpy(buffer + row * PANEL_WIDTH, y + row * y_stride, channels * sizeof(int32_t));
        tile.y = buffer;
        tile.y_stride = PANEL_WIDTH;
        multiply_rows<1>(tile, count);
        for (int64_t row = 0; row < count; ++row)
            std::memcpy(y + row * y_stride, buffer + row * PANEL_WIDTH, channels * sizeof(int32_t));
        rows -= count;
        y += count * y_stride;
        tile.low += count * tile.row_stride;
        if (tile.high) tile.high += count * tile.row_stride;
    }
}

}  // namespace
