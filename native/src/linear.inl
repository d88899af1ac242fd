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

}  // namespace

#include "linear_tile.inl"
#include "linear_patches.inl"
#include "linear_gemm.inl"
#include "linear_depthwise.inl"
#include "linear_outer.inl"
#include "linear_pool.inl"

extern const LinearKernels SLALOM_LINEAR_TABLE;
const LinearKernels SLALOM_LINEAR_TABLE{&gemm, &depthwise, &field_outer, &pool<Maximum>, &pool<Sum>};
