// The kernels compiled for one instruction set: avx512 (flags in CMakeLists.txt).
#define SLALOM_ISA_AVX512 1
#define SLALOM_FUSED_TABLE fused_avx512
#define SLALOM_LINEAR_TABLE linear_avx512
#include "fused.inl"
#include "linear.inl"
