// Kernels for AVX2, FMA and F16C, called only on processors that have all three.
#include "kernels/avx2_lanes.hpp"
#include "kernels/make_kernel.hpp"

namespace model {
namespace {

inline __m256i add_products(__m256i sum, __m256i x, __m256i y) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
}

}  // namespace

template <>
struct Integers<Avx2> : IntegersOf16<add_products> {};

const Kernel& avx2_kernel() {
    static const Kernel kernel = make_kernel<Avx2>("avx2");
    return kernel;
}

}  // namespace model
