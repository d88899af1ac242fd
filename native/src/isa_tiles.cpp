// The matrix product on tiles in plain C++: the same template, for tests on processors that have none.
#define SLALOM_TILES_GEMM tiles_plain
#include "linear_tiles.inl"
