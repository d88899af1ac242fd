// Eight tiles of 16 rows of 64 bytes, and taking integers apart into bytes: the processor's (AMX), or in plain C++.
#pragma once

#include <cstdint>
#include <cstring>

#include "linear.hpp"

#if defined(SLALOM_TILES_AMX)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t TILE_EDGE = PANEL_WIDTH;  // rows of a tile, and int32 of a row
constexpr int64_t TILE_BYTES = TILE_DEPTH;  // of a row

#if defined(SLALOM_TILES_AMX)

// Owns the calling thread's tiles while it lives. Registers are numbered at compile time.
class Tiles {
public:
    Tiles() {
        struct alignas(64) {
            uint8_t palette, start_row, reserved[14];
            uint16_t row_bytes[16];
            uint8_t rows[16];
        } config{};
        static_assert(sizeof config == 64);
        config.palette = 1;
        for (int tile = 0; tile < 8; ++tile) {
            config.row_bytes[tile] = TILE_BYTES;
            config.rows[tile] = TILE_EDGE;
        }
        asm volatile("ldtilecfg %0" ::"m"(config));
    }
    ~Tiles() { asm volatile("tilerelease"); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

    template <int N>
    void zero() { asm volatile("tilezero %%tmm%c0" ::"i"(N)); }

    template <int N>
    void load(const void* rows, int64_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride), "i"(N) : "memory");
    }

    template <int N>
    void store(int32_t* rows) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(TILE_BYTES), "i"(N) : "memory");
    }

    // SUM += A · B, int32 that wraps: B is signed, A as SIGNED says.
    template <int SUM, int A, int B, bool SIGNED>
    void dot() {
        if constexpr (SIGNED) asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(A), "i"(B));
        else asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(A), "i"(B));
    }
};

// Digit d of element i to planes[d * stride + i].
inline void split_words(uint8_t* planes, int64_t stride, const int32_t* words, int64_t count) {
    const __m512i by_digit = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i by_plane = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (; count > 0; count -= 16, words += 16, planes += 16) {
        const __mmask16 mask = count >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << count) - 1);
        const __m512i word = _mm512_maskz_loadu_epi32(mask, words);
        const __m512i digits = _mm512_permutexvar_epi32(by_plane, _mm512_shuffle_epi8(word, by_digit));
        _mm_mask_storeu_epi8(planes, mask, _mm512_castsi512_si128(digits));
        _mm_mask_storeu_epi8(planes + stride, mask, _mm512_extracti32x4_epi32(digits, 1));
        _mm_mask_storeu_epi8(planes + 2 * stride, mask, _mm512_extracti32x4_epi32(digits, 2));
        _mm_mask_storeu_epi8(planes + 3 * stride, mask, _mm512_extracti32x4_epi32(digits, 3));
    }
}

inline void split_activations(uint8_t* planes, int64_t stride, const int16_t* activations, int64_t count) {
    for (; count > 0; count -= 32, activations += 32, planes += 32) {
        const __mmask32 mask = count >= 32 ? (__mmask32)0xFFFFFFFF : (__mmask32)((1u << count) - 1);
        const __m512i activation = _mm512_maskz_loadu_epi16(mask, activations);
        _mm256_mask_storeu_epi8(planes, mask, _mm512_cvtepi16_epi8(activation));
        _mm256_mask_storeu_epi8(planes + stride, mask, _mm512_cvtepi16_epi8(_mm512_srli_epi16(activation, 8)));
    }
}

#else

class Tiles {
public:
    template <int N>
    void zero() { std::memset(tiles_[N], 0, sizeof tiles_[N]); }

    template <int N>
    void load(const void* rows, int64_t stride) {
        for (int64_t row = 0; row < TILE_EDGE; ++row)
            std::memcpy(tiles_[N] + row * TILE_BYTES, static_cast<const uint8_t*>(rows) + row * stride, TILE_BYTES);
    }

    template <int N>
    void store(int32_t* rows) { std::memcpy(rows, tiles_[N], sizeof tiles_[N]); }

    // SUM += A · B, int32 that wraps: B is signed, A as SIGNED says.
    template <int SUM, int A, int B, bool SIGNED>
    void dot() {
        uint32_t sums[TILE_EDGE * TILE_EDGE];
        std::memcpy(sums, tiles_[SUM], sizeof sums);
        for (int64_t row = 0; row < TILE_EDGE; ++row)
            for (int64_t column = 0; column < TILE_EDGE; ++column)
                for (int64_t k = 0; k < TILE_BYTES; ++k) {
                    const uint8_t a = tiles_[A][row * TILE_BYTES + k];
                    const int8_t b = int8_t(tiles_[B][(k / 4 * TILE_EDGE + column) * 4 + k % 4]);
                    sums[row * TILE_EDGE + column] += uint32_t((SIGNED ? int32_t(int8_t(a)) : int32_t(a)) * b);
                }
        std::memcpy(tiles_[SUM], sums, sizeof sums);
    }

private:
    uint8_t tiles_[8][TILE_EDGE * TILE_BYTES];
};

// Digit d of element i to planes[d * stride + i].
inline void split_words(uint8_t* planes, int64_t stride, const int32_t* words, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        for (int digit = 0; digit < 4; ++digit) planes[digit * stride + i] = uint8_t(uint32_t(words[i]) >> 8 * digit);
}

inline void split_activations(uint8_t* planes, int64_t stride, const int16_t* activations, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        for (int digit = 0; digit < 2; ++digit) planes[digit * stride + i] = uint8_t(uint16_t(activations[i]) >> 8 * digit);
}

#endif

}  // namespace
