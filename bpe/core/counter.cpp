#include "counter.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>

#include "threads.hpp"
#include "vocab.hpp"

namespace bpe {

PretokenCounts::PretokenCounts() : table_(1 << 12), mask_(table_.size() - 1) {}

void PretokenCounts::add(const std::uint8_t* bytes, std::size_t size, std::uint64_t count) {
    const std::uint64_t hash = hash_bytes(bytes, size);
    std::size_t slot = hash & mask_;
    for (; table_[slot]; slot = (slot + 1) & mask_) {
        Word& word = words_[table_[slot] - 1];
        if (word.hash == hash && word.size == size && std::memcmp(bytes_.data() + word.begin, bytes, size) == 0) {
            word.count += count;
            return;
        }
    }
    if (words_.size() >= 0xFFFFFFFE) throw std::length_error("more than 4 billion distinct pretokens");
    words_.push_back({bytes_.size(), count, hash, size});
    bytes_.insert(bytes_.end(), bytes, bytes + size);
    table_[slot] = static_cast<std::uint32_t>(words_.size());
    if (words_.size() * 2 > table_.size()) grow();
}

void PretokenCounts::add(const PretokenCounts& other) {
    for (std::size_t word = 0; word < other.size(); ++word) {
        const auto bytes = other.bytes_of(word);
        add(bytes.data(), bytes.size(), other.count_of(word));
    }
}

void PretokenCounts::grow() {
    table_.assign(table_.size() * 4, 0);
    mask_ = table_.size() - 1;
    for (std::size_t word = 0; word < words_.size(); ++word) {
        std::size_t slot = words_[word].hash & mask_;
        while (table_[slot]) slot = (slot + 1) & mask_;
        table_[slot] = static_cast<std::uint32_t>(word + 1);
    }
}

void Counter::add_text(std::span<const std::uint8_t> text, std::uint64_t weight, PretokenCounts& counts) const {
    constexpr std::size_t kBatch = 256;
    std::uint64_t ends[kBatch];
    for (std::size_t part = 0; part < text.size();) {
        const SpecialTokens::Match match = special_->find(text, part);
        for (std::size_t begin = part; begin < match.begin;) {
            const std::size_t found = scan(pattern_, text.data(), begin, match.begin, ends, kBatch);
            for (std::size_t i = 0; i < found; ++i) {
                counts.add(text.data() + begin, ends[i] - begin, weight);
                begin = ends[i];
            }
        }
        part = match.end;
    }
}

void Counter::add(std::span<const std::span<const std::uint8_t>> texts, std::uint64_t weight, std::size_t threads) {
    threads = std::clamp<std::size_t>(threads, 1, std::min(kMostThreads, std::max<std::size_t>(1, texts.size())));
    if (tables_.size() < threads) tables_.resize(threads);
    std::atomic<std::size_t> next = 0;
    on_threads(threads, [&](std::size_t thread) {
        for (std::size_t i; (i = next++) < texts.size();) add_text(texts[i], weight, tables_[thread]);
    });
}

void Counter::add_pretokens(std::span<const std::span<const std::uint8_t>> pretokens, std::uint64_t weight) {
    for (const auto pretoken : pretokens) {
        if (!pretoken.empty()) tables_[0].add(pretoken.data(), pretoken.size(), weight);
    }
}

const PretokenCounts& Counter::counts() {
    while (tables_.size() > 1) {
        tables_[0].add(tables_.back());
        tables_.pop_back();
    }
    return tables_[0];
}

}  // namespace bpe
