// The kernels compiled for one instruction set: avx2 (flags in CMakeLists.txt).
#define SLALOM_ISA_AVX2 1
#define SLALOM_FUSED_TABLE fused_avx2
#define SLALOM_LINEAR_TABLE linear_avx2
#include "fused.inl"
#include "linear.inl"
