// What a merge changes for the neighbours of the merged pair on one side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/types.hpp"
#include "train/pair_tables.hpp"

namespace bpe {

// For each id, at how many places it is a neighbour of the merged pair, and the sum of their counts.
class Neighbours {
 public:
    struct Change {
        Count count = 0;
        std::uint32_t place_count = 0;
        std::uint32_t next_place = 0;  // in the queue's places, if `is_queued`
        bool is_touched = false;
        bool is_queued = false;  // whether the pair with the new token is in the queue
    };

    explicit Neighbours(std::size_t ids) : changes_(ids) {}

    // The ids that were added since the last `clear`.
    const std::vector<Id>& ids() const { return touched_; }
    Change& operator[](Id id) { return changes_[id]; }

    void add(Id id, Count count) {
        Change& change = changes_[id];
        if (!change.is_touched) touched_.push_back(id);
        change.is_touched = true;
        change.count += count;
        ++change.place_count;
    }
    // Undoes `add`.
    void remove(Id id, Count count) {
        changes_[id].count -= count;
        --changes_[id].place_count;
    }
    void clear() {
        for (const Id id : touched_) changes_[id] = {};
        touched_.clear();
    }

 private:
    std::vector<Change> changes_;
    std::vector<Id> touched_;
};

}  // namespace bpe
