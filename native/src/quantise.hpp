// A user's numbers to the input activation: times 1/scale, clamped, rounded half to even, channels last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

struct Quantisation {
    size_t channels, pixels;  // an item is [channels, pixels] where channels come first, else [pixels, channels]
    bool channels_first;
    float inverse, limit;
};

// One item. Returns whether all its numbers are finite; where not, what is written has no meaning.
inline bool quantise_item(const Quantisation& q, const float* from, int16_t* to) {
    // 1.5 * 2^23: |v| <= 2^15 plus it has no fraction, and the rounding of the addition is the one to even
    constexpr float rounder = 12582912.0f;
    const size_t pixel_step = q.channels_first ? 1 : q.channels, channel_step = q.channels_first ? q.pixels : 1;
    constexpr uint32_t exponent = 0x7F800000;  // all ones in what is infinite or no number
    uint32_t infinite = 0;
    for (size_t channel = 0; channel < q.channels; ++channel) {
        const float* __restrict x = from + channel * channel_step;
        int16_t* __restrict y = to + channel;
        for (size_t pixel = 0; pixel < q.pixels; ++pixel) {
            const float v = x[pixel * pixel_step];
            uint32_t bits;
            std::memcpy(&bits, &v, sizeof bits);
            infinite |= (bits & exponent) == exponent;
            float scaled = v * q.inverse;
            scaled = scaled < q.limit ? scaled : q.limit;
            scaled = scaled > -q.limit ? scaled : -q.limit;
            y[pixel * q.channels] = static_cast<int16_t>(static_cast<int32_t>(scaled + rounder - rounder));
        }
    }
    return infinite == 0;
}
