#include "isa.hpp"
#include "fused.hpp"
extern const FusedKernels SLALOM_FUSED_TABLE;
const FusedKernels SLALOM_FUSED_TABLE{0};
