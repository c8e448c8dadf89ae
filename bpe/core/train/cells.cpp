#include "train/cells.hpp"

#include <map>
#include <string>

#include "base/errors.hpp"
#include "encode/merge.hpp"

namespace bpe {

// A number of cells for each count: first how many the words with that count may need, then where the next word goes.
class RoomByCount {
 public:
    std::uint64_t& operator[](Count count) { return count < kRare ? rare_[count] : frequent_[count]; }

    // Calls use(count, number) for each count, descending.
    template <class Use>
    void visit(const Use& use) {
        for (auto entry = frequent_.rbegin(); entry != frequent_.rend(); ++entry) use(entry->first, entry->second);
        for (Count count = kRare; count-- > 0;) use(count, rare_[count]);
    }

 private:
    static constexpr Count kRare = 1 << 16;
    std::vector<std::uint64_t> rare_ = std::vector<std::uint64_t>(kRare);  // most words are rare
    std::map<Count, std::uint64_t> frequent_;
};

namespace {

// Encodes words, thousands at a time.
class WordEncoder {
 public:
    explicit WordEncoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary), merger_(vocabulary) {}

    // Calls take(ids, count) for this word, now or in a later call.
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

    // Calls take(ids, count) for the words that wait.
    template <class Take>
    void finish(const Take& take) {
        ids_.resize(bytes_.size());
        jobs_.clear();
        std::size_t at = 0;
        for (const WaitingWord& word : waiting_) {
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
    struct WaitingWord {
        std::size_t size;
        Count count;
    };
    const Vocabulary& vocabulary_;
    Merger merger_;
    Buffer<std::uint8_t> bytes_;
    Buffer<Id> ids_;
    std::vector<WaitingWord> waiting_;
    std::vector<MergeJob> jobs_;
};

void check_size(std::uint64_t cells, std::size_t memory) {
    if (cells > 0xFFFFFFFF) {
        throw InputError("the distinct pretokens of the corpus take more than 4 GiB; train on less text");
    }
    const std::size_t needed = cells * sizeof(Id) / 4 * 5;
    if (!memory || needed <= memory) return;
    throw InputError("merging needs " + std::to_string(needed / 1'000'000) + " MB of memory, but only " +
                     std::to_string(memory / 1'000'000) +
                     " MB are allowed; raise the limit (max_memory / --max-memory) or train on less text");
}

}  // namespace

// Two passes: first how many cells the words of each count may need, then where each word goes.
Cells::Cells(WordSource& words, const Vocabulary& vocabulary, std::size_t memory)
    : spans_(vocabulary.id_limit(), 1), uses_(vocabulary.id_limit()) {
    RoomByCount room;
    std::uint64_t total = 1;
    words.visit([&](Bytes word, Count count) {
        if (word.size() < 2) return;
        room[count] += word.size() + 1;
        total += word.size() + 1;
    });
    check_size(total, memory);

    Position start = 1;
    room.visit([&](Count count, std::uint64_t& cells) {
        if (!cells) return;
        counts_.push_back(count);
        starts_.push_back(start);
        start += static_cast<Position>(std::exchange(cells, start));
    });
    starts_.push_back(start);

    size_ = start;
    cells_ = ZeroedArray<Id>(size_ + 1, Pages::kFitting);  // one more, since the cell after a token is read
    cells_[0] = kSeparator;
    place(words, vocabulary, room);
    index_blocks();
}

// Writes each word to the next cells of its group, and releases the words. The cells of a group that stay empty become
// separators.
void Cells::place(WordSource& words, const Vocabulary& vocabulary, RoomByCount& room) {
    WordEncoder encoder(vocabulary);
    const auto take = [&](std::span<const Id> ids, Count count) {
        if (ids.size() == 1) {
            uses_[ids[0]] += count;
            return;
        }
        std::uint64_t& at = room[count];
        for (const Id id : ids) cells_[at++] = id;
        cells_[at++] = kSeparator;
    };
    words.visit([&](Bytes word, Count count) { encoder.encode(word, count, take); });
    encoder.finish(take);
    words.release();
    for (std::size_t group = 0; group < counts_.size(); ++group) {
        for (std::uint64_t at = room[counts_[group]]; at < starts_[group + 1]; ++at) cells_[at] = kSeparator;
    }
}

void Cells::index_blocks() {
    group_of_block_.resize(size_ / kBlockCells + 1);
    std::size_t group = 0;
    for (std::size_t block = 0; block < group_of_block_.size(); ++block) {
        while (group + 1 < counts_.size() && starts_[group + 1] <= block * kBlockCells) ++group;
        group_of_block_[block] = static_cast<std::uint32_t>(group);
    }
}

Count Cells::total_count() const {
    Count total = 0;
    for (std::size_t group = 0; group < counts_.size(); ++group) {
        total += counts_[group] * (starts_[group + 1] - starts_[group]);
    }
    return total;
}

// Divides the cells into parts of about the same size.
void Cells::split(std::size_t parts) {
    constexpr Position kSmallest = 1 << 16;
    parts = std::clamp<std::size_t>(size_ / kSmallest, 1, parts);
    part_ends_.clear();
    for (std::size_t part = 1; part < parts; ++part) {
        auto end = static_cast<Position>(std::uint64_t{size_} * part / parts);
        while (cells_[end - 1] != kSeparator) ++end;
        part_ends_.push_back(end);
    }
    part_ends_.push_back(size_);
}

// Moves the compacted parts together.
void Cells::close_gaps(std::span<const CompactedPart> done) {
    counts_.clear();
    starts_.clear();
    Position begin = 1, to = 1;
    for (std::size_t part = 0; part < done.size(); ++part) {
        const Position size = done[part].end - begin;
        std::memmove(cells_.data() + to, cells_.data() + begin, size * sizeof(Id));
        for (const Group& group : done[part].groups) {
            if (!counts_.empty() && counts_.back() == group.count) continue;
            counts_.push_back(group.count);
            starts_.push_back(group.start - begin + to);
        }
        for (const auto& [id, count] : done[part].whole) uses_[id] += count;
        to += size;
        begin = std::exchange(part_ends_[part], to);
    }
    starts_.push_back(to);
    size_ = to;
    cells_.shrink(size_ + 1);
    std::fill(spans_.begin(), spans_.end(), 1);
    index_blocks();
}

std::vector<Count> Cells::take_uses() {
    compact(1, [](auto&&...) {});
    for (Position at = 1; at < size_; ++at) {
        if (cells_[at] != kSeparator) uses_[cells_[at]] += count_at(at);
    }
    return std::move(uses_);
}

}  // namespace bpe
