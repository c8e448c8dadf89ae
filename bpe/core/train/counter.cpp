#include "train/counter.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "base/hash.hpp"
#include "base/memory.hpp"
#include "base/threads.hpp"
#include "encode/parallel.hpp"
#include "kernels/front.hpp"
#include "split/cuts.hpp"
#include "train/runs.hpp"

namespace bpe {

// The table of one thread, and its buffers. The front tables (see front.hpp) map words to their numbers.
struct PretokenCounter::Worker {
    WordCounts words;
    ZeroedArray<ShortFront> shorts{std::size_t{1} << kShortFrontBits, Pages::kFitting};
    ZeroedArray<MediumFront> mediums{std::size_t{1} << kMediumFrontBits, Pages::kFitting};
    SplitRoom split;
    std::uint32_t edges[kBatch + 1 + 8];
    std::uint64_t numbers[kBatch + 8];  // 0 for words that are not in the front tables
    Missing missing;

    void count(const Batch& batch, std::uint64_t weight, const Kernel& kernel);
    template <class Remember>
    void count_missing(const Batch& batch, std::span<const std::uint32_t> missing, std::uint64_t weight,
                       const Remember& remember);
    void forget() {
        words.clear();
        std::fill_n(shorts.data(), shorts.size(), ShortFront{});
        std::fill_n(mediums.data(), mediums.size(), MediumFront{});
    }
};

PretokenCounter::PretokenCounter(std::shared_ptr<const Splitter> splitter, std::shared_ptr<const SpecialTokens> special,
                                 const Kernel& kernel)
    : splitter_(std::move(splitter)), special_(std::move(special)), kernel_(kernel) {
    workers_.push_back(std::make_unique<Worker>());
}

PretokenCounter::~PretokenCounter() = default;

void PretokenCounter::Worker::count(const Batch& batch, std::uint64_t weight, const Kernel& kernel) {
    kernel.probe(batch, {shorts.data(), mediums.data()}, numbers, missing);
    std::uint64_t* counts = words.counts();
    for (std::size_t i = 0; i < batch.size; ++i) counts[numbers[i]] += weight;  // number 0 is no word
    count_missing(batch, {missing.shorts, missing.short_count}, weight,
                  [&](std::uint32_t, const WordKey& key, std::uint32_t number) {
                      shorts[key.hash >> (64 - kShortFrontBits)] = {key.word, number};
                  });
    count_missing(batch, {missing.mediums, missing.medium_count}, weight,
                  [&](std::uint32_t i, const WordKey& key, std::uint32_t number) {
                      const MediumKey medium = medium_key(batch, i);
                      mediums[key.hash >> (64 - kMediumFrontBits)] = {medium.low, medium.high, number, 0};
                  });
    count_missing(batch, {missing.longs, missing.long_count}, weight, [](auto&&...) {});
}

// Counts the words of a batch that are not in the front tables, and calls remember(i, key, number) for each. Memory is
// prefetched well before it is read, so that the waits for it overlap.
template <class Remember>
void PretokenCounter::Worker::count_missing(const Batch& batch, std::span<const std::uint32_t> missed,
                                            std::uint64_t weight, const Remember& remember) {
    constexpr std::size_t kAhead = 64;
    WordKey keys[kAhead];
    for (; !missed.empty(); missed = missed.subspan(std::min(kAhead, missed.size()))) {
        const std::size_t count = std::min(kAhead, missed.size());
        for (std::size_t k = 0; k < count; ++k) {
            keys[k] = WordKey::of(batch, missed[k]);
            words.prefetch_slot(keys[k]);
        }
        for (std::size_t k = 0; k < count; ++k) words.prefetch_word(keys[k]);
        for (std::size_t k = 0; k < count; ++k) {
            const std::uint32_t number = words.number_of(keys[k], batch[missed[k]]);
            words.counts()[number] += weight;
            remember(missed[k], keys[k], number);
        }
    }
}

// Whether a text may be cut at a place that the splitter gives.
bool PretokenCounter::may_cut(Bytes text, std::size_t position) const {
    if (special_->empty()) return true;
    return splitter_->depends_on_start() ? !special_->touch(text, position) : !special_->cross(text, position);
}

void PretokenCounter::count_text(Bytes text, Start start, std::uint64_t weight, Worker& worker, Interrupt* interrupt) {
    for (std::size_t part = 0; part < text.size();) {
        const SpecialTokens::Match match = special_->find(text, part);
        count_part(text.subspan(part, match.begin - part), part ? Start::kPart : start, weight, worker, interrupt);
        part = match.end;
    }
}

void PretokenCounter::count_part(Bytes part, Start start, std::uint64_t weight, Worker& worker, Interrupt* interrupt) {
    std::size_t left_out = 0;
    for (std::size_t position = 0; position < part.size();) {
        const Pretokens pretokens = splitter_->next(part, position, start, worker.split);
        count_pretokens(pretokens, weight, worker);
        position = pretokens.next;
        left_out += pretokens.left_out;
        if (interrupt) interrupt->poll();
    }
    if (left_out) left_out_ += left_out;
}

// Counts in batches whose edges are below 2^31.
void PretokenCounter::count_pretokens(const Pretokens& pretokens, std::uint64_t weight, Worker& worker) const {
    constexpr std::uint64_t kLongestBatch = std::uint64_t{1} << 31;
    const auto [text, ends, next, left_out] = pretokens;
    std::uint64_t begin = 0;
    for (std::size_t first = 0; first < ends.size();) {
        std::size_t count = ends.size() - first;
        while (count && ends[first + count - 1] - begin >= kLongestBatch) --count;
        if (count) {
            worker.edges[0] = 0;
            for (std::size_t i = 0; i < count; ++i) {
                worker.edges[i + 1] = static_cast<std::uint32_t>(ends[first + i] - begin);
            }
            worker.count({text.data() + begin, text.size() - begin, worker.edges, count}, weight, kernel_);
        } else {  // a single pretoken is as long as that
            worker.words.add(text.subspan(begin, ends[first] - begin), weight);
            count = 1;
        }
        first += count;
        begin = ends[first - 1];
    }
}

void PretokenCounter::add(std::span<const Bytes> texts, std::uint64_t weight, std::size_t threads,
                          Interrupt* interrupt) {
    const auto next_cut = [&](Bytes text, std::size_t position) {
        for (;; ++position) {
            position = splitter_->next_cut(text, position);
            if (position == text.size() || may_cut(text, position)) return position;
        }
    };
    Plan plan(texts, next_cut, threads);
    const std::span<Block> blocks = plan.blocks();
    threads = std::clamp<std::size_t>(threads, 1, std::min(kMostThreads, std::max<std::size_t>(1, blocks.size())));
    while (workers_.size() < threads) workers_.push_back(std::make_unique<Worker>());
    std::atomic<std::size_t> next = 0;
    const auto work = [&](std::size_t thread) {
        for (std::size_t i; (i = next++) < blocks.size();) {
            for (const Piece& piece : blocks[i].pieces) {
                const Start start = piece.first ? Start::kText : Start::kInside;
                count_text(piece.bytes, start, weight, *workers_[thread], interrupt);
            }
        }
    };
    on_threads(threads, work, interrupt);
}

void PretokenCounter::add_pretokens(std::span<const Bytes> pretokens, std::uint64_t weight) {
    for (const Bytes pretoken : pretokens) {
        if (!pretoken.empty()) workers_[0]->words.add(pretoken, weight);
    }
}

// A part of a document is counted like a document, so nothing is certain if that changes pretokens. Searches the text
// from further and further back: each time twice as far from its end.
std::size_t PretokenCounter::certain_part(Bytes text) const {
    if (splitter_->depends_on_start()) return 0;
    std::size_t whole = text.size() - unfinished_character(text);
    if (!special_->empty()) {  // a special token may have begun
        whole = std::min(whole, special_->unfinished(text, text.size() - std::min(text.size(), special_->longest())));
    }
    for (std::size_t back = 256;; back *= 2) {
        const std::size_t from = whole - std::min(whole, back);
        std::size_t last = 0;
        for (std::size_t at = from; (at = splitter_->next_cut(text.first(whole), at)) < whole; ++at) {
            if (may_cut(text, at)) last = at;
        }
        if (last || !from) return last;
    }
}

WordCounts& PretokenCounter::words() {
    while (workers_.size() > 1) {
        workers_[0]->words.add(workers_.back()->words);
        workers_.pop_back();
    }
    return workers_[0]->words;
}

std::size_t PretokenCounter::cells() const {
    std::size_t cells = 0;
    for (const auto& worker : workers_) {
        for (std::uint32_t i = 1; i <= worker->words.size(); ++i) cells += worker->words.bytes_of(i).size() + 1;
    }
    return cells;
}

std::size_t PretokenCounter::memory() const {
    std::size_t bytes = 0;
    for (const auto& worker : workers_) bytes += worker->words.memory();
    return bytes;
}

void PretokenCounter::write_runs(const std::vector<std::string>& paths) {
    if (paths.size() != workers_.size()) throw std::invalid_argument("write_runs needs a path for each table");
    std::atomic<std::size_t> next = 0;
    on_threads(workers_.size(), [&](std::size_t) {
        for (std::size_t i; (i = next++) < workers_.size();) write_run(workers_[i]->words, paths[i]);
    });
    clear();
}

void PretokenCounter::clear() {
    workers_.resize(1);
    workers_[0]->forget();
}

}  // namespace bpe
