#include <nanobind/nanobind.h>
namespace nb = nanobind;
void bind_fused(nb::module_&) {}
