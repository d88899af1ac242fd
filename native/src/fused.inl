// The fused pass for one instruction set. For each tile of elements, for each item of the batch: the probes and the
// per-channel arrays of the tile stay in the first cache while the whole batch uses them.
#include "isa.hpp"

#include "fused.hpp"

#include "dots.inl"
#include "functions.inl"
#include "merged_pass.inl"
#include "merged_pool.inl"
#include "ranges.inl"

namespace fused {
namespace {

// y[i] = word(i), a vector at a time and then one at a time; meanwhile asks for the lines to be written next.
template <class Vector, class Word>
SLALOM_INLINE void read_words(size_t count, int32_t* __restrict y, const Ahead& ahead, Vector vector, Word word) {
    const int32_t* blinded = ahead.blinded;
    const int16_t* activation = ahead.activation_out;
    size_t i = 0;
    for (; i + lanes <= count; i += lanes) {
        fetch_to_write(activation + i);
        fetch_to_write(blinded + i);
        store_vector(y + i, vector(i));
    }
    for (; i < count; ++i) y[i] = word(i);
}

inline void read_source(const FusedPass& pass, const Range& range, const Ahead& ahead, int32_t* __restrict y) {
    const size_t place = range.item * pass.count + range.begin, count = range.count;
    const size_t claim = range.item * pass.claim_stride + range.begin;
    if (pass.activation != nullptr) {
        const int16_t* __restrict activation = pass.activation + place;
        read_words(
            count, y, ahead, [=](size_t i) { return to_words(load_vector<Shorts>(activation + i)); },
            [=](size_t i) { return static_cast<int32_t>(activation[i]); });
    } else if (pass.mask_image != nullptr) {
        const int32_t* __restrict claims = pass.claims + claim;
        const int32_t* __restrict mask_image = pass.mask_image + place;
        read_words(
            count, y, ahead,  // wraps mod 2^32 (-fwrapv)
            [=](size_t i) { return load_vector<Words>(claims + i) - load_vector<Words>(mask_image + i); },
            [=](size_t i) { return claims[i] - mask_image[i]; });
    } else if (pass.packed != nullptr) {
        const uint8_t* __restrict packed = pass.packed + 3 * claim;
        read_words(
            count, y, ahead, [=](size_t i) { return unpack_vector(packed + 3 * i); },
            [=](size_t i) { return unpack_word(packed + 3 * i); });
    } else {
        const int32_t* __restrict claims = pass.claims + claim;
        read_words(
            count, y, ahead, [=](size_t i) { return load_vector<Words>(claims + i); },
            [=](size_t i) { return claims[i]; });
    }
    // LOAD-BEARING: the device can change the claims while they are read. Without this barrier the compiler may read
    // them again below, and what is checked is then not what is used. `y` is named so that the barrier covers it.
    asm volatile("" : : "r"(y) : "memory");
}

SLALOM_INLINE Shorts requantise(Floats v, float inverse, float limit) {
    const Floats scaled = clamp(v * inverse, -limit, limit);  // |scaled| <= 16383 < 2^22
    return to_shorts((Words)(scaled + rounder) - rounder_bits);
}

// store(place, load(place) * multiplier + bias) for each vector. A stretch may end within a vector: the lanes beyond it
// are stored again by the next stretch, or lie beyond the tile's count. So load and store must not share a buffer;
// buffers and arrays have room for one vector more.
template <class Load, class Store>
SLALOM_INLINE void run_affine(const Operation& affine, const Range& range, Load load, Store store) {
    for_stretches(range, affine.length, [&](size_t place, size_t entry, size_t count) {
        const float* __restrict multiplier = affine.multiplier + entry;
        const float* __restrict bias = affine.bias + entry;
        for (size_t i = 0; i < count; i += lanes)
            store(place + i, load(place + i) * load_vector<Floats>(multiplier + i) + load_vector<Floats>(bias + i));
    });
}

// The frequent program in one loop: affine, perhaps a clamp, requantise.
template <Unary function>
inline void run_short(const FusedPass& pass, const Range& range, const int32_t* __restrict y, int16_t* __restrict q) {
    const float inverse = pass.inverse, limit = pass.limit;
    run_affine(
        pass.operations[0], range, [&](size_t i) { return to_floats(load_vector<Words>(y + i)); },
        [&](size_t i, Floats v) { store_vector(q + i, requantise(function(v), inverse, limit)); });
}

inline bool run_if_short(const FusedPass& pass, const Range& range, const int32_t* y, int16_t* q) {
    if (pass.real_out != nullptr || pass.operation_count > 2) return false;
    if (pass.operation_count == 1) return run_short<unchanged>(pass, range, y, q), true;
    if (pass.operations[1].kind != OperationKind::apply) return false;
    if (pass.operations[1].function == Function::relu) return run_short<relu_of>(pass, range, y, q), true;
    if (pass.operations[1].function == Function::relu6) return run_short<relu6_of>(pass, range, y, q), true;
    return false;
}

// The operand's entries for the range: its first round is copied, then what stands there is doubled.
inline void read_operand(const Operation& operation, const Range& range, int16_t* __restrict operand) {
    const int16_t* row = operation.operand + range.item * operation.length;
    const Range first{range.item, range.begin, operation.length < range.count ? operation.length : range.count};
    for_stretches(first, operation.length, [&](size_t place, size_t entry, size_t count) {
        __builtin_memcpy(operand + place, row + entry, count * sizeof(int16_t));
    });
    for (size_t filled = first.count; filled < range.count;) {  // filled is a multiple of the length
        const size_t count = filled < range.count - filled ? filled : range.count - filled;
        __builtin_memcpy(operand + filled, operand, count * sizeof(int16_t));
        filled += count;
    }
}

template <class Join>
SLALOM_INLINE void join_operand(const Operation& operation, const Range& range, Tile& tile, Join join) {
    read_operand(operation, range, tile.operand);
    float* __restrict v = tile.real;
    for (size_t i = 0; i < range.count; i += lanes) {
        const Floats a = to_floats(to_words(load_vector<Shorts>(tile.operand + i))) * operation.parameter;
        store_vector(v + i, join(load_vector<Floats>(v + i), a));
    }
}

inline void run_operation(const Operation& operation, const Range& range, Tile& tile) {
    switch (operation.kind) {
        case OperationKind::affine:
            __builtin_memcpy(tile.spare, tile.real, sizeof tile.real);
            return run_affine(
                operation, range, [&](size_t i) { return load_vector<Floats>(tile.spare + i); },
                [&](size_t i, Floats v) { store_vector(tile.real + i, v); });
        case OperationKind::apply:
            return apply_function(operation.function, tile.real, range.count, operation.parameter);
        case OperationKind::add:
            return join_operand(operation, range, tile, [](Floats v, Floats a) { return v + a; });
        case OperationKind::multiply:
            return join_operand(operation, range, tile, [](Floats v, Floats a) { return v * a; });
    }
}

inline void run_program(const FusedPass& pass, const Range& range, Tile& tile) {
    if (pass.operation_count == 0) {
        for (size_t i = 0; i < range.count; ++i) tile.output[i] = static_cast<int16_t>(tile.source[i]);
        return;
    }
    if (run_if_short(pass, range, tile.source, tile.output)) return;
    run_affine(
        pass.operations[0], range, [&](size_t i) { return to_floats(load_vector<Words>(tile.source + i)); },
        [&](size_t i, Floats v) { store_vector(tile.real + i, v); });
    for (size_t k = 1; k < pass.operation_count; ++k) run_operation(pass.operations[k], range, tile);
    if (pass.real_out != nullptr) return;
    for (size_t i = 0; i < range.count; i += lanes)
        store_vector(tile.output + i, requantise(load_vector<Floats>(tile.real + i), pass.inverse, pass.limit));
}

// blinded = q + mask mod 2^32; `put` stores a vector at an address that is a multiple of its size if `aligned`.
template <bool aligned, class Put>
SLALOM_INLINE void blind(const FusedPass& pass, const Range& range, const Ahead& ahead, const int16_t* q, Put put) {
    const size_t place = range.item * pass.count + range.begin, count = range.count;
    const int32_t* __restrict mask = pass.mask + place;
    int32_t* __restrict blinded = pass.blinded + range.item * pass.blinded_stride + range.begin;
    const int32_t* next = ahead.mask_image;
    size_t i = 0;
    if (aligned)
        for (; i < count && reinterpret_cast<uintptr_t>(blinded + i) % sizeof(Words) != 0; ++i)
            blinded[i] = q[i] + mask[i];
    for (; i + lanes <= count; i += lanes) {
        fetch(next + i);
        put(blinded + i, to_words(load_vector<Shorts>(q + i)) + load_vector<Words>(mask + i));
    }
    for (; i < count; ++i) blinded[i] = q[i] + mask[i];
}

inline void write_activation(const FusedPass& pass, int16_t* to, const int16_t* from, size_t count) {
    constexpr size_t line = 32;
    size_t i = 0;
    if (pass.stream_values && reinterpret_cast<uintptr_t>(to) % 64 == 0)
        for (; i + line <= count; i += line) stream_line(to + i, from + i);
    __builtin_memcpy(to + i, from + i, (count - i) * sizeof(int16_t));
}

inline void write_output(const FusedPass& pass, const Range& range, const Ahead& ahead, const Tile& tile) {
    const size_t place = range.item * pass.count + range.begin;
    if (pass.real_out != nullptr) {
        __builtin_memcpy(pass.real_out + place, tile.real, range.count * sizeof(float));
        return;
    }
    if (pass.activation_out != nullptr) {
        int16_t* const to = pass.activation_out + range.item * pass.activation_stride + range.begin;
        write_activation(pass, to, tile.output, range.count);
    }
    if (pass.mask == nullptr) return;
    if (pass.stream) {
        blind<true>(pass, range, ahead, tile.output, [](int32_t* to, Words v) { stream_vector(to, v); });
    } else {
        blind<false>(pass, range, ahead, tile.output, [](int32_t* to, Words v) { store_vector(to, v); });
    }
}

inline void run_range(const FusedPass& pass, Range range, const Probes& probes, const Probes& images, Tile& tile) {
    const Ahead ahead = look_ahead(pass, range, tile);
    uint64_t* source_dots = pass.source_dots + range.item * probes.count;
    uint64_t* output_dots = pass.output_dots + range.item * images.count;
    read_source(pass, range, ahead, tile.source);
    dot_tile(tile.source, range.count, {probes.tile, probes.count}, source_dots, ahead.claims);
    run_program(pass, range, tile);
    dot_tile(tile.output, range.count, {images.tile, images.count}, output_dots, ahead.mask);
    write_output(pass, range, ahead, tile);
}

// Elements begin..pass.end-1, stage by stage. Adds to the dots.
inline void run_stages(const FusedPass& pass, size_t begin) {
    Tile tile{};
    Probes probes, images;
    start_probes(probes, pass.probe_count);
    start_probes(images, pass.image_count);
    for (; begin < pass.end; begin += tile_count) {
        const size_t count = pass.end - begin < tile_count ? pass.end - begin : tile_count;
        advance_probes(probes, pass.probes, begin, count);
        advance_probes(images, pass.probe_images, begin, count);
        for (size_t item = 0; item < pass.batch; ++item) run_range(pass, {item, begin, count}, probes, images, tile);
    }
    finish_probes(probes, offset_of<int32_t>, pass.source_dots, pass.batch);
    finish_probes(images, offset_of<int16_t>, pass.output_dots, pass.batch);
}

void run_pass(const FusedPass& pass) {
    const FloatGuard guard;
    clear_dots(pass.source_dots, pass.batch * pass.probe_count);
    clear_dots(pass.output_dots, pass.batch * pass.image_count);
    const size_t begin = run_merged_pass(pass);
    if (begin < pass.end) run_stages(pass, begin);
    if (pass.stream || pass.stream_values) finish_stream();
}

void multiply_arrays(const uint64_t* a, const uint64_t* b, uint64_t* product, size_t count) {
    for (size_t i = 0; i < count; ++i) product[i] = multiply_elements(a[i], b[i]);
}

}  // namespace
}  // namespace fused

extern const FusedKernels SLALOM_FUSED_TABLE;
const FusedKernels SLALOM_FUSED_TABLE{fused::run_pass, fused::find_pool, fused::multiply_arrays};
