// Pretokens -> counts, for training.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "scan.hpp"
#include "special.hpp"

namespace bpe {

// How often each distinct pretoken was seen. The bytes lie one after the other in one block.
class PretokenCounts {
 public:
    PretokenCounts();

    std::size_t size() const { return words_.size(); }
    std::span<const std::uint8_t> bytes_of(std::size_t word) const {
        return {bytes_.data() + words_[word].begin, words_[word].size};
    }
    std::uint64_t count_of(std::size_t word) const { return words_[word].count; }
    std::size_t total_bytes() const { return bytes_.size(); }

    void add(const std::uint8_t* bytes, std::size_t size, std::uint64_t count);
    void add(const PretokenCounts& other);

 private:
    struct Word {
        std::uint64_t begin;
        std::uint64_t count;
        std::uint64_t hash;
        std::uint64_t size;
    };
    void grow();

    std::vector<std::uint8_t> bytes_;
    std::vector<Word> words_;
    std::vector<std::uint32_t> table_;  // 1 + index in words_, 0 for a free slot
    std::size_t mask_;
};

// Counts the pretokens of texts, on several threads. Special tokens in a text are boundaries and are not counted.
class Counter {
 public:
    Counter(Pattern pattern, std::shared_ptr<const SpecialTokens> special) : pattern_(pattern), special_(special) {}

    // Every pretoken of each text counts `weight` times. The sums do not depend on the number of threads.
    void add(std::span<const std::span<const std::uint8_t>> texts, std::uint64_t weight, std::size_t threads);

    // Adds pretokens that were cut elsewhere.
    void add_pretokens(std::span<const std::span<const std::uint8_t>> pretokens, std::uint64_t weight);

    // The counts so far; the tables of the threads are folded into one.
    const PretokenCounts& counts();

 private:
    void add_text(std::span<const std::uint8_t> text, std::uint64_t weight, PretokenCounts& counts) const;

    Pattern pattern_;
    std::shared_ptr<const SpecialTokens> special_;
    std::vector<PretokenCounts> tables_ = std::vector<PretokenCounts>(1);  // one for each thread
};

}  // namespace bpe
