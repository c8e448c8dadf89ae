// The pairs that may be merged next, the most frequent first, with their places.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/memory.hpp"
#include "train/pair_search.hpp"
#include "train/pair_tables.hpp"

namespace bpe {

// Pairs that rank below the bound are left out of all tables, until no pair above it is left; then the bound is lowered
// and the queue is filled anew. That does not change the merges: counts never rise, and a pair that arises is no more
// frequent than the two pairs that it came from.
class PairQueue {
 public:
    // Frees the memory of all pairs.
    void clear();

    // Takes over the pairs, none of which ranks below the bound, with their places. `spare` is how many places may be
    // added before the queue is full.
    void fill(std::span<PairEntry> pairs, const RankedPair& bound, std::size_t spare, PairSearch& search);

    bool empty() const { return queue_.empty(); }
    bool full() const { return places_.size() > most_places_; }

    // Drops the places of pairs that will not be merged any more. Returns whether that freed enough room.
    bool make_room();

    // No pair has a higher count. The queue must not be empty.
    Count highest_count() const { return queue_.front().count; }

    // Removes the best pair and returns its entry, valid until a pair is added. Returns null if the pair had become
    // rarer since it was queued; then it is queued again with its present count.
    PairEntry* pop() {
        const RankedPair best = queue_.front();
        std::pop_heap(queue_.begin(), queue_.end());
        queue_.pop_back();
        PairEntry* entry = known_.find(best.pair);
        if (entry->count == best.count) return entry;
        push(entry->ranked());
        return nullptr;
    }

    std::span<const Position> places_of(const PairEntry& entry) const {
        return {places_.data() + entry.first_place, entry.place_count};
    }

    void prefetch(Pair pair) const { known_.prefetch(pair); }

    // Lowers the count of a pair, if it is known.
    void lower(Pair pair, Count count) {
        if (!count) return;
        if (PairEntry* entry = known_.find(pair)) entry->count -= std::min(entry->count, count);
    }

    bool is_below_bound(const RankedPair& pair) const { return pair < bound_; }

    // Adds a new pair, which does not rank below the bound, with room for its places. Returns the index of the first,
    // from which on the caller must `set_place` all of them.
    std::uint32_t add(const RankedPair& pair, std::uint32_t place_count) {
        const auto first_place = static_cast<std::uint32_t>(places_.size());
        places_.resize(places_.size() + place_count);
        known_[pair.pair] = {pair.pair, pair.count, first_place, place_count};
        push(pair);
        return first_place;
    }
    void set_place(std::uint32_t index, Position at) { places_[index] = at; }

 private:
    void push(const RankedPair& pair) {
        if (is_below_bound(pair)) return;
        queue_.push_back(pair);
        std::push_heap(queue_.begin(), queue_.end());
    }

    KnownPairs known_;
    Places places_;
    std::size_t most_places_ = 0;
    std::vector<RankedPair> queue_;  // a heap; counts may be out of date, but never too low
    RankedPair bound_{};
};

}  // namespace bpe
