#include "kernels/kernels.hpp"

#include <vector>

#include "base/kernel_choice.hpp"

namespace bpe {

namespace {

std::vector<Kernel> available_kernels() {
    std::vector<Kernel> found;
#ifdef BPE_X86_KERNELS
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
        __builtin_cpu_supports("avx512vbmi2")) {
        found.push_back({"avx512", scan_avx512, probe_avx512, write_avx512, merge_round_avx512, &kUtf8Avx512});
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
        found.push_back({"avx2", scan_avx2, probe_avx2, write_plain, merge_round_avx2, &kUtf8Avx2});
#endif
#ifdef BPE_ARM_KERNELS
    found.push_back({"neon", scan_neon, probe_plain, write_neon, merge_round_neon, &kUtf8Neon});
#endif
    found.push_back({"plain", scan_plain, probe_plain, write_plain, merge_round_plain, nullptr});
    return found;
}

}  // namespace

std::span<const Kernel> kernels() {
    static const std::vector<Kernel> found = available_kernels();
    return found;
}

const Kernel& chosen_kernel() {
    static const Kernel& chosen = kernel_chosen_by("BPE_KERNEL", kernels());
    return chosen;
}

std::size_t scan(Pattern pattern, const std::uint8_t* text, std::size_t position, std::size_t size, std::uint64_t* ends,
                 std::size_t capacity) {
    return chosen_kernel().scan(pattern, text, position, size, ends, capacity);
}

}  // namespace bpe
