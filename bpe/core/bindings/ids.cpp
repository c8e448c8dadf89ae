#include "bindings/ids.hpp"

#include <stdexcept>

#include "bindings/limited.hpp"

namespace bpe {

namespace {

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
    const Py_ssize_t size = sequence_size(items.ptr());
    const Items objects(items.ptr());
    std::vector<Id> ids(static_cast<std::size_t>(size));
    Id* out = ids.data();
    Py_ssize_t i = 0;
    for (; i < size; ++i) {
        objects.prefetch(std::min(i + kAhead, size - 1));
        PyObject* const object = objects[i];
        if (!PyLong_CheckExact(object)) break;
        const std::optional<Id> value = small_int(object);
        if (!value) break;
        out[i] = *value;
    }
    // The remaining items may run any code in __index__, so the size is read again each time, and the item is held.
    for (; i < std::min(sequence_size(items.ptr()), size); ++i) {
        ids[static_cast<std::size_t>(i)] = id_from(nb::borrow(sequence_item(items.ptr(), i)).ptr());
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
        set_item(lists.ptr(), static_cast<Py_ssize_t>(i), list_of(ids.subspan(begin, end - begin)).release().ptr());
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
