// Token ids: Python ints -> ids, and ids -> lists of ints and numpy arrays.
#pragma once

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

    // Returns a numpy array of exactly this size, allocated by numpy: 0.2 us, half the cost of wrapping our own memory.
    nb::object array_of(std::span<const Id> ids);

 private:
    PyObject* integer(Id id);

    std::vector<PyObject*> integers_;  // by id; null until an id is first used
    nb::object empty_array_;           // numpy.empty and dtype("uint32"), looked up when first needed
    nb::object id_type_;
};

}  // namespace bpe
