#include "trainer.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>

#include "memory.hpp"
#include "merge.hpp"

namespace bpe {

namespace {

using Position = std::uint32_t;
using Count = std::uint64_t;

// Two neighbours, as one number that orders like them: by the left id, then by the right.
using Pair = std::uint64_t;
Pair pair_of(Id left, Id right) { return Pair{left} << 32 | right; }
Id left_of(Pair pair) { return static_cast<Id>(pair >> 32); }
Id right_of(Pair pair) { return static_cast<Id>(pair); }

// The distinct words, in one array. Each word is followed by a separator, and before the first stands one too. A token
// has a cell for each of its parts at the time of the last `compact`, and its id stands in the first and in the last of
// them; what is between is of no meaning. So the neighbours of a token are found without links: the one after it begins
// where it ends, and the cell before it is the last cell of the one before. Words of the same count stand together, so
// that the count of a cell's word follows from its position.
class Cells {
 public:
    static constexpr Id kSeparator = kNoId;
    static constexpr Id kHole = kNoId - 1;  // a cell that belongs to the token before it

    // The words, encoded with the vocabulary. `uses` gets the counts of those that are one token.
    Cells(WordSource& words, const Vocabulary& vocabulary, std::vector<Count>& uses);

    Position size() const { return size_; }
    Id& operator[](Position at) { return cells_[at]; }
    Id operator[](Position at) const { return cells_[at]; }
    void prefetch(Position at) const { __builtin_prefetch(cells_.data() + at); }

    // How many cells a token takes.
    Position span(Id id) const { return spans_[id]; }
    void add_token(Position span) { spans_.push_back(span); }

    // How often the word that a cell belongs to was seen.
    Count count_at(Position at) const {
        std::size_t group = group_of_block_[at / kBlock];
        while (starts_[group + 1] <= at) ++group;
        return counts_[group];
    }

    // Gives each token one cell, and drops the words that are one token: nothing happens to them any more. Adds to
    // `uses` how often each of these was seen. Calls note(pair, count) for all neighbours that are left.
    template <class Note>
    void compact(std::vector<Count>& uses, const Note& note);

    // Only after `compact`: the place of each pair of neighbours for which filter(place) is true, some at a time, in
    // order, go to note(places, count), where `count` is that of all their words.
    template <class Filter, class Note>
    void visit(const Filter& filter, const Note& note) const;
    Pair pair_at(Position at) const { return pair_of(cells_[at], cells_[at + 1]); }

 private:
    static constexpr Position kBlock = 64;
    void index_blocks();

    ZeroedArray<Id> cells_{0};
    Position size_ = 0;
    std::vector<Position> spans_;
    std::vector<Count> counts_;                  // of the words of each group, falling
    std::vector<Position> starts_;               // the first cell of each group, and the end
    std::vector<std::uint32_t> group_of_block_;  // the group of the first cell of each block
};

// Encodes words, many at a time.
class WordEncoder {
 public:
    explicit WordEncoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary), merger_(vocabulary) {}

    // Calls take(ids, count) for this word, or will do so later.
    template <class Take>
    void encode(Bytes word, Count count, const Take& take) {
        if (vocabulary_.token_count() == 256) {  // single bytes
            ids_.resize(word.size());
            for (std::size_t i = 0; i < word.size(); ++i) ids_[i] = vocabulary_.id_of_byte(word[i]);
            return take(std::span<const Id>(ids_.data(), word.size()), count);
        }
        if (const Id whole = vocabulary_.find(word.data(), word.size()); whole != kNoId) {
            return take(std::span<const Id>(&whole, 1), count);
        }
        bytes_.append(word.data(), word.size());
        waiting_.push_back({word.size(), count});
        if (bytes_.size() > kMost || waiting_.size() == kMost) finish(take);
    }
    template <class Take>
    void finish(const Take& take) {
        ids_.resize(bytes_.size());
        jobs_.clear();
        std::size_t at = 0;
        for (const Word& word : waiting_) {
            jobs_.push_back({bytes_.data() + at, word.size, ids_.data() + at, 0});
            at += word.size;
        }
        merger_.merge(jobs_);
        for (std::size_t i = 0; i < jobs_.size(); ++i) {
            take(std::span<const Id>(jobs_[i].ids, jobs_[i].count), waiting_[i].count);
        }
        waiting_.clear();
        bytes_.clear();
    }

