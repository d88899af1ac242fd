// One translation unit per instruction set instantiates the same kernels; these tables join them.
//
// LOAD-BEARING: everything an isa_*.cpp includes must have internal linkage (static or an anonymous namespace) and
// use no std:: templates. An inline function compiled there with AVX-512 could otherwise be the one copy the linker
// keeps, and the portable path would stop with an illegal instruction on an older processor.
#pragma once

struct FusedKernels;
struct LinearKernels;

enum class Isa : int { portable = 0, avx2 = 1, avx512 = 2 };

extern const FusedKernels fused_portable, fused_avx2, fused_avx512;
extern const LinearKernels linear_portable, linear_avx2, linear_avx512;

const LinearKernels& linear_kernels(int isa);
