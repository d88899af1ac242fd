// The kernels compiled for one instruction set: portable (flags in CMakeLists.txt).
#define SLALOM_ISA_PORTABLE 1
#define SLALOM_FUSED_TABLE fused_portable
#define SLALOM_LINEAR_TABLE linear_portable
#include "fused.inl"
#include "linear.inl"
