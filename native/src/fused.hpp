// The fused trusted pass: what the binding hands to the kernels of one instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

// In the order of slalom.plan.steps.Function.
enum class Function : int {
    relu,
    relu6,
    leaky_relu,
    hard_sigmoid,
    hard_swish,
    sigmoid,
    silu,
    tanh,
    gelu,
    gelu_tanh,
};

enum class OperationKind : int { affine, apply, add, multiply };

struct Operation {
    OperationKind kind;
    Function function;        // apply
    float parameter;          // apply: the slope; add, multiply: the operand's scale
    const float* multiplier;  // affine: [length + affine_room], the entries going on around
    const float* bias;        // affine: the same
    const int16_t* operand;   // add, multiply: [batch, length]
    size_t length;            // element e uses entry e mod length
    size_t period;            // affine: the entries before they repeat; divides the length
};

constexpr size_t affine_room = 16;  // a whole vector may be read from the last entry
constexpr size_t maximum_operations = 64;
constexpr size_t maximum_probes = 64;

// Elements begin..end-1 of every item; all arrays [batch, count] or [count] unless said otherwise.
struct FusedPass {
    size_t batch, count, begin, end;
    const int32_t* claims;      // exactly one of claims, packed and activation
    const uint8_t* packed;      // claims of three bytes each, little-endian, two's complement: [batch, count, 3]
    size_t claim_stride;        // elements from one item to the next in claims and packed: count, or fewer in a piece
    const int16_t* activation;
    const int32_t* mask_image;  // may be null
    const uint64_t* probes[maximum_probes];
    size_t probe_count;
    Operation operations[maximum_operations];
    size_t operation_count;     // 0: the activation passes through; else the first is an affine
    float inverse, limit;       // requantisation, where activation_out is given
    int16_t* activation_out;    // may be null where real_out is given, nothing is computed, or nobody reads it
    size_t activation_stride;   // elements from one item to the next in activation_out: count, or fewer in a buffer
    float* real_out;            // may be null
    const uint64_t* probe_images[maximum_probes];
    size_t image_count;
    const int32_t* mask;        // null or together with blinded
    int32_t* blinded;
    size_t blinded_stride;      // elements from one item to the next in blinded: count, or fewer in a piece
    bool stream;                // write blinded past the caches
    bool stream_values;         // write activation_out past the caches
    uint64_t* source_dots;      // [batch, probe_count]
    uint64_t* output_dots;      // [batch, image_count]
};

// One row of a maximum pool of 2x2 pixels side by side: elements begin..end-1 of the pass are its two rows of the image.
struct PoolBand {
    size_t row_elements, columns, channels;  // of a row of the image; of the maxima; of both
    int16_t* maxima;                         // of the first item, [columns, channels]
    size_t stride;                           // elements from one item to the next in maxima
};

constexpr size_t pool_band_items = 8;  // at most, of one call: more gain nothing by sharing a tile of the probe

// The band of every item of the pass, its maxima and source_dots; activation_out is not written.
using PoolBanded = void (*)(const FusedPass&, const PoolBand&);

struct FusedKernels {
    void (*pass)(const FusedPass&);
    PoolBanded (*find_pool)(const FusedPass&, size_t channels);  // null where a pass has no such loop
    void (*multiply)(const uint64_t* a, const uint64_t* b, uint64_t* product, size_t count);
};
