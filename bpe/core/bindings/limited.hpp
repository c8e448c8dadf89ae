// The parts of CPython's interface that the limited API lacks, with a slower spelling for a build with it (the
// stable-ABI wheel: see CONTRIBUTING.md). An ordinary build compiles to the direct accesses.
#pragma once

#include <nanobind/nanobind.h>

#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/types.hpp"

namespace bpe {

#if defined(Py_LIMITED_API)

// Returns the value of an int, or nullopt if it is no id.
inline std::optional<Id> small_int(PyObject* number) {
    int overflow = 0;
    const long value = PyLong_AsLongAndOverflow(number, &overflow);
    if (overflow != 0 || !std::in_range<Id>(value)) return std::nullopt;
    return static_cast<Id>(value);
}

// The items of a list or tuple, as borrowed references.
class Items {
 public:
    explicit Items(PyObject* sequence) : sequence_(sequence), is_list_(PyList_Check(sequence)) {}
    PyObject* operator[](Py_ssize_t at) const {
        return is_list_ ? PyList_GetItem(sequence_, at) : PyTuple_GetItem(sequence_, at);
    }
    void prefetch(Py_ssize_t) const {}  // finding the item takes as long as the prefetch saves

 private:
    PyObject* sequence_;
    bool is_list_;
};

inline Py_ssize_t sequence_size(PyObject* sequence) {
    return PyList_Check(sequence) ? PyList_Size(sequence) : PyTuple_Size(sequence);
}
inline PyObject* sequence_item(PyObject* sequence, Py_ssize_t at) {
    return PyList_Check(sequence) ? PyList_GetItem(sequence, at) : PyTuple_GetItem(sequence, at);
}

// Stores an item in a new list, and takes over the reference.
inline void set_item(PyObject* list, Py_ssize_t at, PyObject* item) { PyList_SetItem(list, at, item); }

inline Py_ssize_t tuple_size(PyObject* tuple) { return PyTuple_Size(tuple); }
inline PyObject* tuple_item(PyObject* tuple, Py_ssize_t at) { return PyTuple_GetItem(tuple, at); }

inline const char* bytes_data(PyObject* bytes) { return PyBytes_AsString(bytes); }
inline Py_ssize_t bytes_size(PyObject* bytes) { return PyBytes_Size(bytes); }

// Returns a bytes object with the first bytes of another, which it releases, or null.
inline PyObject* first_bytes(PyObject* bytes, Py_ssize_t size) {
    PyObject* const first = PyBytes_FromStringAndSize(PyBytes_AsString(bytes), size);
    Py_DECREF(bytes);
    return first;
}

// A str cannot be made and then filled.
inline constexpr bool kFillsStrings = false;
inline PyObject* new_string(std::size_t, bool) { return nullptr; }
inline void* string_data(PyObject*) { return nullptr; }

// Returns the name of an object's type.
inline std::string type_name(PyObject* object) {
    std::string name = "an unknown type";
    PyObject* const string = PyType_GetName(Py_TYPE(object));
    Py_ssize_t size = 0;
    if (const char* data = string ? PyUnicode_AsUTF8AndSize(string, &size) : nullptr) {
        name.assign(data, static_cast<std::size_t>(size));
    }
    PyErr_Clear();
    Py_XDECREF(string);
    return name;
}

#else

// Returns the value of an int with a single digit, as nearly all ids have. PyLong_AsUnsignedLong takes longer than the
// rest of decoding.
inline std::optional<Id> small_int(PyObject* object) {
    auto* number = reinterpret_cast<PyLongObject*>(object);
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact(number)) return std::nullopt;
    const Py_ssize_t value = PyUnstable_Long_CompactValue(number);
    return value < 0 ? std::nullopt : std::optional(static_cast<Id>(value));
#else
    const Py_ssize_t digits = Py_SIZE(object);
    if (digits == 1) return static_cast<Id>(number->ob_digit[0]);
    return digits == 0 ? std::optional<Id>(0) : std::nullopt;
#endif
}

// The items of a list or tuple, as borrowed references. Valid until Python code runs.
class Items {
 public:
    explicit Items(PyObject* sequence) : items_(PySequence_Fast_ITEMS(sequence)) {}
    PyObject* operator[](Py_ssize_t at) const { return items_[at]; }
    void prefetch(Py_ssize_t at) const { __builtin_prefetch(items_[at]); }

 private:
    PyObject* const* items_;
};

inline Py_ssize_t sequence_size(PyObject* sequence) { return PySequence_Fast_GET_SIZE(sequence); }
inline PyObject* sequence_item(PyObject* sequence, Py_ssize_t at) { return PySequence_Fast_GET_ITEM(sequence, at); }

// Stores an item in a new list, and takes over the reference.
inline void set_item(PyObject* list, Py_ssize_t at, PyObject* item) { PyList_SET_ITEM(list, at, item); }

inline Py_ssize_t tuple_size(PyObject* tuple) { return PyTuple_GET_SIZE(tuple); }
inline PyObject* tuple_item(PyObject* tuple, Py_ssize_t at) { return PyTuple_GET_ITEM(tuple, at); }

inline const char* bytes_data(PyObject* bytes) { return PyBytes_AS_STRING(bytes); }
inline Py_ssize_t bytes_size(PyObject* bytes) { return PyBytes_GET_SIZE(bytes); }

// Cuts a bytes object that nothing else refers to, and returns it, or null.
inline PyObject* first_bytes(PyObject* bytes, Py_ssize_t size) {
    _PyBytes_Resize(&bytes, size);
    return bytes;
}

inline constexpr bool kFillsStrings = true;

// Returns a new str to be filled, of characters up to U+00FF or else U+FFFF, or null.
inline PyObject* new_string(std::size_t characters, bool is_narrow) {
    return PyUnicode_New(static_cast<Py_ssize_t>(characters), is_narrow ? 0xFF : 0xFFFF);
}
inline void* string_data(PyObject* string) { return PyUnicode_DATA(string); }

// Returns the name of an object's type.
inline const char* type_name(PyObject* object) { return Py_TYPE(object)->tp_name; }

#endif

}  // namespace bpe
