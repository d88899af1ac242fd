// The direct kernel of linear.inl for one input channel per group.

namespace {

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

}  // namespace
