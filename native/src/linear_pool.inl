// The pooling of linear.inl: a block of channels stays in one register while its window is read.

namespace {

constexpr int64_t POOL_LANES = 32;

template <typename Number, int64_t count>
struct PoolBlock {
    typedef Number Vector __attribute__((vector_size(sizeof(Number) * count)));
};

template <typename Vector, typename Number>
inline __attribute__((always_inline)) Vector load_block(const Number* from) {
    Vector block;
    __builtin_memcpy(&block, from, sizeof block);
    return block;
}

struct Maximum {
    using Result = int16_t;
    static Result join(Result sum, int16_t x) { return x > sum ? x : sum; }
    template <typename Wide, typename Block>
    static Wide widen(Block x) { return x; }
    template <typename Wide>
    static Wide join_blocks(Wide sum, Wide x) { return x > sum ? x : sum; }
};

struct Sum {
    using Result = int32_t;
    static Result join(Result sum, int16_t x) { return sum + x; }
    template <typename Wide, typename Block>
    static Wide widen(Block x) { return __builtin_convertvector(x, Wide); }
    template <typename Wide>
    static Wide join_blocks(Wide sum, Wide x) { return sum + x; }
};

// One window of one output pixel.
struct PoolWindow {
    const int64_t *rows, *columns;

    template <typename Visit>
    inline __attribute__((always_inline)) void visit(const PoolGeometry& g, Visit visit) const {
        for (int64_t r = rows[0]; r < rows[1]; r += rows[2])
            for (int64_t c = columns[0]; c < columns[1]; c += columns[2])
                visit((r * g.input_width + c) * g.channels);
    }

    int64_t first(const PoolGeometry& g) const { return (rows[0] * g.input_width + columns[0]) * g.channels; }
};

template <typename Join, int64_t count>
inline int64_t pool_blocks(const PoolGeometry& g, const PoolWindow& window, const int16_t* image,
                           typename Join::Result* out, int64_t k) {
    using Block = typename PoolBlock<int16_t, count>::Vector;
    using Wide = typename PoolBlock<typename Join::Result, count>::Vector;
    for (; k + count <= g.channels; k += count) {
        Wide sum = Join::template widen<Wide>(load_block<Block>(image + window.first(g) + k));
        bool first = true;
        window.visit(g, [&](int64_t place) {
            const Wide x = Join::template widen<Wide>(load_block<Block>(image + place + k));
            sum = first ? sum : Join::join_blocks(sum, x);
            first = false;
        });
        __builtin_memcpy(out + k, &sum, sizeof sum);
    }
    return k;
}

template <typename Join>
void pool_window(const PoolGeometry& g, const PoolWindow& window, const int16_t* image, typename Join::Result* out) {
    int64_t k = pool_blocks<Join, POOL_LANES>(g, window, image, out, 0);
    k = pool_blocks<Join, POOL_LANES / 4>(g, window, image, out, k);
    for (; k < g.channels; ++k) {
        bool first = true;
        window.visit(g, [&](int64_t place) {
            const int16_t x = image[place + k];
            out[k] = first ? typename Join::Result(x) : Join::join(out[k], x);
            first = false;
        });
    }
}

template <typename Join>
void pool(const PoolGeometry& g, const int16_t* x, typename Join::Result* y, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        const int16_t* image = x + row / g.output_height * g.input_height * g.input_width * g.channels;
        const int64_t* rows = g.rows + row % g.output_height * 3;
        for (int64_t column = 0; column < g.output_width; ++column)
            pool_window<Join>(g, {rows, g.columns + column * 3}, image,
                              y + (row * g.output_width + column) * g.channels);
    }
}

}  // namespace
