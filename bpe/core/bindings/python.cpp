#include "bindings/python.hpp"

#include <stdexcept>
#include <string_view>

#include "text/documents.hpp"

namespace bpe {

namespace {

// Whether the elements of a buffer are single bytes, by their format in the notation of Python's module struct.
bool holds_bytes(const char* format) {
    const std::string_view name = format ? format : "B";
    return name == "B" || name == "b" || name == "c";
}

}  // namespace

void check_signals() {
    const AcquiredGil acquire;
    if (PyErr_CheckSignals() != 0) nb::raise_python_error();
}

void TextArgument::replace_surrogates() {
    PyErr_Clear();
    const nb::object utf16 = nb::steal(PyUnicode_AsEncodedString(owner_.ptr(), "utf-16", "surrogatepass"));
    if (!utf16.is_valid()) nb::raise_python_error();
    owner_ = nb::steal(PyUnicode_Decode(bytes_data(utf16.ptr()), bytes_size(utf16.ptr()), "utf-16", "replace"));
    if (!owner_.is_valid() || !view_string()) nb::raise_python_error();
}

void TextArgument::view_buffer(nb::handle object) {
    // The numbers of an array are no text, even if their memory can be read as bytes.
    const bool readable = PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_ND | PyBUF_FORMAT) == 0;
    if (!readable || buffer_.ndim != 1 || !holds_bytes(buffer_.format)) {
        if (readable) PyBuffer_Release(&buffer_);
        PyErr_Clear();
        throw nb::type_error((std::string("expected str or bytes, not ") + type_name(object.ptr())).c_str());
    }
    bytes_ = {static_cast<const std::uint8_t*>(buffer_.buf), static_cast<std::size_t>(buffer_.len)};
}

std::vector<Bytes> TextArguments::documents(const std::optional<std::string>& separator) const {
    if (!separator) return spans;
    std::vector<Bytes> documents;
    for (const Bytes text : spans) split_documents(text, *separator, documents);
    return documents;
}

Pattern pattern_of(int number) {
    if (number < 0 || number >= kPatternCount) {
        throw std::invalid_argument("there is no scanner " + std::to_string(number) + "; expected 0 to " +
                                    std::to_string(kPatternCount - 1));
    }
    return static_cast<Pattern>(number);
}

const Kernel& kernel_named(const std::string& name) {
    if (name.empty()) return chosen_kernel();
    const auto all = kernels();
    const auto found = std::find_if(all.begin(), all.end(), [&](const Kernel& kernel) { return kernel.name == name; });
    if (found != all.end()) return *found;
    std::string names;
    for (const Kernel& kernel : all) names += (names.empty() ? "" : ", ") + std::string(kernel.name);
    throw std::invalid_argument("there is no kernel " + name + " on this machine; expected one of " + names);
}

}  // namespace bpe
