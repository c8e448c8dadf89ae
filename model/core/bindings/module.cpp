// The module model._core.
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <vector>

#include "bindings/python.hpp"
#include "decoder.hpp"

namespace model {
namespace {

std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const Kernel& kernel : kernels()) names.push_back(kernel.name);
    return names;
}

}  // namespace

NB_MODULE(_core, m) {
    nb::set_leak_warnings(false);  // objects that live until the interpreter exits are not leaks
    m.doc() = "Native kernels for a Llama on a CPU. Use them through model.native.";
    m.def("kernels", kernel_names);
    m.attr("MOST_TOKENS") = Decoder::kMostTokens;
    std::map<std::string, std::size_t> kinds;
    for (const Format& format : kFormats) kinds[std::string(format.name)] = format.block_columns;
    m.attr("KINDS") = kinds;
    bind_matrix(m);
    bind_decoding(m);
    bind_training(m);
}

}  // namespace model
