// The blocking of linear.inl: pixels and K in blocks that stay in cache, every panel over each.

namespace {

// Where patches are written as int16: low is the activation itself, or the words' low halves, the high halves beside.
struct HalfPatch {
    int16_t* low;
    int16_t* high;
};

inline void copy_run(Source source, int64_t offset, int64_t count, HalfPatch patch) {
    if (source.words)
        split_words(patch.low, patch.high, source.words + offset, count);
    else
        copy_halves(patch.low, source.activations + offset, count);
}

inline void zero_run(HalfPatch patch, int64_t count) {
    std::memset(patch.low, 0, count * sizeof(int16_t));
    if (patch.high) std::memset(patch.high, 0, count * sizeof(int16_t));
}

inline HalfPatch advance(HalfPatch patch, int64_t count) {
    return {patch.low + count, patch.high ? patch.high + count : nullptr};
}

// A map whose patches are the pixels themselves needs no copy: 1x1, stride 1, no padding, int16, pairs complete.
bool reads_in_place(const MapGeometry& g, Source source) {
    return source.activations && g.kernel_height == 1 && g.kernel_width == 1 && g.stride_height == 1 &&
           g.stride_width == 1 && g.input_height == g.output_height && g.input_width == g.output_width &&
           group_inputs(g) % 2 == 0;
}

// One block of output pixels, one group, one range of K, against that group's panels [first, last).
struct Block {
    int64_t row, rows, group, first, last, k, k_end;
};

void multiply_panels(const MapGeometry& g, const int8_t* panels, int32_t* y, const Block& block, Tile tile) {
    const int64_t outputs = group_outputs(g);
    const int64_t depth = g.kernel_height * g.kernel_width * group_inputs(g);
    const int64_t per_group = (outputs + PANEL_WIDTH - 1) / PANEL_WIDTH;
    tile.panel_stride = (depth + 1) / 2 * 2 * PANEL_WIDTH;
    tile.pairs = (block.k_end - block.k + 1) / 2;
    tile.y_stride = g.output_channels;
    tile.accumulate = block.k > 0;
    for (int64_t panel = block.first; panel < block.last;) {
        const int64_t channels = smaller(outputs - panel * PANEL_WIDTH, PANEL_WIDTH * TILE_PANELS);
        tile.panel = panels + (block.group * per_group + panel) * tile.panel_stride + block.k * PANEL_WIDTH;
        tile.y = y + block.row * g.output_channels + block.group * outputs + panel * PANEL_WIDTH;
        if (panel + TILE_PANELS <= block.last && channels == PANEL_WIDTH * TILE_PANELS) {
            multiply_rows<TILE_PANELS>(tile, block.rows);
            panel += TILE_PANELS;
        } else {
            if (channels >= PANEL_WIDTH)
                multiply_rows<1>(tile, block.rows);
            else
                multiply_rows_partial(tile, block.rows, channels);
            panel += 1;
        }
    }
}

void multiply_block(const MapGeometry& g, Source source, const int8_t* panels, int32_t* y, int16_t* scratch,
                    Block block) {
    const int64_t inputs = group_inputs(g), depth = g.kernel_height * g.kernel_width * inputs;
    const bool in_place = reads_in_place(g, source);
    Tile tile{};
    for (block.k = 0; block.k < depth; block.k = block.k_end) {
        block.k_end = smaller(depth, block.k + BLOCK_DEPTH);
        if (in_place) {
            tile.low = source.activations + block.row * g.input_channels + block.group * inputs + block.k;
            tile.row_stride = g.input_channels;
        } else {
            const auto reader = PatchReader<HalfPatch>::make(g, source, block.group, block.k, block.k_end);
            const HalfPatch patch{scratch, source.words ? scratch + BLOCK_ROWS * PATCH_STRIDE : nullptr};
            Pixel pixel = Pixel::at(g, block.row);
            for (int64_t row = 0; row < block.rows; ++row, pixel.step(g))
                zero_run(reader.read(pixel, advance(patch, row * PATCH_STRIDE)), (block.k_end - block.k) & 1);
            tile.low = patch.low;
            tile.high = patch.high;
            tile.row_stride = PATCH_STRIDE;
        }
        multiply_panels(g, panels, y, block, tile);
    }
}

void gemm(const MapGeometry& g, Source source, const int8_t* panels, int32_t* y, int16_t* scratch, GemmRange range) {
    const int64_t per_group = (group_outputs(g) + PANEL_WIDTH - 1) / PANEL_WIDTH;
    for (int64_t row = range.row_begin; row < range.row_end; row += BLOCK_ROWS) {
        const int64_t rows = smaller(BLOCK_ROWS, range.row_end - row);
        for (int64_t panel = range.panel_begin; panel < range.panel_end;) {
            const int64_t group = panel / per_group, start = group * per_group;
            const int64_t stop = smaller(range.panel_end, start + per_group);
            multiply_block(g, source, panels, y, scratch, {row, rows, group, panel - start, stop - start, 0, 0});
            panel = stop;
        }
    }
}

}  // namespace
