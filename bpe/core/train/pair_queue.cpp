#include "train/pair_queue.hpp"

#include <cstring>

namespace bpe {

void PairQueue::clear() {
    known_.clear(0);
    queue_.clear();
    places_ = {};
}

void PairQueue::fill(std::span<PairEntry> pairs, const RankedPair& bound, std::size_t spare, PairSearch& search) {
    bound_ = bound;
    known_.clear(pairs.size());
    std::size_t places = 0;
    for (PairEntry& entry : pairs) {
        entry.first_place = static_cast<std::uint32_t>(places);
        places += entry.place_count;
        known_[entry.pair] = entry;
        queue_.push_back(entry.ranked());
    }
    std::make_heap(queue_.begin(), queue_.end());
    places_.reserve(places + spare);  // untouched memory costs nothing, and moving it does
    places_.resize(places);
    most_places_ = places + spare;
    search.take_places(known_, places_);
}

bool PairQueue::make_room() {
    std::vector<PairEntry*> kept;
    known_.visit([&](PairEntry& entry) {
        if (is_below_bound(entry.ranked())) {
            entry.first_place = 0;
            entry.place_count = 1;
        } else {
            kept.push_back(&entry);
        }
    });
    std::ranges::sort(kept, {}, &PairEntry::first_place);
    std::size_t size = 0;
    for (PairEntry* entry : kept) {
        std::memmove(places_.data() + size, places_.data() + entry->first_place, entry->place_count * sizeof(Position));
        entry->first_place = static_cast<std::uint32_t>(size);
        size += entry->place_count;
    }
    places_.resize(size);
    return size < most_places_ - most_places_ / 8;
}

}  // namespace bpe