 private:
    static constexpr std::size_t kMost = 1 << 14;
    struct Word {
        std::size_t size;
        Count count;
    };
    const Vocabulary& vocabulary_;
    Merger merger_;
    Buffer<std::uint8_t> bytes_;
    Buffer<Id> ids_;
    std::vector<Word> waiting_;
    std::vector<MergeJob> jobs_;
};

// Two passes: how many cells the words of each count may take, then where each goes.
Cells::Cells(WordSource& words, const Vocabulary& vocabulary, std::vector<Count>& uses)
    : spans_(vocabulary.id_limit(), 1) {
    // Most words are rare: their counts are numbers in an array.
    constexpr Count kRare = 1 << 16;
    std::vector<std::uint64_t> rare(kRare);
    std::map<Count, std::uint64_t> frequent;
    const auto room_of = [&](Count count) -> std::uint64_t& { return count < kRare ? rare[count] : frequent[count]; };
    std::uint64_t total = 1;
    words.visit([&](Bytes word, Count count) {
        if (word.size() < 2) return;
        room_of(count) += word.size() + 1;
        total += word.size() + 1;
    });
    if (total > 0xFFFFFFFF) throw std::length_error("the distinct pretokens hold more than 4 GiB");
    Position start = 1;
    const auto add_group = [&](Count count, std::uint64_t& room) {
        if (!room) return;
        counts_.push_back(count);
        starts_.push_back(start);
        start += static_cast<Position>(std::exchange(room, start));  // from now on, where the next word goes
    };
    for (auto entry = frequent.rbegin(); entry != frequent.rend(); ++entry) add_group(entry->first, entry->second);
    for (Count count = kRare; count-- > 0;) add_group(count, rare[count]);
    starts_.push_back(start);

    size_ = start;
    cells_ = ZeroedArray<Id>(size_);
    cells_[0] = kSeparator;
    WordEncoder encoder(vocabulary);
    const auto place = [&](std::span<const Id> ids, Count count) {
        if (ids.size() == 1) {
            uses[ids[0]] += count;
            return;
        }
        std::uint64_t& at = room_of(count);
        for (const Id id : ids) cells_[at++] = id;
        cells_[at++] = kSeparator;
    };
    words.visit([&](Bytes word, Count count) { encoder.encode(word, count, place); });
    encoder.finish(place);
    words.release();
    // What is left of the room of each count is empty.
    for (std::size_t group = 0; group < counts_.size(); ++group) {
        for (std::uint64_t at = room_of(counts_[group]); at < starts_[group + 1]; ++at) cells_[at] = kSeparator;
    }
    index_blocks();
}

void Cells::index_blocks() {
    group_of_block_.resize(size_ / kBlock + 1);
    std::size_t group = 0;
    for (std::size_t block = 0; block < group_of_block_.size(); ++block) {
        while (group + 1 < counts_.size() && starts_[group + 1] <= block * kBlock) ++group;
        group_of_block_[block] = static_cast<std::uint32_t>(group);
    }
}

template <class Note>
void Cells::compact(std::vector<Count>& uses, const Note& note) {
    Position from = 1, to = 1;
    std::size_t kept = 0;  // groups
    for (std::size_t group = 0; group < counts_.size(); ++group) {
        const Count count = counts_[group];
        const Position end = starts_[group + 1];
        const Position start = to;
        const auto take = [&] {  // the token that stands at `from`
            const Id id = cells_[from];
            from += spans_[id];
            while (cells_[from] == kHole) ++from;
            return id;
        };
        while (from < end) {
            if (cells_[from] == kSeparator) {
                ++from;
                continue;
            }
            Id previous = take();
            if (cells_[from] == kSeparator) {
                uses[previous] += count;
                continue;
            }
            cells_[to++] = previous;
            while (cells_[from] != kSeparator) {
                const Id id = take();
                cells_[to++] = id;
                note(pair_of(previous, id), count);
                previous = id;
            }
            cells_[to++] = kSeparator;
        }
        if (to == start) continue;
        counts_[kept] = count;
        starts_[kept++] = start;
    }
    counts_.resize(kept);
    starts_.resize(kept);
    starts_.push_back(to);
    size_ = to;
    std::fill(spans_.begin(), spans_.end(), 1);
    index_blocks();
}

template <class Filter, class Note>
void Cells::visit(const Filter& filter, const Note& note) const {
    constexpr Position kAhead = 256;
    Position chosen[kAhead];
    for (std::size_t group = 0; group < counts_.size(); ++group) {
        const Position end = starts_[group + 1] - 1;
        for (Position at = starts_[group]; at < end;) {
            std::size_t count = 0;
            for (const Position stop = std::min(end, at + kAhead); at < stop; ++at) {
                chosen[count] = at;
                count += (cells_[at] != kSeparator) & (cells_[at + 1] != kSeparator) & filter(at);
            }
            note(std::span<const Position>(chosen, count), counts_[group]);
        }
    }
}

// What is known of a pair: how often it stands in the text, and where. Its places are the first cells of the left
// token, ascending; some may be out of date.
struct PairEntry {
    Pair pair;
    Count count;
    std::uint32_t first_place;
    std::uint32_t place_count;
};

// The pairs that are worth knowing. (vocab.hpp has another such table, which never changes.)
class KnownPairs {
 public:
    KnownPairs() { clear(0); }

