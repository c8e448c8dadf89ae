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

namespace {

// What we use of numpy's C interface: a table of functions and types, whose order is fixed since numpy 1.0, and the
// beginning of an array object. Including numpy's headers would make numpy a requirement of the build.
class NumpyArrays {
 public:
    NumpyArrays() {
        const nb::module_ numpy = nb::module_::import_("numpy");
        const bool is_first = nb::cast<std::string>(numpy.attr("__version__")).starts_with("1.");
        const nb::module_ arrays = nb::module_::import_(is_first ? "numpy.core.multiarray" : "numpy._core.multiarray");
        auto* const table =
            static_cast<void**>(PyCapsule_GetPointer(nb::object(arrays.attr("_ARRAY_API")).ptr(), nullptr));
        if (!table) nb::raise_python_error();
        constexpr int kArrayType = 2, kNewArray = 93;
        type_ = static_cast<PyTypeObject*>(table[kArrayType]);
        new_array_ = reinterpret_cast<NewArray>(table[kNewArray]);
    }

    // Returns an array of uint32 with unspecified content.
    nb::object of_size(std::size_t size) const {
        constexpr int kUint32 = 6;  // NPY_UINT
        static_assert(sizeof(unsigned) == sizeof(Id));
        const auto length = static_cast<Py_ssize_t>(size);
        nb::object array = nb::steal(new_array_(type_, 1, &length, kUint32, nullptr, nullptr, 0, 0, nullptr));
        if (!array.is_valid()) nb::raise_python_error();
        return array;
    }
    static void* data_of(const nb::object& array) { return reinterpret_cast<const Array*>(array.ptr())->data; }

 private:
    using NewArray = PyObject* (*)(PyTypeObject*, int, const Py_ssize_t* dims, int type_num, const Py_ssize_t* strides,
                                   void* data, int itemsize, int flags, PyObject* obj);
    struct Array {
        PyObject_HEAD void* data;
    };

    PyTypeObject* type_;
    NewArray new_array_;
};

}  // namespace

nb::object IdObjects::array_of(std::span<const Id> ids) {
    static const NumpyArrays numpy;  // imported when first needed
    nb::object array = numpy.of_size(ids.size());
    if (!ids.empty()) std::memcpy(NumpyArrays::data_of(array), ids.data(), ids.size_bytes());
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
