// The matrix product on the processor's tiles (flags in CMakeLists.txt).
#define SLALOM_TILES_AMX 1
#define SLALOM_TILES_GEMM tiles_amx
#include "linear_tiles.inl"
