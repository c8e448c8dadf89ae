// Some documents of many, as ids.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>

#include "encode/vocab.hpp"

namespace bpe {

// Documents one after the other: document i is ids[offsets[i], offsets[i + 1]).
struct DocumentRows {
    std::span<const Id> ids;
    std::span<const std::int64_t> offsets;
    std::span<const std::int64_t> rows;  // those that are wanted, in this order
    std::optional<Id> begin, end;        // what each of them is put between

    std::size_t frame() const { return std::size_t{begin.has_value()} + std::size_t{end.has_value()}; }

    std::span<const Id> row(std::int64_t number) const {
        if (number < 0 || static_cast<std::size_t>(number) + 1 >= offsets.size()) {
            throw std::invalid_argument("there is no document of this number");
        }
        const auto first = static_cast<std::size_t>(offsets[number]),
                   last = static_cast<std::size_t>(offsets[number + 1]);
        if (first > last || last > ids.size()) throw std::invalid_argument("the offsets do not fit the ids");
        return ids.subspan(first, last - first);
    }

    // How many ids `copy` writes. Throws std::invalid_argument where a row or an offset cannot be.
    std::size_t size() const {
        std::size_t total = frame() * rows.size();
        for (const std::int64_t number : rows) total += row(number).size();
        return total;
    }

    // Writes the ids, and rows.size() + 1 offsets, of which the first is 0. An id that is too large for the type is cut
    // short.
    template <class T>
    void copy(T* out, std::int64_t* out_offsets) const {
        const T* const first = out;
        *out_offsets++ = 0;
        for (const std::int64_t number : rows) {
            const std::span<const Id> document = row(number);
            if (begin) *out++ = static_cast<T>(*begin);
            out = std::transform(document.begin(), document.end(), out, [](Id id) { return static_cast<T>(id); });
            if (end) *out++ = static_cast<T>(*end);
            *out_offsets++ = out - first;
        }
    }
};

}  // namespace bpe
