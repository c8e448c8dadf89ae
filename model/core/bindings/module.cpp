// The module model._core.
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <vector>

#include "bindings/python.hpp"
#include "bpe/core/base/errors.hpp"
#include "decoder.hpp"

namespace model {
namespace {

std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const Kernel& kernel : kernels()) names.push_back(kernel.name);
    return names;
}

std::string chosen_kernel_name() { return chosen_kernel().name; }

void translate_exception(const std::exception_ptr& pointer, void*) {
    try {
        std::rethrow_exception(pointer);
    } catch (const bpe::InputError& error) {
        PyErr_SetString(nb::module_::import_("bpe.errors").attr("InputError").ptr(), error.what());
    }
}

}  // namespace

NB_MODULE(_core, m) {
    nb::register_exception_translator(translate_exception);
    nb::set_leak_warnings(false);  // objects that live until the interpreter exits are not leaks
    m.doc() = "Native kernels for a Llama on a CPU. Use them through model.native.";
    m.def("kernels", kernel_names);
    m.def("chosen_kernel", chosen_kernel_name);
    m.attr("MOST_TOKENS") = Decoder::kMostTokens;
    m.attr("WIDEST_BYTE_HEAD") = kWidestByteHead;
    std::map<std::string, std::size_t> kinds;
    for (const Format& format : kFormats) kinds[std::string(format.name)] = format.block_columns;
    m.attr("KINDS") = kinds;
    bind_matrix(m);
    bind_decoding(m);
    bind_training(m);
}

}  // namespace model