    void clear(std::size_t expected) {
        const std::size_t slots = std::bit_ceil(std::max<std::size_t>(1024, expected * 2));
        entries_ = ZeroedArray<PairEntry>(slots);
        shift_ = 64 - std::countr_zero(slots);
        size_ = 0;
    }
    std::size_t size() const { return size_; }
    template <class Note>
    void visit(const Note& note) const {
        for (std::size_t slot = 0; slot < entries_.size(); ++slot) {
            if (entries_[slot].place_count) note(entries_[slot]);
        }
    }

    void prefetch(Pair pair) const { __builtin_prefetch(&entries_[slot_of(pair)]); }
    PairEntry* find(Pair pair) {
        PairEntry& entry = entries_[slot_for(pair)];
        return entry.place_count ? &entry : nullptr;
    }
    // The pair's entry, where one with no places is new; it must be given some. It is good until the next call.
    PairEntry& operator[](Pair pair) {
        std::size_t slot = slot_for(pair);
        if (!entries_[slot].place_count) {
            if (++size_ * 2 > entries_.size()) {
                grow();
                slot = slot_for(pair);
            }
            entries_[slot].pair = pair;
        }
        return entries_[slot];
    }

 private:
    std::size_t slot_of(Pair pair) const { return hash_of(pair, pair >> 7) >> shift_; }
    std::size_t slot_for(Pair pair) const {
        std::size_t slot = slot_of(pair);
        while (entries_[slot].place_count && entries_[slot].pair != pair) slot = (slot + 1) & (entries_.size() - 1);
        return slot;
    }
    void grow() {
        ZeroedArray<PairEntry> old(entries_.size() * 2);
        std::swap(old, entries_);
        --shift_;
        for (std::size_t i = 0; i < old.size(); ++i) {
            if (old[i].place_count) entries_[slot_for(old[i].pair)] = old[i];
        }
    }

    ZeroedArray<PairEntry> entries_{0};
    int shift_ = 0;
    std::size_t size_ = 0;
};

// Upper bounds of the counts of all pairs: sums over pairs that share a hash.
class Sketch {
 public:
    explicit Sketch(std::size_t pairs)
        : sums_(std::bit_ceil(std::clamp<std::size_t>(pairs, 1 << 12, 1 << 21))),
          shift_(64 - std::countr_zero(sums_.size())) {}

