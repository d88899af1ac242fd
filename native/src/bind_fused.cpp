// Binds the fused pass: reads the Python tuples into a FusedPass, lets go of the interpreter lock, and runs.
#include <algorithm>
#include <type_traits>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "fused.hpp"
#include "isa.hpp"
#include "linear.hpp"
#include "pieces.hpp"
#include "team.hpp"

namespace nb = nanobind;

namespace {

const FusedKernels& kernels(int isa) {
    switch (static_cast<Isa>(isa)) {
        case Isa::portable: return fused_portable;
#if defined(__x86_64__)
        case Isa::avx2: return fused_avx2;
        case Isa::avx512:
        case Isa::amx: return fused_avx512;
#endif
        default: break;
    }
    throw nb::value_error("unknown instruction set");
}

// The first element of an array of `count` elements, or null for None. The buffer is let go at once: the arguments keep
// the array alive, and nobody resizes it. Order and size are checked here, types by slalom.arithmetic.fused.
template <class Element>
Element* data_of(nb::handle object, size_t count) {
    if (object.is_none()) return nullptr;
    Py_buffer view;
    const int flags = std::is_const_v<Element> ? PyBUF_SIMPLE : PyBUF_WRITABLE;
    if (PyObject_GetBuffer(object.ptr(), &view, flags) != 0) throw nb::python_error();
    Element* const data = static_cast<Element*>(view.buf);
    const bool fits = view.len >= 0 && static_cast<size_t>(view.len) == count * sizeof(Element);
    PyBuffer_Release(&view);
    if (!fits) throw nb::value_error("an array of the fused pass has the wrong size");
    return data;
}

size_t read_probes(const nb::tuple& arrays, size_t count, const uint64_t** probes) {
    if (arrays.size() > maximum_probes) throw nb::value_error("too many probes");
    for (size_t k = 0; k < arrays.size(); ++k) probes[k] = data_of<const uint64_t>(arrays[k], count);
    return arrays.size();
}

// (kind, function, parameter, length, multiplier or None, bias or None, operand or None, period)
Operation read_operation(const nb::tuple& parts, size_t batch) {
    Operation operation{};
    operation.kind = static_cast<OperationKind>(nb::cast<int>(parts[0]));
    operation.function = static_cast<Function>(nb::cast<int>(parts[1]));
    operation.parameter = nb::cast<float>(parts[2]);
    operation.length = nb::cast<size_t>(parts[3]);
    operation.multiplier = data_of<const float>(parts[4], operation.length + affine_room);
    operation.bias = data_of<const float>(parts[5], operation.length + affine_room);
    operation.operand = data_of<const int16_t>(parts[6], batch * operation.length);
    operation.period = nb::cast<size_t>(parts[7]);
    const bool affine = operation.kind == OperationKind::affine, apply = operation.kind == OperationKind::apply;
    const bool whole = affine ? operation.multiplier && operation.bias : apply || operation.operand;
    if (!whole || (operation.length == 0 && !apply)) throw nb::value_error("an operation lacks its arrays");
    return operation;
}

// source: (claims or None, packed claims or None, activation or None, mask image or None, probes)
void read_source(FusedPass& pass, const nb::tuple& source) {
    const size_t total = pass.batch * pass.count;
    pass.claims = data_of<const int32_t>(source[0], total);
    pass.packed = data_of<const uint8_t>(source[1], 3 * total);
    pass.activation = data_of<const int16_t>(source[2], total);
    pass.claim_stride = pass.count;
    pass.mask_image = data_of<const int32_t>(source[3], total);
    pass.probe_count = read_probes(nb::cast<nb::tuple>(source[4]), pass.count, pass.probes);
}

// program: (operations, inverse, limit)
void read_program(FusedPass& pass, const nb::tuple& program) {
    const auto operations = nb::cast<nb::tuple>(program[0]);
    if (operations.size() > maximum_operations) throw nb::value_error("too many operations");
    for (size_t k = 0; k < operations.size(); ++k)
        pass.operations[k] = read_operation(nb::cast<nb::tuple>(operations[k]), pass.batch);
    pass.operation_count = operations.size();
    if (pass.operation_count > 0 && pass.operations[0].kind != OperationKind::affine)
        throw nb::value_error("the first operation must be an affine");
    pass.inverse = nb::cast<float>(program[1]);
    pass.limit = nb::cast<float>(program[2]);
}

// output: (activation or None, real or None, probe images, mask or None, blinded or None, stream, stream values)
void read_output(FusedPass& pass, const nb::tuple& output) {
    const size_t total = pass.batch * pass.count;
    pass.activation_out = data_of<int16_t>(output[0], total);
    pass.activation_stride = pass.count;
    pass.real_out = data_of<float>(output[1], total);
    pass.image_count = read_probes(nb::cast<nb::tuple>(output[2]), pass.count, pass.probe_images);
    pass.mask = data_of<const int32_t>(output[3], total);
    pass.blinded = data_of<int32_t>(output[4], total);
    pass.blinded_stride = pass.count;
    pass.stream = nb::cast<bool>(output[5]);
    pass.stream_values = nb::cast<bool>(output[6]);
}

void check_whole(const FusedPass& pass) {
    const bool one_source = (pass.claims != nullptr) + (pass.packed != nullptr) + (pass.activation != nullptr) == 1 &&
                            (pass.mask_image == nullptr || pass.claims != nullptr);
    const bool one_output = pass.operation_count == 0 ? pass.activation && !pass.real_out
                                                      : !(pass.activation_out && pass.real_out);
    const bool masked = (pass.mask == nullptr) == (pass.blinded == nullptr);
    const bool dotted = pass.source_dots && pass.output_dots;
    if (!one_source || !one_output || !masked || !dotted) throw nb::value_error("the fused pass lacks an array");
}

// One way through a ring: None, or (memory, bytes of a place, places, ready, taken, over, first, span, packed, patience).
struct Way {
    Pieces pieces{};
    bool given = false, packed = false;

