// Compiled with AVX-512 and its VNNI, and called only where the processor has them.
#include "avx512.hpp"
#include "kernels_with.hpp"
#include "training_with.hpp"

namespace model {

const Kernel& avx512_kernel() {
    static const Kernel kernel = kernel_with<Avx512>("avx512", training_with<Avx512>());
    return kernel;
}

}  // namespace model
