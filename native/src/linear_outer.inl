// The outer product of linear.inl in F_p, p = 2^51 - 129, through the transposed map.

namespace {

constexpr uint64_t FIELD_P = (uint64_t(1) << 51) - 129;
constexpr uint64_t FIELD_MASK = (uint64_t(1) << 51) - 1;

// A sum of products of elements of F_p; at most 4096 of them: < 2^12 * 2^102 = 2^114.
struct ScalarProducts {
    unsigned __int128 total = 0;

    void add(uint64_t a, const uint64_t* b) { total += static_cast<unsigned __int128>(a) * *b; }

    void store(uint64_t* out) const {
        // 2^51 = 129 mod p: (total >> 51) < 2^63, so once < 2^51 + 2^71, and twice < 2^51 + 2^21 * 129 < 2p
        const unsigned __int128 once = (total & FIELD_MASK) + (total >> 51) * 129;
        const uint64_t twice = uint64_t(once & FIELD_MASK) + uint64_t(once >> 51) * 129;
        const uint64_t less = twice - FIELD_P;  // wraps to a huge number when twice < p
        *out = less < twice ? less : twice;
    }
};

#if defined(SLALOM_ISA_AVX512)

// Eight sums at once: the 52-bit multiplier adds low and high halves, product = low + 2^52 * high.
struct FieldProducts {
    __m512i low = _mm512_setzero_si512(), high = _mm512_setzero_si512();

    void add(uint64_t a, const uint64_t* b) {
        const __m512i x = _mm512_set1_epi64((long long)a), y = _mm512_loadu_si512(b);
        low = _mm512_madd52lo_epu64(low, x, y);    // 4096 terms < 2^52 -> <= 2^64 - 2^12
        high = _mm512_madd52hi_epu64(high, x, y);  // 4096 terms < 2^50 -> < 2^62
    }

    void store(uint64_t* out) const {
        // 2^52 = 258 mod p; fold(high) < 2^51 + 2^11 * 129 < 2^52, times 258 < 2^61; fold(low) < 2^52
        const __m512i sum = _mm512_add_epi64(fold(low), times(fold(high), 258));
        const __m512i once = fold(sum);  // < 2^51 + 2^11 * 129 < 2p
        const __m512i p = _mm512_set1_epi64((long long)FIELD_P);
        _mm512_storeu_si512(out, _mm512_min_epu64(once, _mm512_sub_epi64(once, p)));
    }

   private:
    static __m512i times(__m512i a, long long b) { return _mm512_mullo_epi64(a, _mm512_set1_epi64(b)); }

    static __m512i fold(__m512i a) {
        const __m512i mask = _mm512_set1_epi64((long long)FIELD_MASK);
        return _mm512_add_epi64(_mm512_and_si512(a, mask), times(_mm512_srli_epi64(a, 51), 129));
    }
};

constexpr int64_t FIELD_LANES = 8;

#else

using FieldProducts = ScalarProducts;
constexpr int64_t FIELD_LANES = 1;

#endif

// The image's element (or lanes) at row r, column c, from channel offset k on: the taps that read it, in order.
template <typename Products>
[[gnu::always_inline]] inline void outer_element(const MapGeometry& g, const uint64_t* spatial, const uint64_t* kernel,
                                                 uint64_t* out, int64_t r, int64_t c) {
    Products products;
    for (int64_t a = 0; a < g.kernel_height; ++a) {
        const int64_t y = r + g.padding_top - a * g.dilation_height;
        if (y < 0 || y % g.stride_height || y / g.stride_height >= g.output_height) continue;
        for (int64_t b = 0; b < g.kernel_width; ++b) {
            const int64_t x = c + g.padding_left - b * g.dilation_width;
            if (x < 0 || x % g.stride_width || x / g.stride_width >= g.output_width) continue;
            products.add(spatial[y / g.stride_height * g.output_width + x / g.stride_width],
                         kernel + (a * g.kernel_width + b) * g.input_channels);
        }
    }
    products.store(out);
}

void field_outer(const MapGeometry& g, const uint64_t* spatial, const uint64_t* kernel, uint64_t* image, int64_t begin,
                 int64_t end) {
    for (int64_t r = begin; r < end; ++r)
        for (int64_t c = 0; c < g.input_width; ++c) {
            uint64_t* out = image + (r * g.input_width + c) * g.input_channels;
            int64_t k = 0;
            for (; k + FIELD_LANES <= g.input_channels; k += FIELD_LANES)
                outer_element<FieldProducts>(g, spatial, kernel + k, out + k, r, c);
            for (; k < g.input_channels; ++k) outer_element<ScalarProducts>(g, spatial, kernel + k, out + k, r, c);
        }
}

}  // namespace