    Way(size_t batch, size_t count, nb::handle object) {
        if (object.is_none()) return;
        const auto parts = nb::cast<nb::tuple>(object);
        given = true;
        pieces.size = nb::cast<size_t>(parts[1]);
        pieces.places = nb::cast<size_t>(parts[2]);
        pieces.memory = data_of<uint8_t>(parts[0], pieces.size * pieces.places);
        pieces.ready = data_of<uint32_t>(parts[3], 1);
        pieces.taken = data_of<uint32_t>(parts[4], 1);
        pieces.over = data_of<const uint32_t>(parts[5], 1);
        pieces.first = nb::cast<uint32_t>(parts[6]);
        pieces.span = std::min(nb::cast<size_t>(parts[7]), count);
        packed = nb::cast<bool>(parts[8]);
        pieces.patience = nb::cast<double>(parts[9]);
        const size_t width = packed ? 3 : sizeof(int32_t);
        if (!pieces.memory || !pieces.ready || !pieces.taken || !pieces.over || pieces.span == 0 ||
            batch * pieces.span * width > pieces.size)
            throw nb::value_error("the pieces of a pass do not fit their places");
    }

    const Pieces* ring() const { return given ? &pieces : nullptr; }
};

// What of a pass comes and goes in pieces; both are cut alike. A claim that comes is neither in claims nor in packed, and
// `pass` is as if its first piece lay there; words that go are not in blinded, likewise.
struct Cut {
    Way coming, going;
    size_t span;  // elements of an item in a piece, or all of them

    Cut(FusedPass& pass, nb::handle claim, nb::handle words)
        : coming(pass.batch, pass.count, claim), going(pass.batch, pass.count, words), span(pass.count) {
        if (coming.given) span = coming.pieces.span;
        if (going.given) span = going.pieces.span;
        if (coming.given && (coming.pieces.span != span || pass.claims || pass.packed))
            throw nb::value_error("a claim comes in pieces, cut as the words are, or lies in an array");
        if (going.given && (pass.blinded || going.packed))
            throw nb::value_error("words go in pieces, or into an array");
        point(pass, 0);
    }

    bool given() const { return coming.given || going.given; }
    size_t begin(size_t piece) const { return piece * span; }
    size_t end(size_t piece, size_t count) const { return std::min(begin(piece) + span, count); }
    size_t count(size_t elements) const { return (elements + span - 1) / span; }

