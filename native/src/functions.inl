// The float32 functions of slalom.arithmetic.functions, operation by operation, on one vector.
#pragma once

#include "vectors.inl"

namespace fused {
namespace {

constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: rounds |v| < 2^22 half to even
constexpr int32_t rounder_bits = 0x4B400000;

// ((c0 * x + c1) * x + c2) ..., the coefficients rounded to float32
SLALOM_INLINE Floats continue_horner(Floats, Floats total) { return total; }

template <class... Rest>
SLALOM_INLINE Floats continue_horner(Floats x, Floats total, double next, Rest... rest) {
    return continue_horner(x, total * x + static_cast<float>(next), rest...);
}

template <class... Rest>
SLALOM_INLINE Floats horner(Floats x, double first, double second, Rest... rest) {
    return continue_horner(x, x * static_cast<float>(first) + static_cast<float>(second), rest...);
}

SLALOM_INLINE Floats clamp(Floats v, float low, float high) { return maximum(minimum(v, splat(high)), splat(low)); }

SLALOM_INLINE Floats exp_of(Floats v) {
    const Floats x = clamp(v, -87.0f, 87.0f);
    const Floats rounded = x * static_cast<float>(1.44269504088896341) + rounder;
    const Floats n = rounded - rounder;  // |n| <= 126
    const Floats r = (x - n * 0.693359375f) - n * static_cast<float>(-2.12194440e-4);
    const Floats polynomial = horner(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
                                     1.6666665459e-1, 5.0000001201e-1);
    const Floats tail = polynomial * (r * r);
    const Words exponent = (Words)rounded - (rounder_bits - 127);  // 1..253
    return ((tail + r) + 1.0f) * (Floats)(exponent << 23);
}

SLALOM_INLINE Floats sigmoid_of(Floats v) { return 1.0f / (1.0f + exp_of(-v)); }
SLALOM_INLINE Floats silu_of(Floats v) { return v * sigmoid_of(v); }
SLALOM_INLINE Floats relu_of(Floats v) { return maximum(v, splat(0.0f)); }
SLALOM_INLINE Floats relu6_of(Floats v) { return minimum(relu_of(v), splat(6.0f)); }
SLALOM_INLINE Floats hard_sigmoid_of(Floats v) {
    return clamp(v + 3.0f, 0.0f, 6.0f) * static_cast<float>(0.16666666666666667);
}
SLALOM_INLINE Floats hard_swish_of(Floats v) { return v * hard_sigmoid_of(v); }

SLALOM_INLINE Floats tanh_of(Floats v) {
    const Floats a = minimum(magnitude(v), splat(40.0f));
    const Floats z = a * a;
    const Floats polynomial =
        horner(z, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1);
    const Floats small = polynomial * z * a + a;
    const Floats large = 1.0f - 2.0f / (exp_of(a + a) + 1.0f);
    const Floats size = select(a < 0.625f, small, large);
    return select(v < 0.0f, -size, size);
}

SLALOM_INLINE Floats gelu_of(Floats v) {
    const Floats a = minimum(magnitude(v), splat(12.75f));
    const Floats x = a * static_cast<float>(0.70710678118654752);
    const Floats t = 1.0f / (1.0f + x * static_cast<float>(0.3275911));
    const Floats polynomial = horner(t, 1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592);
    const Floats half = polynomial * t * exp_of(-(x * x)) * 0.5f;
    return v * select(v < 0.0f, half, 1.0f - half);
}

SLALOM_INLINE Floats gelu_tanh_of(Floats v) {
    const Floats x = clamp(v, -11.0f, 11.0f);
    const Floats cubic = (x * x) * x * static_cast<float>(0.044715);
    return v * sigmoid_of((x + cubic) * static_cast<float>(1.5957691216057308));
}

SLALOM_INLINE Floats unchanged(Floats v) { return v; }

using Unary = Floats (*)(Floats);

// v has room for whole vectors.
template <Unary function>
inline void apply_each(float* v, size_t count) {
    for (size_t i = 0; i < count; i += lanes) store_vector(v + i, function(load_vector<Floats>(v + i)));
}

inline void apply_leaky_relu(float* v, size_t count, float slope) {
    for (size_t i = 0; i < count; i += lanes) {
        const Floats x = load_vector<Floats>(v + i);
        store_vector(v + i, select(x > 0.0f, x, x * slope));
    }
}

inline void apply_function(Function function, float* v, size_t count, float parameter) {
    switch (function) {
        case Function::relu: return apply_each<relu_of>(v, count);
        case Function::relu6: return apply_each<relu6_of>(v, count);
        case Function::leaky_relu: return apply_leaky_relu(v, count, parameter);
        case Function::hard_sigmoid: return apply_each<hard_sigmoid_of>(v, count);
        case Function::hard_swish: return apply_each<hard_swish_of>(v, count);
        case Function::sigmoid: return apply_each<sigmoid_of>(v, count);
        case Function::silu: return apply_each<silu_of>(v, count);
        case Function::tanh: return apply_each<tanh_of>(v, count);
        case Function::gelu: return apply_each<gelu_of>(v, count);
        case Function::gelu_tanh: return apply_each<gelu_tanh_of>(v, count);
    }
}

}  // namespace
}  // namespace fused
