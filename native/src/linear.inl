// The kernels of linear.hpp for one instruction set. All of int32 is arithmetic mod 2^32: wrap-around, never saturation.
#include <cstring>

#include "isa.hpp"
#include "linear.hpp"
#include "linear_vector.inl"

namespace {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t group_inputs(const MapGeometry& g) { return g.input_channels / g.groups; }
inline int64_t group_outputs(const MapGeometry& g) { return g.output_channels / g.groups; }

// ------------------------------------------------------------------------------------------------ matrix product

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

// ------------------------------------------------------------------------------------------------ patches

// Where patches are written: low is the int16 itself, or the words' low halves with the high halves beside.
struct Patch {
    int16_t* low;
    int16_t* high;
};

inline void copy_run(Source source, int64_t offset, int64_t count, Patch patch) {
    if (source.words)
        split_words(patch.low, patch.high, source.words + offset, count);
    else
        copy_halves(patch.low, source.activations + offset, count);
}

inline void zero_run(Patch patch, int64_t count) {
    std::memset(patch.low, 0, count * sizeof(int16_t));
    if (patch.high) std::memset(patch.high, 0, count * sizeof(int16_t));
}

inline Patch advance(Patch patch, int64_t count) {
    return {patch.low + count, patch.high ? patch.high + count : nullptr};
}

// An output pixel of the batch, stepped in row-major order without divisions.
struct Pixel {
    int64_t item, i, j;

    static Pixel at(const MapGeometry& g, int64_t row) {
        return {row / g.output_width / g.output_height, row / g.output_width % g.output_height, row % g.output_width};
    }

    void step(const MapGeometry& g) {
        if (++j < g.output_width) return;
        j = 0;
        if (++i < g.output_height) return;
        i = 0;
        ++item;
    }
};

// Reads K's [begin, end) of a pixel's patch for one group, padded to even with a zero. K is cut into runs that are
// adjacent in the image: one tap's channels, or a whole kernel row where its taps touch.
struct PatchReader {
    const MapGeometry& g;
    Source source;
    int64_t channel;         // the group's first
    int64_t inputs, width;   // of a run: channels, taps
    int64_t runs_per_row;    // runs of one kernel row
    int64_t begin, end;
    int64_t first_a, first_b, first_offset;

    static PatchReader make(const MapGeometry& g, Source source, int64_t group, int64_t begin, int64_t end) {
        const int64_t inputs = group_inputs(g);
        const int64_t width = g.groups == 1 && g.dilation_width == 1 ? g.kernel_width : 1;
        const int64_t runs_per_row = g.kernel_width / width, run = begin / (inputs * width);
        return {g, source, group * inputs, inputs, width, runs_per_row, begin, end,
                run / runs_per_row, run % runs_per_row, begin - run * inputs * width};
    }

    void read(const Pixel& pixel, Patch patch) const {
        const int64_t top = pixel.i * g.stride_height - g.padding_top;
        const int64_t left = pixel.j * g.stride_width - g.padding_left;
        int64_t a = first_a, b = first_b, from = first_offset;
        for (int64_t count = end - begin; count > 0;) {
            const int64_t to = smaller(from + count, inputs * width);
            const int64_t y = top + a * g.dilation_height, x = left + b * g.dilation_width;
            const int64_t offset = ((pixel.item * g.input_height + y) * g.input_width + x) * g.input_channels + channel;
            if (y < 0 || y >= g.input_height) {
                zero_run(patch, to - from);
            } else if (x >= 0 && x + width <= g.input_width) {
                copy_run(source, offset + from, to - from, patch);
            } else {
                // taps [-x, input_width - x) are inside
                copy_clipped(offset, from, to, larger(0, -x) * inputs, larger(0, g.input_width - x) * inputs, patch);
            }
            patch = advance(patch, to - from);
            count -= to - from;
            from = 0;
            if (++b == runs_per_row) {
                b = 0;
                ++a;
            }
        }
        if ((end - begin) & 1) {
            *patch.low = 0;
            if (patch.high) *patch.high = 0;
        }
    }

