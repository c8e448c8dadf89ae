// Token ids: Python ints -> ids, and ids -> lists of ints and numpy arrays.
#pragma once

#include "bindings/limited.hpp"
#include "bindings/python.hpp"

namespace bpe {

// Returns the id in an int, or in any object with __index__, such as a numpy integer. Raises TypeError or
// OverflowError.
Id id_from(PyObject* object);

// Returns the ids in a sequence made by PySequence_Fast.
std::vector<Id> ids_from(const nb::object& items);

// Makes lists and arrays of ids. The int objects of the vocabulary's ids are made once and shared by all lists.
class IdObjects {
 public:
    explicit IdObjects(std::size_t id_limit) : integers_(id_limit, nullptr) {}
    ~IdObjects() {
        for (PyObject* integer : integers_) Py_XDECREF(integer);
    }
    IdObjects(const IdObjects&) = delete;
    IdObjects& operator=(const IdObjects&) = delete;

    nb::object list_of(std::span<const Id> ids);
    nb::object list_of(const Buffer<Id>& ids) { return list_of(std::span(ids.data(), ids.size())); }

    // Returns a list of lists: list i has ids[offsets[i], offsets[i + 1]).
    nb::object lists_of(std::span<const Id> ids, std::span<const std::int64_t> offsets);

    // Returns a numpy array of exactly this size, allocated by numpy: 0.1 us, a quarter of the cost of wrapping our own
    // memory.
    nb::object array_of(std::span<const Id> ids);

 private:
    PyObject* integer(Id id);

    std::vector<PyObject*> integers_;  // by id; null until an id is first used
};

// The int objects are scattered over memory, so those of a block are prefetched before any is touched.
//
// The garbage collector does not track the list, and so does not visit its items: where many lists are kept, that took
// a third of the time. The collector looks for cycles, and no cycle goes through a list of ints. (If a caller stores an
// object in the list that refers back to it, the collector does not find that cycle, because CPython only follows
// tracked lists.)
inline nb::object IdObjects::list_of(std::span<const Id> ids) {
    constexpr std::size_t kBlockSize = 64;
    nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(ids.size())));
    if (!list.is_valid()) nb::raise_python_error();
    PyObject_GC_UnTrack(list.ptr());
    PyObject* ready[kBlockSize];
    for (std::size_t begin = 0; begin < ids.size(); begin += kBlockSize) {
        const std::size_t count = std::min(kBlockSize, ids.size() - begin);
        for (std::size_t i = 0; i < count; ++i) {
            const Id id = ids[begin + i];
            ready[i] = id < integers_.size() ? integers_[id] : nullptr;
            __builtin_prefetch(ready[i], 1);
        }
        for (std::size_t i = 0; i < count; ++i) {
            if (ready[i]) [[likely]] {
                Py_INCREF(ready[i]);
            } else if (!(ready[i] = integer(ids[begin + i]))) {
                nb::raise_python_error();
            }
            set_item(list.ptr(), static_cast<Py_ssize_t>(begin + i), ready[i]);
        }
    }
    return list;
}

}  // namespace bpe
