#include "bindings/ids.hpp"

#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif

#include <stdexcept>

namespace bpe {

namespace {

// Returns the value of an int with a single digit, as nearly all ids have. PyLong_AsUnsignedLong takes longer than the
// rest of decoding.
std::optional<Id> small_int(PyObject* object) {
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

Id checked_id(PyObject* number) {
    const unsigned long value = PyLong_AsUnsignedLong(number);
    if (value == static_cast<unsigned long>(-1) && PyErr_Occurred()) nb::raise_python_error();
    if (value > 0xFFFFFFFF) {
        PyErr_SetString(PyExc_OverflowError, "a token id has at most 32 bits");
        nb::raise_python_error();
    }
    return static_cast<Id>(value);
}

}  // namespace

Id id_from(PyObject* object) {
    if (PyLong_CheckExact(object)) {
        if (const std::optional<Id> value = small_int(object)) return *value;
        return checked_id(object);
    }
    const nb::object number = nb::steal(PyNumber_Index(object));
    if (!number.is_valid()) nb::raise_python_error();
    return checked_id(number.ptr());
}

// The int objects are scattered over memory, so each is prefetched some items ahead.
std::vector<Id> ids_from(const nb::object& items) {
    constexpr Py_ssize_t kAhead = 16;
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(items.ptr());
    PyObject* const* objects = PySequence_Fast_ITEMS(items.ptr());
    std::vector<Id> ids(static_cast<std::size_t>(size));
    Id* out = ids.data();
    Py_ssize_t i = 0;
    for (; i < size; ++i) {
        __builtin_prefetch(objects[std::min(i + kAhead, size - 1)]);
        if (!PyLong_CheckExact(objects[i])) break;
        const std::optional<Id> value = small_int(objects[i]);
        if (!value) break;
        out[i] = *value;
    }
    // The remaining items may run any code in __index__, so the size is read again each time, and the item is held.
    for (; i < std::min(PySequence_Fast_GET_SIZE(items.ptr()), size); ++i) {
        ids[static_cast<std::size_t>(i)] = id_from(nb::borrow(PySequence_Fast_GET_ITEM(items.ptr(), i)).ptr());
    }
    ids.resize(static_cast<std::size_t>(i));
    return ids;
}

nb::object IdObjects::lists_of(std::span<const Id> ids, std::span<const std::int64_t> offsets) {
    nb::object lists = nb::steal(PyList_New(static_cast<Py_ssize_t>(offsets.size()) - 1));
    if (!lists.is_valid()) nb::raise_python_error();
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
        const auto begin = static_cast<std::size_t>(offsets[i]);
        const auto end = static_cast<std::size_t>(offsets[i + 1]);
        if (begin > end || end > ids.size()) throw std::invalid_argument("the offsets do not fit the ids");
        PyList_SET_ITEM(lists.ptr(), static_cast<Py_ssize_t>(i),
                        list_of(ids.subspan(begin, end - begin)).release().ptr());
    }
    return lists;
}

nb::object IdObjects::array_of(std::span<const Id> ids) {
    if (!empty_array_.is_valid()) {  // numpy is imported when first needed
        const nb::module_ numpy = nb::module_::import_("numpy");
        id_type_ = numpy.attr("dtype")("uint32");
        empty_array_ = numpy.attr("empty");
    }
    const nb::object array = empty_array_(ids.size(), id_type_);
    Py_buffer buffer;
    if (PyObject_GetBuffer(array.ptr(), &buffer, PyBUF_SIMPLE | PyBUF_WRITABLE) != 0) nb::raise_python_error();
    if (!ids.empty()) std::memcpy(buffer.buf, ids.data(), ids.size_bytes());
    PyBuffer_Release(&buffer);
    return array;
}

// Returns a new reference to the int object of an id.
PyObject* IdObjects::integer(Id id) {
    if (id >= integers_.size()) return PyLong_FromUnsignedLong(id);
    PyObject*& ready = integers_[id];
    if (!ready) ready = PyLong_FromUnsignedLong(id);
    Py_XINCREF(ready);
    return ready;
}

}  // namespace bpe