   private:
    // Elements [from, to) of a run that starts at `offset` of the source: zeros outside [first, last).
    void copy_clipped(int64_t offset, int64_t from, int64_t to, int64_t first, int64_t last, Patch patch) const {
        const int64_t start = smaller(to, larger(from, first));
        const int64_t stop = larger(start, smaller(to, last));
        zero_run(patch, start - from);
        copy_run(source, offset + start, stop - start, advance(patch, start - from));
        zero_run(advance(patch, stop - from), to - stop);
    }
};

// A map whose patches are the pixels themselves needs no copy: 1x1, stride 1, no padding, int16, pairs complete.
bool reads_in_place(const MapGeometry& g, Source source) {
    return source.activations && g.kernel_height == 1 && g.kernel_width == 1 && g.stride_height == 1 &&
           g.stride_width == 1 && g.input_height == g.output_height && g.input_width == g.output_width &&
           group_inputs(g) % 2 == 0;
}

// ------------------------------------------------------------------------------------------------ gemm

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
            const PatchReader reader = PatchReader::make(g, source, block.group, block.k, block.k_end);
            const Patch patch{scratch, source.words ? scratch + BLOCK_ROWS * PATCH_STRIDE : nullptr};
            Pixel pixel = Pixel::at(g, block.row);
            for (int64_t row = 0; row < block.rows; ++row, pixel.step(g))
                reader.read(pixel, advance(patch, row * PATCH_STRIDE));
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

// ------------------------------------------------------------------------------------------------ depthwise

// The taps [a_begin, a_end) x [b_begin, b_end) of an output pixel that fall inside the image.
struct Taps {
    int64_t y, x;  // where tap (0, 0) falls
    int64_t a_begin, a_end, b_begin, b_end;
};

inline int64_t first_inside(int64_t start, int64_t step, int64_t count) {
    return start >= 0 ? 0 : smaller(count, (-start + step - 1) / step);
}

inline int64_t end_inside(int64_t start, int64_t step, int64_t count, int64_t extent) {
    if (start + (count - 1) * step < extent) return count;
    return start >= extent ? 0 : (extent - 1 - start) / step + 1;
}

Taps taps_inside(const MapGeometry& g, int64_t i, int64_t j) {
    const int64_t y = i * g.stride_height - g.padding_top, x = j * g.stride_width - g.padding_left;
    return {y,
            x,
            first_inside(y, g.dilation_height, g.kernel_height),
            end_inside(y, g.dilation_height, g.kernel_height, g.input_height),
            first_inside(x, g.dilation_width, g.kernel_width),
            end_inside(x, g.dilation_width, g.kernel_width, g.input_width)};
}

// One output channel per input channel: VECTORS vectors of channels at a time.
template <int VECTORS, typename Number>
[[gnu::always_inline]] inline void depthwise_channels(const MapGeometry& g, const Number* image, const int8_t* weight,
                                                      int32_t* y, const Taps& taps) {
    Words sums[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) sums[v] = zero_words();
    for (int64_t a = taps.a_begin; a < taps.a_end; ++a) {
        const int64_t row = (taps.y + a * g.dilation_height) * g.input_width + taps.x;
        for (int64_t b = taps.b_begin; b < taps.b_end; ++b) {
            const Number* x = image + (row + b * g.dilation_width) * g.input_channels;
            const int8_t* w = weight + (a * g.kernel_width + b) * g.output_channels;
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) sums[v] = add_scaled(sums[v], x + v * LANES, w + v * LANES);
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) store_words(y + v * LANES, sums[v]);
}

// Any channel range and multiplier, one number at a time.
template <typename Number>
void depthwise_scalar(const MapGeometry& g, const Number* image, const int8_t* weight, int32_t* y, const Taps& taps,
                      int64_t first_output) {
    const int64_t multiplier = group_outputs(g);
    for (int64_t o = first_output; o < g.output_channels; ++o) {
        uint32_t sum = 0;
        for (int64_t a = taps.a_begin; a < taps.a_end; ++a)
            for (int64_t b = taps.b_begin; b < taps.b_end; ++b) {
                const int64_t pixel =
                    (taps.y + a * g.dilation_height) * g.input_width + taps.x + b * g.dilation_width;
                const uint32_t x = uint32_t(int32_t(image[pixel * g.input_channels + o / multiplier]));
                sum += x * uint32_t(int32_t(weight[(a * g.kernel_width + b) * g.output_channels + o]));
            }
        y[o] = int32_t(sum);
    }
}

template <typename Number>
void depthwise_pixels(const MapGeometry& g, const Number* source, const int8_t* weight, int32_t* y, int64_t begin,
                      int64_t end) {
    const int64_t item_elements = g.input_height * g.input_width * g.input_channels;
    const bool vectors = group_outputs(g) == 1;
    Pixel pixel = Pixel::at(g, begin);
    for (int64_t row = begin; row < end; ++row, pixel.step(g)) {
        const Taps taps = taps_inside(g, pixel.i, pixel.j);
        const Number* image = source + pixel.item * item_elements;
        int32_t* out = y + row * g.output_channels;
        int64_t c = 0;
        if (vectors) {
            for (; c + 4 * LANES <= g.output_channels; c += 4 * LANES)
                depthwise_channels<4>(g, image + c, weight + c, out + c, taps);
            for (; c + 2 * LANES <= g.output_channels; c += 2 * LANES)
                depthwise_channels<2>(g, image + c, weight + c, out + c, taps);
            for (; c + LANES <= g.output_channels; c += LANES)
                depthwise_channels<1>(g, image + c, weight + c, out + c, taps);
        }
        depthwise_scalar(g, image, weight, out, taps, c);
    }
}

void depthwise(const MapGeometry& g, Source source, const int8_t* weight, int32_t* y, int64_t begin, int64_t end) {
    if (source.words)
        depthwise_pixels(g, source.words, weight, y, begin, end);
    else
        depthwise_pixels(g, source.activations, weight, y, begin, end);
}

// ------------------------------------------------------------------------------------------------ field

// The image's element (or lanes) at row r, column c, from channel offset k on: the taps that read it, in order.
template <typename Products>
[[gnu::always_inline]] inline void outer_element(const MapGeometry& g, const uint64_t* spatial, const uint64_t* kernel,
                                                 uint64_t* out, int64_t r, int64_t c) {
    Products products;
    for (int64_t a = 0; a < g.kernel_height; ++a) {
        const int64_t y = r + g.padding_top - a * g.dilation_height;
        if (y < 0 || y % g.stride_height || y / g.stride_height >= g.output_height) continue;
        for (int64_t b = 0; b < g.kernel_width; ++b) {
            const int64_t x = c + g.padding_left - b * g.dilation_width;
            if (x < 0 || x % g.stride_width || x / g.stride_width >= g.output_width) continue;
            products.add(spatial[y / g.stride_height * g.output_width + x / g.stride_width],
                         kernel + (a * g.kernel_width + b) * g.input_channels);
        }
    }
    products.store(out);
}

void field_outer(const MapGeometry& g, const uint64_t* spatial, const uint64_t* kernel, uint64_t* image, int64_t begin,
                 int64_t end) {
    for (int64_t r = begin; r < end; ++r)
        for (int64_t c = 0; c < g.input_width; ++c) {
            uint64_t* out = image + (r * g.input_width + c) * g.input_channels;
            int64_t k = 0;
            for (; k + FIELD_LANES <= g.input_channels; k += FIELD_LANES)
                outer_element<FieldProducts>(g, spatial, kernel + k, out + k, r, c);
            for (; k < g.input_channels; ++k) outer_element<ScalarProducts>(g, spatial, kernel + k, out + k, r, c);
        }
}

// ------------------------------------------------------------------------------------------------ pooling

struct Maximum {
    using Result = int16_t;
    static Result join(Result sum, int16_t x) { return x > sum ? x : sum; }
};

struct Sum {
    using Result = int32_t;
    static Result join(Result sum, int16_t x) { return sum + x; }
};

template <typename Join>
void pool_window(const PoolGeometry& g, const int16_t* image, typename Join::Result* out, const int64_t* rows,
                 const int64_t* columns) {
    bool first = true;
    for (int64_t r = rows[0]; r < rows[1]; r += rows[2])
        for (int64_t c = columns[0]; c < columns[1]; c += columns[2]) {
            const int16_t* x = image + (r * g.input_width + c) * g.channels;
            if (first)
                for (int64_t k = 0; k < g.channels; ++k) out[k] = x[k];
            else
                for (int64_t k = 0; k < g.channels; ++k) out[k] = Join::join(out[k], x[k]);
            first = false;
        }
}

template <typename Join>
void pool(const PoolGeometry& g, const int16_t* x, typename Join::Result* y, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        const int16_t* image = x + row / g.output_height * g.input_height * g.input_width * g.channels;
        const int64_t* rows = g.rows + row % g.output_height * 3;
        for (int64_t column = 0; column < g.output_width; ++column)
            pool_window<Join>(g, image, y + (row * g.output_width + column) * g.channels, rows,
                              g.columns + column * 3);
    }
}

}  // namespace

extern const LinearKernels SLALOM_LINEAR_TABLE;
const LinearKernels SLALOM_LINEAR_TABLE{&gemm, &depthwise, &field_outer, &pool<Maximum>, &pool<Sum>};
