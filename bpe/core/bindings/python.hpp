// What the bindings share: Python objects -> bytes, arrays and numbers, and back. Only the files in this folder include
// Python's headers.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/interrupt.hpp"
#include "base/memory.hpp"
#include "base/types.hpp"
#include "bindings/gil.hpp"
#include "bindings/limited.hpp"
#include "kernels/kernels.hpp"
#include "kernels/pattern.hpp"

namespace bpe {

namespace nb = nanobind;

// Each file of this folder adds its functions and classes to the module. A type must be registered before a function
// that takes or returns it, so that nanobind's signatures name the Python type.
void register_text(nb::module_& module);
void register_splitting(nb::module_& module);
void register_normalizing(nb::module_& module);
void register_special_tokens(nb::module_& module);
void register_tokenizer_base(nb::module_& module);
void register_pieces(nb::module_& module);
void register_encoder(nb::module_& module);
void register_byte_level(nb::module_& module);
void register_stream(nb::module_& module);
void register_training(nb::module_& module);

// Encoding this many bytes takes about a microsecond, and releasing the GIL costs a good part of that. Shorter texts
// are processed with the GIL held.
inline constexpr std::size_t kMostBytesWithGil = 256;

// Texts of this many bytes or more take so long that the user may press Ctrl-C meanwhile.
inline constexpr std::size_t kLongWork = std::size_t{1} << 20;

// Raises KeyboardInterrupt after Ctrl-C: the check of an Interrupt. May be called without the GIL.
void check_signals();

// --- arrays ---

template <class T>
using Array = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
template <class T>
using InputArray = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
std::span<const T> span_of(const InputArray<T>& array) {
    return {array.data(), array.size()};
}

// Returns an uninitialized numpy array in memory from malloc, which hands out the same memory again and again.
template <class T>
Array<T> malloc_array(std::size_t size) {
    auto* data = static_cast<T*>(std::malloc(std::max<std::size_t>(1, size * sizeof(T))));
    if (!data) throw std::bad_alloc();
    nb::capsule owner(data, [](void* memory) noexcept { std::free(memory); });
    return Array<T>(data, {size}, owner);
}

template <class T>
Array<T> copied_array(std::span<const T> values) {
    const Array<T> array = malloc_array<T>(values.size());
    if (!values.empty()) std::memcpy(array.data(), values.data(), values.size_bytes());
    return array;
}
template <class T>
Array<T> copied_array(const std::vector<T>& values) {
    return copied_array(std::span<const T>(values));
}

// Returns a numpy array with unspecified content. Large arrays use large pages: filling ordinary pages for the first
// time takes as long as copying the ids.
template <class T>
Array<T> new_array(std::size_t size) {
    constexpr std::size_t kLarge = std::size_t{1} << 20;
    if (size * sizeof(T) < kLarge) return malloc_array<T>(size);
    auto memory = std::make_unique<ZeroedMemory>(zeroed_memory(size * sizeof(T)));
    T* data = static_cast<T*>(memory->get());
    nb::capsule owner(memory.get(), [](void* held) noexcept { delete static_cast<ZeroedMemory*>(held); });
    memory.release();
    return Array<T>(data, {size}, owner);
}

// --- bytes and text ---

// The memory of a bytes object, valid while the object lives.
inline Bytes view_of(const nb::bytes& object) {
    return {reinterpret_cast<const std::uint8_t*>(object.c_str()), object.size()};
}

template <class T>
nb::bytes bytes_object(std::span<const T> values) {
    return nb::bytes(values.data(), values.size_bytes());
}
template <class T>
nb::bytes bytes_object(const std::vector<T>& values) {
    return bytes_object(std::span<const T>(values));
}

inline std::string to_string(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

// A text passed from Python: the UTF-8 of a str, or the memory of bytes or any other buffer. Holds the object or buffer
// for its own lifetime. Surrogates in a str become what tiktoken makes of them: pairs are joined, and a lone surrogate
// becomes U+FFFD.
class TextArgument {
 public:
    // Raises TypeError for any other object.
    explicit TextArgument(nb::handle object) {
        if (PyUnicode_Check(object.ptr())) {
            owner_ = nb::borrow(object);
            if (!view_string()) replace_surrogates();
        } else if (PyBytes_Check(object.ptr())) {
            owner_ = nb::borrow(object);
            bytes_ = {reinterpret_cast<const std::uint8_t*>(bytes_data(object.ptr())),
                      static_cast<std::size_t>(bytes_size(object.ptr()))};
        } else {
            view_buffer(object);
        }
    }
    TextArgument(TextArgument&& other) noexcept
        : owner_(std::move(other.owner_)), buffer_(other.buffer_), bytes_(other.bytes_) {
        other.buffer_.obj = nullptr;
    }
    TextArgument(const TextArgument&) = delete;
    TextArgument& operator=(const TextArgument&) = delete;
    ~TextArgument() {
        if (buffer_.obj) PyBuffer_Release(&buffer_);
    }
    Bytes bytes() const { return bytes_; }

 private:
    bool view_string() {
        Py_ssize_t size = 0;
        const char* data = PyUnicode_AsUTF8AndSize(owner_.ptr(), &size);
        bytes_ = {reinterpret_cast<const std::uint8_t*>(data), static_cast<std::size_t>(size)};
        return data != nullptr;
    }
    void replace_surrogates();
    void view_buffer(nb::handle object);

    nb::object owner_;
    Py_buffer buffer_{};
    Bytes bytes_;
};

// The texts of a Python iterable.
struct TextArguments {
    explicit TextArguments(nb::handle objects) {
        for (nb::handle object : nb::iter(objects)) {
            texts.emplace_back(object);
            spans.push_back(texts.back().bytes());
        }
    }

    // Returns the texts, or with a separator the documents that it splits them into.
    std::vector<Bytes> documents(const std::optional<std::string>& separator) const;

    std::vector<TextArgument> texts;
    std::vector<Bytes> spans;
};

// --- methods without nanobind ---

// Calls `call`, which returns an object, and returns a new reference to it, or null with the Python error set.
template <class Call>
PyObject* object_or_error(const Call& call) noexcept {
    try {
        return call().release().ptr();
    } catch (nb::python_error& error) {
        error.restore();
    } catch (const nb::builtin_exception& error) {  // of these, only type errors are thrown by arguments
        PyErr_SetString(PyExc_TypeError, error.what());
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::logic_error& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

// --- settings ---

// Both raise ValueError for a scanner or kernel that does not exist.
Pattern pattern_of(int number);
const Kernel& kernel_named(const std::string& name);

}  // namespace bpe
