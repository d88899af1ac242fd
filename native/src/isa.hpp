// One translation unit per instruction set instantiates the same kernels; these tables join them.
//
// LOAD-BEARING: everything an isa_*.cpp includes must have internal linkage (static or an anonymous namespace) and
// use no std:: templates. An inline function compiled there with AVX-512 could otherwise be the one copy the linker
// keeps, and the portable path would stop with an illegal instruction on an older processor.
#pragma once

#include <cstdint>

struct FusedKernels;
struct LinearKernels;
struct MapGeometry;
struct Source;
struct GemmRange;

// amx: avx512, with the matrix product on tiles. tiles: portable, with that product on tiles in plain C++.
enum class Isa : int { portable = 0, avx2 = 1, avx512 = 2, amx = 3, tiles = 4 };

// y = W x mod 2^32 on the range; scratch is int16 [SCRATCH_ELEMENTS], 64-byte aligned or not (linear.hpp).
using Gemm = void(const MapGeometry&, Source, const int8_t* panels, int32_t* y, int16_t* scratch, GemmRange);

extern const FusedKernels fused_portable, fused_avx2, fused_avx512;
extern const LinearKernels linear_portable, linear_avx2, linear_avx512;
extern Gemm *const tiles_amx, *const tiles_plain;

const LinearKernels& linear_kernels(int isa);
