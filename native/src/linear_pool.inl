// The pooling of linear.inl.

namespace {

struct Maximum {
    using Result = int16_t;
    static Result join(Result sum, int16_t x) { return x > sum ? x : sum; }
};

struct Sum {
    using Result = int32_t;
    static Result join(Result sum, int16_t x) { return sum + x; }
};

template <typename Join>
void pool_window(const PoolGeometry& g, const int16_t* image, typename Join::Result* out, const int64_t* rows,
                 const int64_t* columns) {
    bool first = true;
    for (int64_t r = rows[0]; r < rows[1]; r += rows[2])
        for (int64_t c = columns[0]; c < columns[1]; c += columns[2]) {
            const int16_t* x = image + (r * g.input_width + c) * g.channels;
            if (first)
                for (int64_t k = 0; k < g.channels; ++k) out[k] = x[k];
            else
                for (int64_t k = 0; k < g.channels; ++k) out[k] = Join::join(out[k], x[k]);
            first = false;
        }
}

template <typename Join>
void pool(const PoolGeometry& g, const int16_t* x, typename Join::Result* y, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        const int16_t* image = x + row / g.output_height * g.input_height * g.input_width * g.channels;
        const int64_t* rows = g.rows + row % g.output_height * 3;
        for (int64_t column = 0; column < g.output_width; ++column)
            pool_window<Join>(g, image, y + (row * g.output_width + column) * g.channels, rows,
                              g.columns + column * 3);
    }
}

}  // namespace
