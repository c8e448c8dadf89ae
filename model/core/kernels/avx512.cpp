// Compiled with AVX-512 and its VNNI, and called only where the processor has them.
#include "kernels/avx512_numbers.hpp"
#include "kernels/decoding.hpp"
#include "kernels/training.hpp"

namespace model {

const Kernel& avx512_kernel() {
    static const Kernel kernel = kernel_with<Avx512>("avx512", training_with<Avx512>());
    return kernel;
}

}  // namespace model
