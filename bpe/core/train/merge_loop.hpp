// Counts of pretokens -> merges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "encode/vocab.hpp"
#include "train/merged_tokens.hpp"
#include "train/words.hpp"

namespace bpe {

struct MergeOptions {
    std::shared_ptr<const Vocabulary> base;  // the vocabulary to begin with, which first encodes the words
    std::size_t merges;                      // how many to learn
    std::uint64_t min_frequency = 1;         // the lowest count of a pair that is merged
    std::size_t memory = 0;                  // the limit in bytes, kept approximately; 0 for no limit
    std::size_t threads = 1;
    std::size_t max_token_length = 0;  // of new tokens, in bytes; 0 for no limit
    // Called now and then with the merges learned so far. Training stops when it returns false.
    std::function<bool(std::span<const Merge>)> progress;
    // Called for the first `traced` merges, before each, with the ids of the most frequent word that contains the pair,
    // and the index of the pair in them.
    std::size_t traced = 0;
    std::function<void(const Merge&, std::span<const Id> word, std::size_t index)> trace;
};

struct LearnedMerges {
    std::vector<Merge> merges;
    std::vector<std::uint64_t> uses;  // how often each id occurs in the words in the end
};

// Trains byte-pair encoding: takes the pair of neighbours with the highest count, ties to the lowest left id and then
// to the lowest right id, merges it everywhere, from left to right in each word, and repeats. The merges make the ids
// from base->id_limit() on. Learns fewer merges than asked for if no pair is left that may be merged.
//
// At all times the words are what encoding them with the tokens so far gives: where a merge brings two neighbours
// together that are a token of the base, which merging did not reach before, they become that token at once.
LearnedMerges train_merges(WordSource& words, const MergeOptions& options);

}  // namespace bpe
