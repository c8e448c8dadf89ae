// Array types and look-ups by name that the bindings share. Only the files in bindings/ depend on Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#include "bpe/core/bindings/gil.hpp"
#include "kernels/kernels.hpp"

namespace model {

namespace nb = nanobind;

template <class T, std::size_t kDimensions>
using Input = nb::ndarray<const T, nb::ndim<kDimensions>, nb::c_contig, nb::device::cpu>;
template <class T, std::size_t kDimensions>
using Output = nb::ndarray<T, nb::ndim<kDimensions>, nb::c_contig, nb::device::cpu>;

inline Kind kind_named(const std::string& name) {
    for (std::size_t i = 0; i < kKinds; ++i) {
        if (kFormats[i].name == name) return static_cast<Kind>(i);
    }
    throw std::invalid_argument("there are no kernels for the type " + name);
}

// Returns the chosen kernel for an empty name.
inline const Kernel& kernel_named(const std::string& name) {
    if (name.empty()) return chosen_kernel();
    for (const Kernel& kernel : kernels()) {
        if (name == kernel.name) return kernel;
    }
    throw std::invalid_argument("this processor cannot run the kernel " + name);
}

// Each adds its classes to the module.
void bind_matrix(nb::module_& m);
void bind_decoding(nb::module_& m);
void bind_training(nb::module_& m);

}  // namespace model