    void add(Pair pair, Count count) {
        std::uint32_t& sum = sums_[slot_of(pair)];
        sum = static_cast<std::uint32_t>(std::min<Count>(kMost, sum + count));
    }
    bool may_reach(Pair pair, Count count) const { return sums_[slot_of(pair)] >= std::min(count, kMost); }

    // A count that at most about `pairs` sums reach.
    Count threshold(std::size_t pairs) const {
        std::size_t of_size[256] = {};
        for (std::size_t i = 0; i < sums_.size(); ++i) ++of_size[size_class(sums_[i])];
        std::size_t reached = 0;
        unsigned size = 255;
        while (size > 0 && reached + of_size[size] <= pairs) reached += of_size[size--];
        return least_of(size + 1);
    }

 private:
    static constexpr Count kMost = 0xFFFFFFFF;
    std::size_t slot_of(Pair pair) const { return hash_of(pair, pair >> 7) >> shift_; }
    // Eight classes to an octave.
    static unsigned size_class(std::uint32_t sum) {
        if (sum < 8) return sum;
        const unsigned octave = static_cast<unsigned>(std::bit_width(sum)) - 4;
        return octave * 8 + (sum >> octave);
    }
    static Count least_of(unsigned size) {
        if (size < 16) return size;
        return Count{size % 8 + 8} << (size / 8 - 1);
    }

    ZeroedArray<std::uint32_t> sums_;
    int shift_;
};

// Pairs that come after a certain one, in the order in which they are merged, are left out of all tables, until none
// before it is left; then the bound is set anew. That changes nothing: counts never rise, and a pair that arises is no
// more frequent than the two that it came from.
class Training {
 public:
    Training(WordSource& words, const TrainerOptions& options)
        : options_(options),
          base_(*options.base),
          uses_(base_.id_limit() + options.merges),
          cells_(words, base_, uses_),
          lengths_(base_.id_limit()),
          left_(uses_.size()),
          right_(uses_.size()) {
        for (Id id = 0; id < base_.id_limit(); ++id)
            lengths_[id] = static_cast<std::uint32_t>(base_.bytes_of(id).size());
        find_unreached();
    }

    std::vector<Count> run() {
        while (merges_.size() < options_.merges && begin_epoch()) {
            while (merges_.size() < options_.merges && !queue_.empty()) {
                const Candidate best = queue_.front();
                most_ = best.count;
                if (places_.size() > places_wanted_) break;
                std::pop_heap(queue_.begin(), queue_.end());
                queue_.pop_back();
                PairEntry& entry = *known_.find(best.pair);
                if (entry.count != best.count) {  // it shrank since it was put here
                    enqueue({entry.count, entry.pair});
                    continue;
                }
                entry.count = 0;
                merges_.push_back({left_of(best.pair), right_of(best.pair), best.count});
                const std::span places(places_.data() + entry.first_place, entry.place_count);
                if (merges_.size() <= options_.traced) trace(places);
                const bool joins = !affixes_.empty() && affixes_.contains(bytes_of(best.pair));
                joins ? apply_and_join(best.pair, places) : apply(best.pair, places);
                if (merges_.size() % 256 == 0 && !report()) return {};
                if (joins) break;
            }
        }
        if (!report()) return {};
        cells_.compact(uses_, [](Pair, Count) {});
        for (Position at = 1; at < cells_.size(); ++at) {
            if (cells_[at] != Cells::kSeparator) uses_[cells_[at]] += cells_.count_at(at);
        }
        uses_.resize(lengths_.size());
        return std::move(uses_);
    }

 private:
    struct Candidate {
        Count count;
        Pair pair;
        bool operator<(const Candidate& other) const {  // a heap has the greatest first
            return count != other.count ? count < other.count : pair > other.pair;
        }
    };
    // What a merge does to the neighbours of one kind on one side.
    struct Side {
        Count count = 0;
        std::uint32_t place_count = 0;
        std::uint32_t next_place = 0;
        bool touched = false;
        bool known = false;
    };
    struct Place {
        Position at;
        Id before;
        Id after;
    };

