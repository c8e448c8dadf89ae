#include "train/merge_loop.hpp"

#include <algorithm>
#include <utility>

#include "train/cells.hpp"
#include "train/neighbours.hpp"
#include "train/pair_queue.hpp"
#include "train/pair_search.hpp"
#include "train/pair_tables.hpp"
#include "train/unreached_tokens.hpp"

namespace bpe {

namespace {

// Training runs in epochs. Each begins with a search for the most frequent pairs, and merges until none of them is
// left.
class MergeLoop {
 public:
    MergeLoop(WordSource& words, const MergeOptions& options)
        : options_(options),
          least_(std::max<Count>(1, options.min_frequency)),
          tokens_(*options.base, options.max_token_length),
          unreached_(*options.base),
          cells_(words, *options.base, options.memory),
          search_(cells_, tokens_, options.threads),
          before_(most_ids()),
          after_(most_ids()),
          most_(cells_.total_count()),
          next_threshold_(most_ / 4096) {}

    LearnedMerges run() {
        while (wants_more() && begin_epoch()) {
            if (!run_epoch()) return {};
        }
        return {tokens_.take_merges(), cells_.take_uses()};
    }

 private:
    // A place where the pair was merged, and the neighbours whose pairs with the new token are still to be entered.
    struct MergedPlace {
        Position at;
        Id before;
        Id after;
    };

    // Each new token occupies a cell, at least.
    std::size_t most_ids() const {
        return options_.base->id_limit() + std::min<std::size_t>(options_.merges, cells_.size());
    }
    bool wants_more() const { return tokens_.merges().size() < options_.merges; }

    bool begin_epoch();
    std::vector<PairEntry> find_pairs(RankedPair& bound);
    void keep_best(std::vector<PairEntry>& pairs, RankedPair& bound);
    std::size_t wanted_pairs() const;
    std::size_t most_collected() const;

    bool run_epoch();
    void merge(Pair pair, Id made, std::span<const Position> places);
    Count join_places(Pair pair, Id made, std::span<const Position> places);
    bool update_pairs(Pair pair, Id made, Count repeated);
    bool queue_pair(Pair pair, Neighbours::Change& change);
    void enter_places();
    void trace(std::span<const Position> places) const;

    // Places that are few enough for any machine.
    static constexpr std::size_t kFewPlaces = std::size_t{1} << 18;

