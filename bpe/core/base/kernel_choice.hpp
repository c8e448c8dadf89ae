// The kernel that a user chooses by an environment variable.
#pragma once

#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "base/errors.hpp"

namespace bpe {

// Returns the kernel that an environment variable names or, if it is not set, the first. Throws InputError if there is
// no kernel of that name.
template <class Kernel>
const Kernel& kernel_chosen_by(const char* variable, std::span<const Kernel> kernels) {
    const char* const value = std::getenv(variable);
    if (!value || !*value) return kernels.front();
    std::string names;
    for (const Kernel& kernel : kernels) {
        if (kernel.name == std::string_view(value)) return kernel;
        names += (names.empty() ? "" : ", ") + std::string(kernel.name);
    }
    throw InputError(std::string(variable) + " is '" + value +
                     "', a kernel that this processor does not run; set it to one of " + names + ", or unset it");
}

}  // namespace bpe