    bool may_join(Id left, Id right) const {
        return !options_.max_token_length || lengths_[left] + lengths_[right] <= options_.max_token_length;
    }
    void enqueue(const Candidate& candidate) {
        if (candidate < bound_) return;
        queue_.push_back(candidate);
        std::push_heap(queue_.begin(), queue_.end());
    }

    // Sets the bound, and enters the pairs before it. Returns false where there is none.
    bool begin_epoch() {
        const Count least = std::max<Count>(1, options_.min_frequency);
        // So many pairs are entered, more or less: as many as may be merged soon.
        const std::size_t wanted = kFirstPairs + std::min(merges_.size(), 2 * (options_.merges - merges_.size()));
        std::vector<PairEntry> kept;
        Buffer<Position> candidates;  // the places of all pairs that may be among these
        while (kept.empty() && most_ >= least) {
            known_.clear(0);
            Sketch sketch(cells_.size() / 2);
            cells_.compact(uses_, [&](Pair pair, Count count) { sketch.add(pair, count); });
            const Count threshold = std::max(least, std::min(most_, sketch.threshold(wanted)));
            candidates.clear();
            cells_.visit([&](Position at) { return sketch.may_reach(cells_.pair_at(at), threshold); },
                         [&](std::span<const Position> some, Count count) {
                             candidates.append(some.data(), some.size());
                             for (const Position at : some) known_.prefetch(cells_.pair_at(at));
                             for (const Position at : some) {
                                 PairEntry& entry = known_[cells_.pair_at(at)];
                                 entry.count += count;
                                 ++entry.place_count;
                             }
                         });
            known_.visit([&](const PairEntry& entry) {
                if (entry.count < threshold || !may_join(left_of(entry.pair), right_of(entry.pair))) return;
                kept.push_back(entry);
            });
            bound_ = {threshold, ~Pair{0}};
            most_ = threshold - 1;
        }
        if (kept.size() > 2 * wanted) {
            const auto last = kept.begin() + static_cast<std::ptrdiff_t>(wanted);
            std::ranges::nth_element(kept, last, [](const PairEntry& a, const PairEntry& b) {
                return Candidate{b.count, b.pair} < Candidate{a.count, a.pair};
            });
            bound_ = {last->count, last->pair};
            most_ = last->count;
            kept.erase(last + 1, kept.end());
        }

        known_.clear(kept.size() * 2);
        places_.clear();
        queue_.clear();
        std::size_t total = 0;
        for (PairEntry& entry : kept) {
            entry.first_place = static_cast<std::uint32_t>(total);
            total += entry.place_count;
            known_[entry.pair] = entry;
            queue_.push_back({entry.count, entry.pair});
        }
        std::make_heap(queue_.begin(), queue_.end());
        places_.resize(total);
        places_wanted_ = total + cells_.size() / 2 + (1 << 16);
        for (std::size_t i = 0; i < candidates.size(); ++i) {
            const Position at = candidates[i];
            if (PairEntry* entry = known_.find(cells_.pair_at(at))) places_[entry->first_place++] = at;
        }
        for (const PairEntry& entry : kept) known_.find(entry.pair)->first_place -= entry.place_count;
        return !kept.empty();
    }

    // Whether a place is still up to date: the left token is there with both its ends, since what absorbs a token
    // overwrites one of them, and the right one begins behind it.
    bool stands_at(Position at, Pair pair) const {
        const Id left = left_of(pair);
        const Position span = cells_.span(left);
        return cells_[at] == left && cells_[at + span - 1] == left && cells_[at + span] == right_of(pair);
    }

