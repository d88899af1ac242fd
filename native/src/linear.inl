// The kernels of linear.hpp for one instruction set. All of int32 is arithmetic mod 2^32: wrap-around, never saturation.
#include <cstring>

#include "isa.hpp"
#include "linear.hpp"
#include "linear_geometry.inl"
#include "linear_vector.inl"
#include "linear_tile.inl"
#include "linear_patches.inl"
#include "linear_gemm.inl"
#include "linear_depthwise.inl"
#include "linear_outer.inl"
#include "linear_pool.inl"

extern const LinearKernels SLALOM_LINEAR_TABLE;
const LinearKernels SLALOM_LINEAR_TABLE{&gemm, &depthwise, &field_outer, &pool<Maximum>, &pool<Sum>};
