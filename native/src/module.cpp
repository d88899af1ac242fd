// The extension's door: which instruction sets this processor runs, and the kernels of the other files.
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "isa.hpp"
#include "team.hpp"

namespace nb = nanobind;

void bind_fused(nb::module_& module);
void bind_linear(nb::module_& module);

#if defined(__x86_64__)
// Whether there are tiles of int8, and the system lets this process use them: Linux asks to be asked.
static bool may_use_tiles() {
#if defined(__linux__)
    constexpr unsigned tile_bit = 1u << 24, int8_bit = 1u << 25;
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & tile_bit) == 0 || (d & int8_bit) == 0) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}
#endif

static std::vector<std::string> supported_isas() {
    std::vector<std::string> names{"portable"};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) names.emplace_back("avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi")) {
        names.emplace_back("avx512");
        if (may_use_tiles()) names.emplace_back("amx");
    }
#endif
    return names;
}

NB_MODULE(_native, module) {
    nb::set_leak_warnings(false);  // whoever holds a team until the interpreter ends leaks nothing that matters
    module.doc() = "Exact kernels of the trusted side. Arguments are validated by slalom.arithmetic, not here.";
    module.def("supported_isas", &supported_isas, "Instruction sets this processor runs, slowest first.");
    nb::class_<Team>(module, "Team", "Threads that share the parts of one kernel call after another.")
        .def(nb::init<size_t, int>(), nb::arg("threads"), nb::arg("niceness") = 0)
        .def("close", &Team::close, nb::call_guard<nb::gil_scoped_release>());
    bind_fused(module);
    bind_linear(module);
}
