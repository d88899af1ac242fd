// Output pixels, and what both matrix products need to know of a geometry.
#pragma once

#include "linear.hpp"

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
