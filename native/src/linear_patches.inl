// What one output pixel reads of the image, laid out along K: how a matrix product gathers its rows.
#pragma once

#include "linear_geometry.inl"

namespace {

// Reads K's [begin, end) of a pixel's patch for one group. K is cut into runs that are adjacent in the image: one tap's
// channels, or a whole kernel row where its taps touch. A `Patch` says where and how elements are written: copy_run,
// zero_run, advance.
template <class Patch>
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

    // Returns the patch behind what was read.
    Patch read(const Pixel& pixel, Patch patch) const {
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
        return patch;
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

}  // namespace
