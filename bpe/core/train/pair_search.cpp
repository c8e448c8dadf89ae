#include "train/pair_search.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "base/threads.hpp"

namespace bpe {

bool PairSearch::collect(Count threshold, std::size_t most) {
    constexpr std::size_t kMostKept = std::size_t{1} << 19;
    places_.clear();
    const std::size_t sums = Sketch::size_for(cells_.size() / 16);
    if (sums_.size() != sums * threads_) {
        sums_ = ZeroedArray<std::uint32_t>(sums * threads_);
    } else {
        std::fill_n(sums_.data(), sums_.size(), 0);
    }
    std::vector<Sketch> sketches;
    for (std::size_t i = 0; i < threads_; ++i) {
        sketches.emplace_back(std::span(sums_.data() + i * sums, sums), threshold);
    }
    cells_.compact(threads_, [&](std::size_t part, Pair pair, Count count, bool is_pair) {
        sketches[part].add(pair, count, is_pair);
    });
    for (std::size_t i = 1; i < cells_.parts(); ++i) sketches[0].add(sketches[i]);
    places_ = decltype(places_)(cells_.parts());
    std::atomic<std::size_t> total = 0;
    cells_.visit_pairs([&](Position at) { return sketches[0].may_reach(cells_.pair_at(at)); },
                       [&](std::size_t part, std::span<const Position> places) {
                           if ((total += places.size()) > most) return;
                           for (const Position at : places) places_[part][share_of(cells_.pair_at(at))].push(at);
                       });
    if (sums_.size() > kMostKept) sums_ = ZeroedArray<std::uint32_t>(0);
    return total <= most;
}

std::vector<PairEntry> PairSearch::count(Count threshold, std::size_t enough) const {
    std::vector<PairEntry> frequent;
    std::mutex mutex;
    for_shares([&](std::size_t share, KnownPairs& pairs) {
        for (const auto& part : places_) {
            visit_places(part[share], pairs, [&](Position at) {
                PairEntry& entry = pairs[cells_.pair_at(at)];
                entry.count += cells_.count_at(at);
                ++entry.place_count;
            });
        }
        std::vector<PairEntry> found;
        pairs.drain([&](const PairEntry& entry) {
            if (entry.count >= threshold && tokens_.may_merge(entry.pair)) found.push_back(entry);
        });
        const std::lock_guard lock(mutex);
        frequent.insert(frequent.end(), found.begin(), found.end());
        if (frequent.size() > 2 * enough) keep_best(frequent, enough);
    });
    return frequent;
}

void PairSearch::keep_best(std::vector<PairEntry>& pairs, std::size_t count) {
    const auto last = pairs.begin() + static_cast<std::ptrdiff_t>(count) - 1;
    std::ranges::nth_element(pairs, last,
                             [](const PairEntry& a, const PairEntry& b) { return b.ranked() < a.ranked(); });
    pairs.erase(last + 1, pairs.end());
}

void PairSearch::take_places(KnownPairs& known, Places& places) {
    for_shares([&](std::size_t share, KnownPairs&) {
        for (auto& part : places_) {
            visit_places(part[share], known, [&](Position at) {
                if (PairEntry* entry = known.find(cells_.pair_at(at))) places[entry->first_place++] = at;
            });
            part[share] = {};
        }
    });
    known.visit([](PairEntry& entry) { entry.first_place -= entry.place_count; });
}

// The shares are of about the same size, so a table that has grown for one of them has room for the next: new tables,
// and the pages that they touch first, took two thirds of the time.
template <class Work>
void PairSearch::for_shares(const Work& work) const {
    std::atomic<std::size_t> next = 0;
    on_threads(cells_.parts(), [&](std::size_t) {
        KnownPairs table;
        for (std::size_t share; (share = next++) < kShares;) work(share, table);
    });
}

// Calls use(place) for each place; the entry of its pair is prefetched.
template <class Use>
void PairSearch::visit_places(const Buffer<Position>& places, const KnownPairs& pairs, const Use& use) const {
    constexpr std::size_t kAhead = 16;
    for (std::size_t i = 0; i < places.size(); ++i) {
        if (i + kAhead < places.size()) pairs.prefetch(cells_.pair_at(places[i + kAhead]));
        use(places[i]);
    }
}

}  // namespace bpe
