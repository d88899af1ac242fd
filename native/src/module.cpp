// The extension's door: which instruction sets this processor runs, and the kernels of the other files.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "isa.hpp"
#include "team.hpp"

namespace nb = nanobind;

void bind_fused(nb::module_& module);
void bind_linear(nb::module_& module);

static std::vector<std::string> supported_isas() {
    std::vector<std::string> names{"portable"};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) names.emplace_back("avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma") &&
        __builtin_cpu_supports("avx512vnni"))
        names.emplace_back("avx512");
#endif
    return names;
}

NB_MODULE(_native, module) {
    nb::set_leak_warnings(false);  // whoever holds a team until the interpreter ends leaks nothing that matters
    module.doc() = "Exact kernels of the trusted side. Arguments are validated by slalom.arithmetic, not here.";
    module.def("supported_isas", &supported_isas, "Instruction sets this processor runs, slowest first.");
    nb::class_<Team>(module, "Team", "Threads that share the parts of one kernel call after another.")
        .def(nb::init<size_t>(), nb::arg("threads"))
        .def("close", &Team::close, nb::call_guard<nb::gil_scoped_release>());
    bind_fused(module);
    bind_linear(module);
}
