#include "kernels.hpp"

#include <vector>

namespace bpe {

BlockBits classify_avx512(const std::uint8_t* bytes);
BlockBits classify_avx2(const std::uint8_t* bytes);

static std::vector<Kernel> available_kernels() {
    std::vector<Kernel> found;
#ifdef BPE_X86_KERNELS
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vbmi")) {
        found.push_back({"avx512", classify_avx512, probe_avx512, write_avx512, merge_round_avx512});
    }
    if (__builtin_cpu_supports("avx2")) found.push_back({"avx2", classify_avx2, probe_plain, write_plain, merge_round_plain});
#endif
    found.push_back({"plain", nullptr, probe_plain, write_plain, merge_round_plain});
    return found;
}

std::span<const Kernel> kernels() {
    static const std::vector<Kernel> found = available_kernels();
    return found;
}

}  // namespace bpe