    // Where element 0 of the first item would lie if the piece held all elements.
    void point(FusedPass& pass, size_t piece) const {
        const size_t stride = end(piece, pass.count) - begin(piece);
        if (coming.given) {
            const uint8_t* const place = coming.pieces.place(piece);
            pass.claim_stride = stride;
            if (coming.packed) {
                pass.packed = place - 3 * begin(piece);
            } else {
                pass.claims = reinterpret_cast<const int32_t*>(place) - begin(piece);
            }
        }
        if (going.given) {
            pass.blinded = reinterpret_cast<int32_t*>(going.pieces.place(piece)) - begin(piece);
            pass.blinded_stride = stride;
        }
    }
};

// How the pieces went (as Arrival; 0: all, or there are none), when the last was done with on the steady clock, and the
// most seconds that a thread waited for them.
nb::tuple told(const Schedule& schedule) {
    if (schedule.arrival() == Arrival::interrupted) throw nb::python_error();
    return nb::make_tuple(static_cast<int>(schedule.arrival()), schedule.arrived_at(), schedule.waited());
}

void add_dots(uint64_t* total, const uint64_t* more, size_t count) {
    constexpr uint64_t prime = (uint64_t{1} << 51) - 129;
    for (size_t i = 0; i < count; ++i) {
        const uint64_t sum = total[i] + more[i];  // < 2p < 2^52
        total[i] = sum - (prime & (0 - static_cast<uint64_t>(sum >= prime)));
    }
}

// One side's dots: uint64 [threads, batch, probes], of which each thread sums its own; at last the first holds all.
struct Dots {
    uint64_t* sums;
    size_t threads, count;  // of one thread

    Dots(nb::handle array, size_t most, size_t of_thread)
        : sums(data_of<uint64_t>(array, most * of_thread)), threads(most), count(of_thread) {
        std::fill_n(sums, threads * count, 0);
    }

    uint64_t* of(size_t thread) const { return sums + thread * count; }

    void finish() const {
        for (size_t thread = 1; thread < threads; ++thread) add_dots(sums, of(thread), count);
    }
};

// shape: (batch, count, elements a range is a multiple of, ranges of a piece at most, threads). Returns as `told`.
nb::tuple fused_pass(int isa, Team& team, nb::tuple shape, nb::tuple source, nb::tuple program, nb::tuple output,
                     nb::tuple dots, nb::handle claim, nb::handle words) {
    FusedPass pass{};
    pass.batch = nb::cast<size_t>(shape[0]);
    pass.count = nb::cast<size_t>(shape[1]);
    const size_t multiple = nb::cast<size_t>(shape[2]), most = nb::cast<size_t>(shape[3]);
    const size_t threads = nb::cast<size_t>(shape[4]);
    if (multiple == 0 || most == 0 || threads == 0) throw nb::value_error("a pass has at least one range");
    read_source(pass, source);
    read_program(pass, program);
    read_output(pass, output);
    const Cut cut(pass, claim, words);
    const Dots source_dots(dots[0], threads, pass.batch * pass.probe_count);
    const Dots output_dots(dots[1], threads, pass.batch * pass.image_count);
    pass.source_dots = source_dots.sums;
    pass.output_dots = output_dots.sums;
    check_whole(pass);
    const FusedKernels& chosen = kernels(isa);
    const auto ranges_of = [&](size_t piece) {
        return Ranges(cut.begin(piece), cut.end(piece, pass.count), multiple, most);
    };
    const size_t units = ranges_of(0).parts;  // the last piece may have fewer
    Schedule schedule(cut.coming.ring(), cut.going.ring(), cut.count(pass.count), units);
    {
        nb::gil_scoped_release released;
        auto work = [&](size_t thread) {
            std::vector<uint64_t> found(source_dots.count + output_dots.count);
            schedule.run([&](size_t piece, size_t unit) {
                const Ranges ranges = ranges_of(piece);
                if (unit >= ranges.parts) return;
                FusedPass own = pass;
                cut.point(own, piece);
                own.begin = ranges.edge(unit);
                own.end = ranges.edge(unit + 1);
                own.source_dots = found.data();
                own.output_dots = found.data() + source_dots.count;
                chosen.pass(own);
                add_dots(source_dots.of(thread), own.source_dots, source_dots.count);
                add_dots(output_dots.of(thread), own.output_dots, output_dots.count);
            });
        };
        team.run(std::min(threads, cut.given() ? threads : units), work);
        source_dots.finish();
        output_dots.finish();
    }
    return told(schedule);
}

// A maximum pool whose windows take the rows of an image one after another, so that bands of rows are independent: the
// activation of a band stays in a buffer, in the cache, and only its maxima are written.
struct Pooling {
    PoolGeometry geometry;
    int16_t *scratch, *pooled;
    size_t band;  // elements of the largest band; the scratch of one part has room for `pooling_items` of them

    // The elements of the image rows that output row `row` reads.
    size_t first(size_t row) const { return static_cast<size_t>(geometry.rows[3 * row]) * row_elements(); }
    size_t last(size_t row) const { return static_cast<size_t>(geometry.rows[3 * row + 1]) * row_elements(); }
    size_t row_elements() const { return static_cast<size_t>(geometry.input_width * geometry.channels); }
    size_t height() const { return static_cast<size_t>(geometry.output_height); }
    size_t outputs() const {
        return static_cast<size_t>(geometry.output_height * geometry.output_width * geometry.channels);
    }