    void apply(Pair pair, std::span<const Position> places) {
        constexpr std::size_t kAhead = 16;
        const Id left = left_of(pair), right = right_of(pair);
        const auto made = static_cast<Id>(lengths_.size());
        const Position span = cells_.span(left) + cells_.span(right);
        merged_.clear();
        Position previous_end = 0;
        Count repeated = 0;  // of the pair (right, left), where one occurrence follows another
        for (std::size_t i = 0; i < places.size(); ++i) {
            if (i + kAhead < places.size()) cells_.prefetch(places[i + kAhead]);
            const Position at = places[i];
            if (!stands_at(at, pair)) continue;
            const Count count = cells_.count_at(at);
            const Id before = cells_[at - 1];
            const Id after = cells_[at + span];
            cells_[at] = made;
            cells_[at + span - 1] = made;
            if (at == previous_end) {
                repeated += count;
                take_back(merged_.back().after, count);
                merged_.back().after = made;
                add(right_, touched_right_, made, count);
                merged_.push_back({at, Cells::kSeparator, after});
            } else {
                if (before != Cells::kSeparator) add(left_, touched_left_, before, count);
                merged_.push_back({at, before, after});
            }
            if (after != Cells::kSeparator) add(right_, touched_right_, after, count);
            previous_end = at + span;
        }
        cells_.add_token(span);
        lengths_.push_back(lengths_[left] + lengths_[right]);

        for (const Id id : touched_left_) known_.prefetch(pair_of(id, left));
        for (const Id id : touched_right_) known_.prefetch(pair_of(right, id));
        lose(pair_of(right, left), repeated);
        bool any = false;
        for (const Id id : touched_left_) {
            lose(pair_of(id, left), left_[id].count);
            any |= gain(pair_of(id, made), left_[id]);
        }
        for (const Id id : touched_right_) {
            if (id != made) lose(pair_of(right, id), right_[id].count);
            any |= gain(pair_of(made, id), right_[id]);
        }
        if (any) {
            for (const Place& place : merged_) {
                if (place.before != Cells::kSeparator && left_[place.before].known) {
                    places_[left_[place.before].next_place++] = place.at - cells_.span(place.before);
                }
                if (place.after != Cells::kSeparator && right_[place.after].known) {
                    places_[right_[place.after].next_place++] = place.at;
                }
            }
        }
        for (const Id id : touched_left_) left_[id] = {};
        for (const Id id : touched_right_) right_[id] = {};
        touched_left_.clear();
        touched_right_.clear();
    }

