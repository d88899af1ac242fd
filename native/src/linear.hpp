// Exact linear maps, pooling and the field's outer product: what bind_linear.cpp calls, one table per instruction set.
//
// Every pointer and extent was validated in Python. Kernels allocate nothing, keep no state and write only their range.
#pragma once

#include <cstdint>

#include "isa.hpp"

// A convolution over images (height, width, channels); Python fills it as int64 words in this order.
struct MapGeometry {
    int64_t input_height, input_width, input_channels;
    int64_t output_height, output_width, output_channels;
    int64_t kernel_height, kernel_width;
    int64_t stride_height, stride_width;
    int64_t padding_top, padding_left;
    int64_t dilation_height, dilation_width;
    int64_t groups;
};

constexpr int64_t MAP_GEOMETRY_WORDS = sizeof(MapGeometry) / sizeof(int64_t);

// The blocking of the matrix product. A panel is 16 output channels of one group: int8 [pairs of K][16][2], where K
// runs over (a, b, c) as in the weight tensor and is padded to even, and channels are padded to 16, both with zeros.
constexpr int64_t PANEL_WIDTH = 16;
constexpr int64_t BLOCK_ROWS = 96;      // output pixels gathered at a time
constexpr int64_t BLOCK_DEPTH = 1024;   // of K; even
constexpr int64_t PATCH_STRIDE = BLOCK_DEPTH + 32;  // elements; not a power of two, so that rows spread over cache sets

// On tiles, a panel is int8 [quads of K][16][4], K padded to TILE_DEPTH with zeros.
constexpr int64_t TILE_DEPTH = 64;
constexpr int64_t TILE_BLOCK_ROWS = 64;
constexpr int64_t TILE_BLOCK_DEPTH = 36 * TILE_DEPTH;
constexpr int64_t TILE_PATCH_STRIDE = TILE_BLOCK_DEPTH + TILE_DEPTH;  // bytes: an odd number of cache lines
constexpr int64_t TILE_PLANE_STRIDE = TILE_BLOCK_ROWS * TILE_PATCH_STRIDE + 3 * TILE_DEPTH;  // no multiple of 4096

// int16: the low and the high plane of words; or their four planes of bytes, and what aligns them.
constexpr int64_t SCRATCH_ELEMENTS = 2 * TILE_PLANE_STRIDE + 32;
static_assert(SCRATCH_ELEMENTS >= 2 * BLOCK_ROWS * PATCH_STRIDE);

// A source of int16 activations or of 32-bit words: exactly one is set.
struct Source {
    const int16_t* activations;
    const int32_t* words;
};

// Output pixels [row_begin, row_end) of the batch flattened, and panels [panel_begin, panel_end) of all groups.
struct GemmRange {
    int64_t row_begin, row_end, panel_begin, panel_end;
};

struct PoolGeometry {
    int64_t input_height, input_width, channels, output_height, output_width;
    const int64_t* rows;     // [output_height][3]: start, stop, step
    const int64_t* columns;  // [output_width][3]
};

struct LinearKernels {
    Gemm* gemm;
    // One input channel per group; weight int8 [kernel height][kernel width][output channels]; output pixels [begin, end).
    void (*depthwise)(const MapGeometry&, Source, const int8_t* weight, int32_t* y, int64_t begin, int64_t end);
    // image[p, c] = sum over (tap, output pixel q that reads p by tap) of spatial[q] * kernel[tap, c] in F_p, for image
    // rows [begin, end); at most 4096 taps.
    void (*field_outer)(const MapGeometry&, const uint64_t* spatial, const uint64_t* kernel, uint64_t* image,
                        int64_t begin, int64_t end);
    // Output rows [begin, end) of the batch flattened.
    void (*pool_maximum)(const PoolGeometry&, const int16_t* x, int16_t* y, int64_t begin, int64_t end);
    void (*pool_sum)(const PoolGeometry&, const int16_t* x, int32_t* y, int64_t begin, int64_t end);
};