    const MergeOptions& options_;
    Count least_;  // the lowest count of a pair that is merged
    MergedTokens tokens_;
    UnreachedTokens unreached_;
    Cells cells_;
    PairSearch search_;
    PairQueue queue_;
    // The state of one merge.
    std::vector<MergedPlace> merged_;
    Neighbours before_, after_;
    // The counts of the next epoch.
    Count most_;  // no pair has a higher count
    Count next_threshold_;
};

// --- the beginning of an epoch ---

// Fills the queue with the most frequent pairs. Returns false if no pair is left.
bool MergeLoop::begin_epoch() {
    queue_.clear();
    RankedPair bound{};
    std::vector<PairEntry> pairs = find_pairs(bound);
    keep_best(pairs, bound);
    queue_.fill(pairs, bound, kFewPlaces + cells_.size() / 4, search_);
    return !pairs.empty();
}

// Lowers the threshold by a factor until pairs reach it: how many do is only known afterwards.
std::vector<PairEntry> MergeLoop::find_pairs(RankedPair& bound) {
    std::vector<PairEntry> pairs;
    while (pairs.empty() && most_ >= least_) {
        Count threshold = std::max(least_, std::min(most_, next_threshold_));
        // If the places take too much memory, fewer pairs will do. But the most frequent pair must be found, so at the
        // highest threshold there is no limit.
        for (std::size_t most = most_collected(); !search_.collect(threshold, most);) {
            threshold < most_ / 4 ? threshold *= 4 : most = ~std::size_t{0};
        }
        pairs = search_.count(threshold, 2 * wanted_pairs() + 1);
        bound = {threshold, ~Pair{0}};
        most_ = threshold - 1;
        next_threshold_ = std::max<Count>(1, threshold / 4);
    }
    return pairs;
}

// Drops the rarest pairs, and raises the bound, if there are many more pairs than will be merged soon.
void MergeLoop::keep_best(std::vector<PairEntry>& pairs, RankedPair& bound) {
    const std::size_t wanted = wanted_pairs();
    if (pairs.size() <= 2 * wanted) return;
    PairSearch::keep_best(pairs, wanted + 1);
    bound = pairs.back().ranked();
    most_ = next_threshold_ = bound.count;
    if (most_ > least_) next_threshold_ = std::max(least_, most_ / 4);
}

// How many pairs may be merged soon.
std::size_t MergeLoop::wanted_pairs() const {
    constexpr std::size_t kFirstPairs = 4096;
    const std::size_t done = tokens_.merges().size();
    return kFirstPairs + std::min(2 * done, options_.merges - done);
}

// How many places a search may collect. They and the places that arise from them use the memory that the cells leave;
// a part of it is kept in reserve.
std::size_t MergeLoop::most_collected() const {
    if (!options_.memory) return ~std::size_t{0};
    const std::size_t taken = cells_.size() * sizeof(Id);
    const std::size_t left = options_.memory - std::min(options_.memory, taken);
    return std::max<std::size_t>(kFewPlaces + cells_.size() / 16, left / (3 * sizeof(Position)));
}

// --- merging ---

// Merges until the queue is empty or out of date. Returns false if `progress` stopped training.
bool MergeLoop::run_epoch() {
    while (wants_more() && !queue_.empty()) {
        most_ = queue_.highest_count();
        if (queue_.full() && !queue_.make_room()) return true;
        PairEntry* entry = queue_.pop();
        if (!entry) continue;
        const RankedPair best = entry->ranked();
        const std::span<const Position> places = queue_.places_of(*entry);
        entry->count = 0;
        const Id made = tokens_.add(best);
        const std::size_t done = tokens_.merges().size();
        if (done <= options_.traced) trace(places);
        const bool reaches_tokens = unreached_.may_follow(best.pair, tokens_);
        if (reaches_tokens) {
            unreached_.merge(best.pair, made, places, tokens_, cells_);
        } else {
            merge(best.pair, made, places);
        }
        if (done % 256 == 0 && options_.progress && !options_.progress(tokens_.merges())) return false;
        if (reaches_tokens) return true;  // the counts of pairs are out of date
    }
    return true;
}

void MergeLoop::merge(Pair pair, Id made, std::span<const Position> places) {
    const Count repeated = join_places(pair, made, places);
    cells_.add_token(cells_.span(left_of(pair)) + cells_.span(right_of(pair)));
    if (update_pairs(pair, made, repeated)) enter_places();
    before_.clear();
    after_.clear();
}

// Joins the pair at each place and notes its neighbours. Returns the count of the pair (right, left) between two
// occurrences of the pair, one directly after the other.
Count MergeLoop::join_places(Pair pair, Id made, std::span<const Position> places) {
    constexpr std::size_t kAhead = 16;
    const Position left_span = cells_.span(left_of(pair));
    const Position span = left_span + cells_.span(right_of(pair));
    merged_.clear();
    Position previous_end = 0;
    Count repeated = 0;
    for (std::size_t i = 0; i < places.size(); ++i) {
        if (i + kAhead < places.size()) cells_.prefetch(places[i + kAhead]);
        const Position at = places[i];
        if (!cells_.holds(at, pair)) continue;
        const Count count = cells_.count_at(at);
        const Id before = cells_.before(at);
        const Id after = cells_[at + span];
        cells_.join(at, at + left_span, at + span, made);
        if (at == previous_end) {  // what followed the last place is merged now
            repeated += count;
            after_.remove(merged_.back().after, count);
            merged_.back().after = made;
            after_.add(made, count);
            merged_.push_back({at, Cells::kSeparator, after});
        } else {
            if (before != Cells::kSeparator) before_.add(before, count);
            merged_.push_back({at, before, after});
        }
        if (after != Cells::kSeparator) after_.add(after, count);
        previous_end = at + span;
    }
    return repeated;
}

// Lowers the counts of the pairs that the merge took apart, and queues the pairs that it made. Returns whether there
// are any of these.
bool MergeLoop::update_pairs(Pair pair, Id made, Count repeated) {
    const Id left = left_of(pair), right = right_of(pair);
    for (const Id id : before_.ids()) queue_.prefetch(pair_of(id, left));
    for (const Id id : after_.ids()) queue_.prefetch(pair_of(right, id));
    queue_.lower(pair_of(right, left), repeated);
    bool any = false;
    for (const Id id : before_.ids()) {
        queue_.lower(pair_of(id, left), before_[id].count);
        any |= queue_pair(pair_of(id, made), before_[id]);
    }
    for (const Id id : after_.ids()) {
        if (id != made) queue_.lower(pair_of(right, id), after_[id].count);
        any |= queue_pair(pair_of(made, id), after_[id]);
    }
    return any;
}

// Queues a new pair, without its places, unless it is too rare or too long.
bool MergeLoop::queue_pair(Pair pair, Neighbours::Change& change) {
    const RankedPair ranked{change.count, pair};
    if (queue_.is_below_bound(ranked) || !tokens_.may_merge(pair)) return false;
    change.is_queued = true;
    change.next_place = queue_.add(ranked, change.place_count);
    return true;
}

// Enters the places of the new pairs.
void MergeLoop::enter_places() {
    for (const MergedPlace& place : merged_) {
        if (place.before != Cells::kSeparator && before_[place.before].is_queued) {
            queue_.set_place(before_[place.before].next_place++, place.at - cells_.span(place.before));
        }
        if (place.after != Cells::kSeparator && after_[place.after].is_queued) {
            queue_.set_place(after_[place.after].next_place++, place.at);
        }
    }
}

// Calls the option's `trace` with the word at the first place, which is the most frequent.
void MergeLoop::trace(std::span<const Position> places) const {
    const Merge& merge = tokens_.merges().back();
    for (const Position at : places) {
        if (!cells_.holds(at, pair_of(merge.left, merge.right))) continue;
        std::vector<Id> word;
        Position begin = at;
        while (cells_[begin - 1] != Cells::kSeparator) begin = cells_.begin_before(begin);
        std::size_t index = 0;
        for (; cells_[begin] != Cells::kSeparator; begin = cells_.end_of(begin)) {
            if (begin == at) index = word.size();
            word.push_back(cells_[begin]);
        }
        return options_.trace(merge, word, index);
    }
}

}  // namespace

LearnedMerges train_merges(WordSource& words, const MergeOptions& options) { return MergeLoop(words, options).run(); }

}  // namespace bpe