    // Tokens of the base that merging does not reach, only a whole pretoken: a merge may bring two neighbours together
    // that are such a token. Then one of them is the token just made, and an affix of the other.
    void find_unreached() {
        if (base_.token_count() == 256) return;
        Merger merger(base_);
        std::vector<Id> ids(base_.longest_token());
        for (Id id = 0; id < base_.id_limit(); ++id) {
            const Bytes bytes = base_.bytes_of(id);
            if (bytes.size() < 2 || merger.merge(bytes.data(), bytes.size(), ids.data()) == 1) continue;
            for (std::size_t size = 1; size < bytes.size(); ++size) {
                affixes_.emplace(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
                affixes_.emplace(bytes.end() - static_cast<std::ptrdiff_t>(size), bytes.end());
            }
        }
    }

    std::string bytes_of(Id id) const {
        if (id < base_.id_limit()) {
            const Bytes bytes = base_.bytes_of(id);
            return {bytes.begin(), bytes.end()};
        }
        const Merge& merge = merges_[id - base_.id_limit()];
        return bytes_of(merge.left) + bytes_of(merge.right);
    }
    std::string bytes_of(Pair pair) const { return bytes_of(left_of(pair)) + bytes_of(right_of(pair)); }

    // Does the merge as encoding does it: one place after the other, and at each, before the next, whatever merges into
    // a token of the base becomes possible. This is rare; the counts of the neighbours are found anew after it.
    void apply_and_join(Pair pair, std::span<const Position> places) {
        const auto made = static_cast<Id>(lengths_.size());
        const auto joined = [&](Id left, Id right) {
            if (left == Cells::kSeparator || right == Cells::kSeparator) return kNoId;
            const std::string bytes = bytes_of(left) + bytes_of(right);
            return base_.find(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
        };
        cells_.add_token(1);
        lengths_.push_back(lengths_[left_of(pair)] + lengths_[right_of(pair)]);
        for (const Position at : places) {
            if (!stands_at(at, pair)) continue;
            Position begin = at, end = at + cells_.span(left_of(pair)) + cells_.span(right_of(pair));
            for (Id id = made;;) {
                // A token in its first cell, and holes.
                cells_[begin] = id;
                for (Position hole = begin + 1; hole < end; ++hole) cells_[hole] = Cells::kHole;
                Position before = begin - 1, behind = end;
                while (cells_[before] == Cells::kHole) --before;
                const Id with_left = joined(cells_[before], id);
                const Id with_right = joined(id, cells_[behind]);
                if (with_left == kNoId && with_right == kNoId) break;
                if (with_left <= with_right) {
                    begin = before + 1 - cells_.span(cells_[before]);
                    id = with_left;
                } else {
                    end += cells_.span(cells_[behind]);
                    while (cells_[end] == Cells::kHole) ++end;
                    id = with_right;
                }
            }
        }
    }

    void trace(std::span<const Position> places) const {
        const Merge& merge = merges_.back();
        for (Position at : places) {
            if (!stands_at(at, pair_of(merge.left, merge.right))) continue;
            std::vector<Id> word;
            Position begin = at;
            while (cells_[begin - 1] != Cells::kSeparator) begin -= cells_.span(cells_[begin - 1]);
            std::size_t place = 0;
            for (; cells_[begin] != Cells::kSeparator; begin += cells_.span(cells_[begin])) {
                if (begin == at) place = word.size();
                word.push_back(cells_[begin]);
            }
            return options_.trace(merge, word, place);
        }
    }

    bool report() {
        const std::span<const Merge> fresh = std::span<const Merge>(merges_).subspan(reported_);
        reported_ = merges_.size();
        return !options_.progress || options_.progress(fresh);
    }

    static void add(std::vector<Side>& sides, std::vector<Id>& touched, Id id, Count count) {
        Side& side = sides[id];
        if (!side.touched) touched.push_back(id);
        side.touched = true;
        side.count += count;
        ++side.place_count;
    }
    // What stood after the last place was merged with what follows it.
    void take_back(Id after, Count count) {
        right_[after].count -= count;
        --right_[after].place_count;
    }

    void lose(Pair pair, Count count) {
        if (!count) return;
        if (PairEntry* entry = known_.find(pair)) entry->count -= std::min(entry->count, count);
    }

    // Enters a pair that arose, unless it is too rare. Then there is room for its places.
    bool gain(Pair pair, Side& side) {
        if (Candidate{side.count, pair} < bound_ || !may_join(left_of(pair), right_of(pair))) return false;
        side.known = true;
        side.next_place = static_cast<std::uint32_t>(places_.size());
        places_.resize(places_.size() + side.place_count);
        known_[pair] = {pair, side.count, side.next_place, side.place_count};
        enqueue({side.count, pair});
        return true;
    }

    static constexpr std::size_t kFirstPairs = 2048;

    const TrainerOptions& options_;
    const Vocabulary& base_;
    std::vector<Count> uses_;
    Cells cells_;
    std::vector<std::uint32_t> lengths_;       // of each token, in bytes
    std::unordered_set<std::string> affixes_;  // see find_unreached
    KnownPairs known_;
    Buffer<Position> places_;
    std::size_t places_wanted_ = 0;  // when there are more, it is time to clear those away that are out of date
    std::vector<Candidate> queue_;
    Candidate bound_{};       // the last pair that may be known
    Count most_ = ~Count{0};  // no pair has a higher count
    std::vector<Merge> merges_;
    std::size_t reported_ = 0;  // of the merges
    // One merge.
    std::vector<Place> merged_;
    std::vector<Side> left_, right_;  // by id
    std::vector<Id> touched_left_, touched_right_;
};

}  // namespace

std::vector<std::uint64_t> train_merges(WordSource& words, const TrainerOptions& options) {
    return Training(words, options).run();
}

}  // namespace bpe