    // Whether the windows are two pixels by two, side by side, and cover the image.
    bool pairs() const {
        return are_pairs(geometry.rows, geometry.output_height) && are_pairs(geometry.columns, geometry.output_width) &&
               2 * geometry.output_width == geometry.input_width;
    }

private:
    static bool are_pairs(const int64_t* windows, int64_t count) {
        for (int64_t k = 0; k < count; ++k, windows += 3)
            if (windows[0] != 2 * k || windows[1] != 2 * k + 2 || windows[2] != 1) return false;
        return true;
    }
};

constexpr size_t pooling_items = 2;  // that share the probes of a band, while their activations stay in the cache

// pool: (rows, columns, output rows, output columns, width, channels, scratch, pooled, largest band). That the windows
// follow one another and stay inside the image is checked by slalom.arithmetic.fused.
Pooling read_pooling(const nb::tuple& pool, size_t batch, size_t most) {
    Pooling pooling{};
    PoolGeometry& g = pooling.geometry;
    g.output_height = nb::cast<int64_t>(pool[2]);
    g.output_width = nb::cast<int64_t>(pool[3]);
    g.input_width = nb::cast<int64_t>(pool[4]);
    g.channels = nb::cast<int64_t>(pool[5]);
    pooling.band = nb::cast<size_t>(pool[8]);
    g.rows = data_of<const int64_t>(pool[0], 3 * static_cast<size_t>(g.output_height));
    g.columns = data_of<const int64_t>(pool[1], 3 * static_cast<size_t>(g.output_width));
    pooling.scratch = data_of<int16_t>(pool[6], most * pooling_items * pooling.band);
    pooling.pooled = data_of<int16_t>(pool[7], batch * pooling.outputs());
    if (!g.rows || !g.columns || !pooling.scratch || !pooling.pooled) throw nb::value_error("a pool lacks an array");
    return pooling;
}

// The pass over some items of a band: elements of one row of maxima.
FusedPass pass_of(const FusedPass& pass, const Pooling& pooling, size_t row, size_t item, size_t items, uint64_t* dots) {
    FusedPass own = pass;
    const size_t place = item * pass.count;
    own.batch = items;
    own.begin = pooling.first(row);
    own.end = pooling.last(row);
    own.claims = pass.claims == nullptr ? nullptr : pass.claims + item * pass.claim_stride;
    own.packed = pass.packed == nullptr ? nullptr : pass.packed + 3 * item * pass.claim_stride;
    own.activation = pass.activation == nullptr ? nullptr : pass.activation + place;
    own.mask_image = pass.mask_image == nullptr ? nullptr : pass.mask_image + place;
    for (size_t k = 0; k < pass.operation_count; ++k)
        if (own.operations[k].operand != nullptr) own.operations[k].operand += item * own.operations[k].length;
    own.source_dots = own.output_dots = dots;  // of the output there are none
    return own;
}

// How the bands of a pass are pooled: in registers where the pass and the windows allow it, or through a scratch buffer.
class Bands {
public:
    Bands(const FusedKernels& kernels, const LinearKernels& linear, const FusedPass& pass, const Pooling& pooling)
        : kernels_(kernels), linear_(linear), pooling_(pooling) {
        const size_t channels = static_cast<size_t>(pooling.geometry.channels);
        direct_ = pooling.pairs() ? kernels.find_pool(pass, channels) : nullptr;
    }

    // The items of a band that are done together, which share its probes.
    size_t items() const { return direct_ == nullptr ? pooling_items : pool_band_items; }

    // Some items of one band: its maxima, and its dots added to those of the thread.
    void run(const FusedPass& pass, size_t row, size_t item, int16_t* scratch, uint64_t* dots) const {
        uint64_t found[pool_band_items * maximum_probes];
        const size_t count = std::min(pass.batch - item, items());
        FusedPass own = pass_of(pass, pooling_, row, item, count, found);
        int16_t* const maxima = pooling_.pooled + item * pooling_.outputs();
        if (direct_ != nullptr) {
            const size_t width = static_cast<size_t>(pooling_.geometry.output_width);
            const size_t channels = static_cast<size_t>(pooling_.geometry.channels);
            int16_t* const first = maxima + row * width * channels;
            direct_(own, {pooling_.row_elements(), width, channels, first, pooling_.outputs()});
        } else {
            pool_through(own, row, scratch, maxima);
        }
        add_dots(dots + item * pass.probe_count, found, count * pass.probe_count);
    }

private:
    static_assert(pool_band_items >= pooling_items);

