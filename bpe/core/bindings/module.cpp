// The Python module bpe._core.

#include <cerrno>
#include <string>
#include <system_error>

#include "base/errors.hpp"
#include "bindings/python.hpp"

namespace {

// Raises OSError with the path and errno of a std::system_error, and bpe.errors.InputError for an InputError.
void translate_exception(const std::exception_ptr& pointer, void*) {
    namespace nb = nanobind;
    try {
        std::rethrow_exception(pointer);
    } catch (const std::system_error& error) {
        // what() of an error made with a path is the path, ": ", and the message of errno.
        const std::string path = std::string(error.what()).substr(0, std::string(error.what()).rfind(": "));
        errno = error.code().value();
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    } catch (const bpe::InputError& error) {
        PyErr_SetString(nb::module_::import_("bpe.errors").attr("InputError").ptr(), error.what());
    }
}

}  // namespace

NB_MODULE(_core, module) {
    nanobind::register_exception_translator(translate_exception);
    nanobind::set_leak_warnings(false);  // objects that live until the interpreter exits are not leaks
    module.doc() = "The C++ core of bpe: splits text into pretokens, encodes, decodes, counts and trains.";
    bpe::register_text(module);
    bpe::register_splitting(module);
    bpe::register_normalizing(module);
    bpe::register_special_tokens(module);
    bpe::register_pieces(module);
    bpe::register_encoder(module);
    bpe::register_tokenizer_base(module);
    bpe::register_byte_level(module);
    bpe::register_stream(module);
    bpe::register_training(module);
}
