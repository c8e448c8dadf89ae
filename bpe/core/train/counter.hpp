// Texts -> counts of pretokens, for training.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/interrupt.hpp"
#include "encode/special.hpp"
#include "kernels/kernels.hpp"
#include "split/splitter.hpp"
#include "train/words.hpp"

namespace bpe {

// Counts the pretokens of texts on several threads, each of which has a table. Special tokens split a text and are not
// counted.
class PretokenCounter {
 public:
    PretokenCounter(std::shared_ptr<const Splitter> splitter, std::shared_ptr<const SpecialTokens> special,
                    const Kernel& kernel = chosen_kernel());
    PretokenCounter(const PretokenCounter&) = delete;
    PretokenCounter& operator=(const PretokenCounter&) = delete;
    ~PretokenCounter();

    // Counts each pretoken of the texts `weight` times. Several threads share long texts, too. The sums do not depend
    // on the number of threads.
    void add(std::span<const Bytes> texts, std::uint64_t weight, std::size_t threads, Interrupt* interrupt = nullptr);

    // Counts pretokens that were split elsewhere.
    void add_pretokens(std::span<const Bytes> pretokens, std::uint64_t weight);

    // Returns how many bytes of `text` can be counted on their own, regardless of what follows: up to the last place
    // where a pretoken certainly ends, or 0.
    std::size_t certain_part(Bytes text) const;

    // Merges the tables of all threads into one and returns it.
    WordCounts& words();

    std::size_t tables() const { return workers_.size(); }
    // Returns the bytes of all words, plus one for each word: the cells that training may need for them.
    std::size_t cells() const;
    // Returns the memory of the tables in bytes, including what they may soon need.
    std::size_t memory() const;

    // Returns the bytes of all texts that belonged to no pretoken.
    std::size_t left_out() const { return left_out_; }

    // Writes table i to paths[i], see runs.hpp, and clears all tables.
    void write_runs(const std::vector<std::string>& paths);
    void clear();

 private:
    struct Worker;
    bool may_cut(Bytes text, std::size_t position) const;
    void count_text(Bytes text, Start start, std::uint64_t weight, Worker& worker, Interrupt* interrupt);
    void count_part(Bytes part, Start start, std::uint64_t weight, Worker& worker, Interrupt* interrupt);
    void count_pretokens(const Pretokens& pretokens, std::uint64_t weight, Worker& worker) const;

    std::shared_ptr<const Splitter> splitter_;
    std::shared_ptr<const SpecialTokens> special_;
    Kernel kernel_;
    std::vector<std::unique_ptr<Worker>> workers_;  // one for each thread
    std::atomic<std::size_t> left_out_ = 0;
};

}  // namespace bpe