    // The pass into `scratch`, the maxima out of it.
    void pool_through(FusedPass& own, size_t row, int16_t* scratch, int16_t* maxima) const {
        int16_t* const image = scratch - own.begin;  // where element 0 of the first item would be
        own.activation_out = image;
        own.activation_stride = pooling_.band;
        own.stream_values = false;
        kernels_.pass(own);
        for (size_t k = 0; k < own.batch; ++k)
            linear_.pool_maximum(pooling_.geometry, image + k * pooling_.band, maxima + k * pooling_.outputs(),
                                 static_cast<int64_t>(row), static_cast<int64_t>(row) + 1);
    }

    const FusedKernels& kernels_;
    const LinearKernels& linear_;
    const Pooling& pooling_;
    PoolBanded direct_;
};

// As fused_pass, but what is written is the maximum of each window; a unit is a band: some items of one output row. No
// piece ends within the rows of a window. shape: (batch, count, threads). dots: uint64 [threads, batch, probes].
nb::tuple fused_pass_pooled(int isa, Team& team, nb::tuple shape, nb::tuple source, nb::tuple program, nb::tuple pool,
                            nb::handle dots, nb::handle claim) {
    FusedPass pass{};
    pass.batch = nb::cast<size_t>(shape[0]);
    pass.count = nb::cast<size_t>(shape[1]);
    const size_t threads = nb::cast<size_t>(shape[2]);
    if (threads == 0) throw nb::value_error("a pass has at least one range");
    read_source(pass, source);
    read_program(pass, program);
    const Cut cut(pass, claim, nb::none());
    const Pooling pooling = read_pooling(pool, pass.batch, threads);
    const Dots found(dots, threads, pass.batch * pass.probe_count);
    pass.source_dots = pass.output_dots = found.sums;
    check_whole(pass);
    const Bands bands(kernels(isa), linear_kernels(isa), pass, pooling);
    const size_t groups = (pass.batch + bands.items() - 1) / bands.items();
    std::vector<size_t> rows{0};  // the first output row of each piece, and the end
    for (size_t piece = 0; piece < cut.count(pass.count); ++piece) {
        size_t row = rows.back();
        while (row < pooling.height() && pooling.last(row) <= cut.end(piece, pass.count)) ++row;
        rows.push_back(row);
    }
    Schedule schedule(cut.coming.ring(), nullptr, rows.size() - 1, std::max<size_t>(1, rows[1]) * groups);
    {
        nb::gil_scoped_release released;
        auto work = [&](size_t thread) {
            int16_t* const scratch = pooling.scratch + thread * pooling_items * pooling.band;
            schedule.run([&](size_t piece, size_t unit) {
                const size_t row = rows[piece] + unit / groups;
                if (row >= rows[piece + 1]) return;
                FusedPass own = pass;
                cut.point(own, piece);
                bands.run(own, row, unit % groups * bands.items(), scratch, found.of(thread));
            });
        };
        team.run(threads, work);
        found.finish();
    }
    return told(schedule);
}

using Factor = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Product = nb::ndarray<uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void field_multiply(int isa, Factor a, Factor b, Product product) {
    if (a.size() != product.size() || b.size() != product.size()) throw nb::value_error("the lengths differ");
    const FusedKernels& chosen = kernels(isa);
    nb::gil_scoped_release released;
    chosen.multiply(a.data(), b.data(), product.data(), product.size());
}

}  // namespace

void bind_fused(nb::module_& module) {
    module.def("fused_pass", &fused_pass, nb::arg("isa"), nb::arg("team"), nb::arg("shape"), nb::arg("source"),
               nb::arg("program"), nb::arg("output"), nb::arg("dots"), nb::arg("claim").none(), nb::arg("words").none(),
               "The fused pass; see slalom.arithmetic.fused.");
    module.attr("POOLING_ITEMS") = pooling_items;
    module.def("fused_pass_pooled", &fused_pass_pooled, nb::arg("isa"), nb::arg("team"), nb::arg("shape"),
               nb::arg("source"), nb::arg("program"), nb::arg("pool"), nb::arg("dots"), nb::arg("claim").none(),
               "The fused pass that keeps maxima alone; see slalom.arithmetic.fused.");
    module.def("field_multiply", &field_multiply, nb::arg("isa"), nb::arg("a").noconvert(), nb::arg("b").noconvert(),
               nb::arg("product").noconvert(), "Elementwise a * b mod p for elements of the field.");
}
