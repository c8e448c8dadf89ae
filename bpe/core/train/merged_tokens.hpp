// The tokens of training: those of the base vocabulary, and one more for each merge.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "encode/vocab.hpp"
#include "train/pair_tables.hpp"

namespace bpe {

// The ids `left` and `right` become a new token. Their pair occurred `count` times in the text at that time.
struct Merge {
    Id left;
    Id right;
    std::uint64_t count;
};

class MergedTokens {
 public:
    // No token may be longer than `max_length` bytes; 0 for no limit.
    MergedTokens(const Vocabulary& base, std::size_t max_length)
        : base_(base), max_length_(max_length), lengths_(base.id_limit()) {
        for (Id id = 0; id < base.id_limit(); ++id) lengths_[id] = static_cast<std::uint32_t>(base.bytes_of(id).size());
    }

    const Vocabulary& base() const { return base_; }
    std::span<const Merge> merges() const { return merges_; }

    // Returns whether the token that the pair makes is short enough.
    bool may_merge(Pair pair) const {
        return !max_length_ || lengths_[left_of(pair)] + lengths_[right_of(pair)] <= max_length_;
    }

    // Adds the merge of a pair and returns the id that it makes.
    Id add(const RankedPair& pair) {
        const Id left = left_of(pair.pair), right = right_of(pair.pair);
        merges_.push_back({left, right, pair.count});
        lengths_.push_back(lengths_[left] + lengths_[right]);
        return static_cast<Id>(lengths_.size() - 1);
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

    std::vector<Merge> take_merges() { return std::move(merges_); }

 private:
    const Vocabulary& base_;
    std::size_t max_length_;
    std::vector<std::uint32_t> lengths_;  // of each token, in bytes
    std::vector<Merge> merges_;
};

}  // namespace bpe
