// Kernels for AVX-512 with VNNI, called only on processors that have them.
#include "kernels/avx512_lanes.hpp"
#include "kernels/make_kernel.hpp"

namespace model {

const Kernel& avx512_kernel() {
    static const Kernel kernel = make_kernel<Avx512>("avx512");
    return kernel;
}

}  // namespace model
