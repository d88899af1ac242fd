// Python's door to linear.hpp. Shapes, dtypes and contiguity are validated by slalom.arithmetic, not here.
#include <atomic>
#include <cstring>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>

#include "isa.hpp"
#include "linear.hpp"
#include "quantise.hpp"
#include "team.hpp"

namespace nb = nanobind;

template <typename Number>
using Array = nb::ndarray<Number, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<nb::c_contig, nb::device::cpu, nb::ro>;

const LinearKernels& linear_kernels(int isa) {
    switch (static_cast<Isa>(isa)) {
#if defined(__x86_64__)
        case Isa::avx2: return linear_avx2;
        case Isa::avx512:
        case Isa::amx: return linear_avx512;
#endif
        default: return linear_portable;
    }
}

static Gemm* gemm_kernel(int isa) {
#if defined(__x86_64__)
    if (static_cast<Isa>(isa) == Isa::amx) return tiles_amx;
#endif
    return static_cast<Isa>(isa) == Isa::tiles ? tiles_plain : linear_kernels(isa).gemm;
}

static MapGeometry read_geometry(const Array<const int64_t>& words) {
    if (words.size() != MAP_GEOMETRY_WORDS) throw nb::value_error("a geometry has another number of words");
    MapGeometry geometry;
    std::memcpy(&geometry, words.data(), sizeof geometry);
    return geometry;
}

static Source read_source(const Numbers& x) {
    if (x.dtype() == nb::dtype<int16_t>()) return {static_cast<const int16_t*>(x.data()), nullptr};
    if (x.dtype() == nb::dtype<int32_t>()) return {nullptr, static_cast<const int32_t*>(x.data())};
    throw nb::type_error("a source is int16 or int32");
}

// Output pixels are cut among the threads, or the panels where there are too few pixels. scratch: SCRATCH_ELEMENTS each.
static void gemm(int isa, Team& team, Array<const int64_t> geometry, Numbers x, Array<const int8_t> panels,
                 Array<int32_t> y, Array<int16_t> scratch, std::tuple<size_t, size_t, size_t, bool> work) {
    const auto [rows, panel_count, multiple, by_rows] = work;
    const MapGeometry g = read_geometry(geometry);
    const Source source = read_source(x);
    const size_t threads = scratch.size() / SCRATCH_ELEMENTS;
    if (threads == 0) throw nb::value_error("the scratch is too small");
    const Ranges ranges(0, by_rows ? rows : panel_count, multiple, threads);
    Gemm* const kernel = gemm_kernel(isa);
    nb::gil_scoped_release unlocked;
    auto part = [&](size_t p) {
        const int64_t begin = int64_t(ranges.edge(p)), end = int64_t(ranges.edge(p + 1));
        const GemmRange range = by_rows ? GemmRange{begin, end, 0, int64_t(panel_count)}
                                        : GemmRange{0, int64_t(rows), begin, end};
        kernel(g, source, panels.data(), y.data(), scratch.data() + p * SCRATCH_ELEMENTS, range);
    };
    team.run(ranges.parts, part);
}

static void depthwise(int isa, Team& team, Array<const int64_t> geometry, Numbers x, Array<const int8_t> weight,
                      Array<int32_t> y, size_t pixels, size_t threads) {
    const MapGeometry g = read_geometry(geometry);
    const Source source = read_source(x);
    const Ranges ranges(0, pixels, 1, threads);
    nb::gil_scoped_release unlocked;
    auto part = [&](size_t p) {
        linear_kernels(isa).depthwise(g, source, weight.data(), y.data(), int64_t(ranges.edge(p)),
                                      int64_t(ranges.edge(p + 1)));
    };
    team.run(ranges.parts, part);
}

static void field_outer(int isa, Array<const int64_t> geometry, Array<const uint64_t> spatial,
                        Array<const uint64_t> kernel, Array<uint64_t> image, int64_t begin, int64_t end) {
    const MapGeometry g = read_geometry(geometry);
    nb::gil_scoped_release unlocked;
    linear_kernels(isa).field_outer(g, spatial.data(), kernel.data(), image.data(), begin, end);
}

// x is [batch, height, width, channels]; the windows are int64 [output extent, 3].
static PoolGeometry read_pool(const Numbers& x, const Array<const int64_t>& rows, const Array<const int64_t>& columns) {
    if (x.ndim() != 4) throw nb::value_error("a pool reads images");
    return {int64_t(x.shape(1)), int64_t(x.shape(2)), int64_t(x.shape(3)), int64_t(rows.shape(0)),
            int64_t(columns.shape(0)), rows.data(), columns.data()};
}

// A pool over every output row of a batch, a few rows at a time.
template <typename Result, typename Kernel>
static void pool_rows(Team& team, const PoolGeometry& g, const int16_t* source, Result* y, size_t rows, Kernel kernel) {
    const Ranges ranges(0, rows, 1, rows);
    nb::gil_scoped_release unlocked;
    auto work = [&](size_t part) { kernel(g, source, y, int64_t(ranges.edge(part)), int64_t(ranges.edge(part + 1))); };
    team.run(ranges.parts, work);
}

static void pool_maximum(int isa, Team& team, Numbers x, Array<const int64_t> rows, Array<const int64_t> columns,
                         Array<int16_t> y) {
    pool_rows(team, read_pool(x, rows, columns), read_source(x).activations, y.data(), x.shape(0) * rows.shape(0),
              linear_kernels(isa).pool_maximum);
}

static void pool_sum(int isa, Team& team, Numbers x, Array<const int64_t> rows, Array<const int64_t> columns,
                     Array<int32_t> y) {
    pool_rows(team, read_pool(x, rows, columns), read_source(x).activations, y.data(), x.shape(0) * rows.shape(0),
              linear_kernels(isa).pool_sum);
}

// shape: batch, channels, pixels. Returns whether all numbers are finite.
static bool quantise_images(Team& team, std::tuple<size_t, size_t, size_t> shape, bool channels_first, float inverse,
                            float limit, Array<const float> images, Array<int16_t> activation) {
    const auto [batch, channels, pixels] = shape;
    const size_t count = channels * pixels;
    if (images.size() != batch * count || activation.size() != batch * count)
        throw nb::value_error("images and activation have other sizes");
    const Quantisation quantisation{channels, pixels, channels_first, inverse, limit};
    const float* from = images.data();
    int16_t* to = activation.data();
    std::atomic<bool> finite{true};
    nb::gil_scoped_release unlocked;
    auto work = [&](size_t item) {
        if (!quantise_item(quantisation, from + item * count, to + item * count)) finite = false;
    };
    team.run(batch, work);
    return finite;
}

void bind_linear(nb::module_& module) {
    module.attr("PANEL_WIDTH") = PANEL_WIDTH;
    module.attr("BLOCK_ROWS") = BLOCK_ROWS;
    module.attr("TILE_DEPTH") = TILE_DEPTH;
    module.attr("SCRATCH_ELEMENTS") = SCRATCH_ELEMENTS;
    module.def("gemm", &gemm, "y = W x mod 2**32");
    module.def("depthwise", &depthwise, "as gemm, one input channel per group");
    module.def("field_outer", &field_outer, "the transposed map of spatial (x) kernel in F_p, on a range of image rows");
    module.def("pool_maximum", &pool_maximum, "the maximum of each window");
    module.def("quantise_images", &quantise_images, "float32 images to an int16 activation; whether all are finite");
    module.def("pool_sum", &pool_sum, "the sum of each window");
}
