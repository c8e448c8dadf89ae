#include "kernels/kernels.hpp"

#include <vector>

#include "bpe/core/base/kernel_choice.hpp"

namespace model {

static std::vector<Kernel> available_kernels() {
    std::vector<Kernel> found;
#ifdef MODEL_X86_KERNELS
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni")) {
#ifdef MODEL_AMX_KERNELS
        if (can_amx()) found.push_back(amx_kernel());
#endif
        found.push_back(avx512_kernel());
    }
    // Every processor with AVX2 and FMA also has F16C, which converts half-precision numbers.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
#ifdef MODEL_AVX_VNNI_KERNELS
        if (__builtin_cpu_supports("avxvnni")) found.push_back(avxvnni_kernel());
#endif
        found.push_back(avx2_kernel());
    }
#endif
#ifdef MODEL_ARM_KERNELS
    if (can_neon()) found.push_back(neon_kernel());
#endif
    found.push_back(plain_kernel());
    return found;
}

std::span<const Kernel> kernels() {
    static const std::vector<Kernel> found = available_kernels();
    return found;
}

const Kernel& chosen_kernel() {
    static const Kernel& chosen = bpe::kernel_chosen_by("MODEL_KERNEL", kernels());
    return chosen;
}

}  // namespace model
