// Counts of pretokens -> merges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "counter.hpp"
#include "vocab.hpp"

namespace bpe {

// The ids `left` and `right` become a token; it stood `count` times in the text when it was chosen.
struct Merge {
    Id left;
    Id right;
    std::uint64_t count;
};

struct TrainerOptions {
    std::size_t merges;            // how many to learn
    std::uint64_t min_frequency;   // no pair that is rarer is merged
    std::size_t max_token_length;  // no token longer than this many bytes is made; 0 for no limit
    std::uint8_t byte_order[256];  // the byte that base id i stands for
    // Called now and then with the number of merges learned so far; training stops when it returns false.
    std::function<bool(std::size_t)> progress;
};

// Byte-pair encoding's training: take the pair of neighbours with the highest count, ties to the lowest left and then
// the lowest right id; merge it everywhere, from left to right in each word; repeat. Merge i makes the id 256 + i.
// Returns fewer merges than asked for where no pair is left that may be merged.
std::vector<Merge> train_merges(const PretokenCounts& counts, const TrainerOptions& options);

}  // namespace bpe
