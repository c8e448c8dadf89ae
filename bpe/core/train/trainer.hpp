// Counts of pretokens -> merges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "encode/vocab.hpp"
#include "train/words.hpp"

namespace bpe {

// The ids `left` and `right` become a token; it stood `count` times in the text when it was chosen.
struct Merge {
    Id left;
    Id right;
    std::uint64_t count;
};

struct TrainerOptions {
    std::shared_ptr<const Vocabulary> base;  // what there is before; words are first encoded with it
    std::size_t merges;                      // how many to learn
    std::uint64_t min_frequency = 1;         // no pair that is rarer is merged
    std::size_t memory = 0;                  // in bytes, that may be taken, more or less; 0 for no limit
    std::size_t threads = 1;
    std::size_t max_token_length = 0;  // no token longer than this many bytes is made; 0 for no limit
    // Called now and then with the merges learned so far; training stops when it returns false.
    std::function<bool(std::span<const Merge>)> progress;
    // Called for the first `traced` merges, before they are done, with the ids of the most frequent word that holds the
    // pair, and where in it the pair stands.
    std::size_t traced = 0;
    std::function<void(const Merge&, std::span<const Id> word, std::size_t place)> trace;
};

// Distinct words with their counts, in any order, which can be gone through again.
class WordSource {
 public:
    virtual ~WordSource() = default;
    virtual void visit(const std::function<void(Bytes word, std::uint64_t count)>& visit) = 0;
    virtual void release() {}  // they are not needed any more
};

struct Learned {
    std::vector<Merge> merges;
    std::vector<std::uint64_t> uses;  // how often each id stands in the words at the end
};

// Byte-pair encoding's training: take the pair of neighbours with the highest count, ties to the lowest left and then
// the lowest right id; merge it everywhere, from left to right in each word; repeat. The merges make the ids from
// base->id_limit() on. Learns fewer merges than asked for where no pair is left that may be merged.
//
// At all times the words are what encoding them with the tokens so far gives: where a merge brings two neighbours
// together that are a token of the base, which merging did not reach before, they become that token at once.
Learned train_merges(WordSource& words, const TrainerOptions& options);

}  // namespace bpe
