// Pretokens -> counts, for training.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/scan.hpp"
#include "encode/special.hpp"
#include "train/words.hpp"

namespace bpe {

// Counts the pretokens of texts, on several threads. Special tokens in a text are boundaries and are not counted.
class Counter {
 public:
    Counter(Pattern pattern, std::shared_ptr<const SpecialTokens> special, const Kernel& kernel = kernels().front());
    Counter(const Counter&) = delete;
    Counter& operator=(const Counter&) = delete;
    ~Counter();

    // Every pretoken of each text counts `weight` times. The sums do not depend on the number of threads, over which
    // long texts are spread as well.
    void add(std::span<const Bytes> texts, std::uint64_t weight, std::size_t threads);

    // Adds pretokens that were cut elsewhere.
    void add_pretokens(std::span<const Bytes> pretokens, std::uint64_t weight);

    // How much of `text` can be counted apart from what follows it, whatever that is: up to the last place that is
    // certain, or 0.
    std::size_t certain_part(Bytes text) const;

    // The counts so far; the tables of the threads are folded into one.
    WordCounts& words();

    // How many tables there are, how many bytes their words have in all, with one more for each, and what they take in
    // memory, with what they may soon take.
    std::size_t tables() const { return workers_.size(); }
    std::size_t cells() const;
    std::size_t memory() const;

    // Writes each table to the file of its number, see runs.hpp, and forgets all.
    void write_runs(const std::vector<std::string>& paths);
    void clear();

 private:
    struct Worker;
    void count_text(Bytes text, std::uint64_t weight, Worker& worker) const;

    Pattern pattern_;
    std::shared_ptr<const SpecialTokens> special_;
    Kernel kernel_;
    std::vector<std::unique_ptr<Worker>> workers_;  // one for each thread
};

}  // namespace bpe
