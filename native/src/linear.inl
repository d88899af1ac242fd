#include "isa.hpp"
#include "linear.hpp"
extern const LinearKernels SLALOM_LINEAR_TABLE;
const LinearKernels SLALOM_LINEAR_TABLE{0};
