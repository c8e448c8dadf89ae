// Selecting documents from token ids.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "base/types.hpp"

namespace bpe {

// A selection of documents. Document i is ids[offsets[i], offsets[i + 1]).
struct DocumentRows {
    std::span<const Id> ids;
    std::span<const std::int64_t> offsets;
    std::span<const std::int64_t> rows;  // the selected documents, in order
    std::optional<Id> begin, end;        // ids to put before and after each of them

    // The number of ids that `begin` and `end` add to each document.
    std::size_t frame() const { return std::size_t{begin.has_value()} + std::size_t{end.has_value()}; }

    // Returns the ids of a document.
    std::span<const Id> row(std::int64_t number) const {
        if (number < 0 || static_cast<std::size_t>(number) + 1 >= offsets.size()) {
            throw std::invalid_argument("no document has number " + std::to_string(number));
        }
        const auto first = static_cast<std::size_t>(offsets[number]),
                   last = static_cast<std::size_t>(offsets[number + 1]);
        if (first > last || last > ids.size()) throw std::invalid_argument("the offsets do not match the ids");
        return ids.subspan(first, last - first);
    }

    // Returns how many ids `copy` writes. Throws std::invalid_argument if a row or an offset is out of range.
    std::size_t size() const {
        std::size_t total = frame() * rows.size();
        for (const std::int64_t number : rows) total += row(number).size();
        return total;
    }

    // Writes the ids, and rows.size() + 1 offsets, the first of which is 0. Truncates ids that are too large for T.
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
