#include "train/words.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "base/hash.hpp"

namespace bpe {

WordKey WordKey::of(const Batch& batch, std::size_t i) {
    const std::size_t length = batch.length(i);
    if (length <= kLongestShort) {
        const ShortKey key = short_key(batch, i);
        return {hash_of(key), key};
    }
    if (length <= kLongestMedium) {
        const MediumKey key = medium_key(batch, i);
        return {hash_of(key.low, key.high), kLong};
    }
    return {hash_bytes(batch[i].data(), length), kLong};
}

Bytes WordCounts::bytes_of(std::uint32_t number) const {
    const Entry& entry = entries_[number];
    if (entry[7] != 0xFF) return {entry.data(), entry[7]};
    const std::uint8_t* stored = bytes_.data() + (load_word(entry.data()) & ~WordKey::kLong);
    if (*stored) return {stored + 1, *stored};
    std::uint32_t size;
    std::memcpy(&size, stored + 1, sizeof size);
    return {stored + 1 + sizeof size, size};
}

// Returns whether the numbered word is the one looked up.
bool WordCounts::is_word(std::uint32_t number, const WordKey& key, Bytes bytes) const {
    if (key.word != WordKey::kLong) return load_word(entries_[number].data()) == key.word;
    if (entries_[number][7] != 0xFF) return false;
    const Bytes stored = bytes_of(number);
    return stored.size() == bytes.size() && std::memcmp(stored.data(), bytes.data(), bytes.size()) == 0;
}

std::uint32_t WordCounts::number_of(const WordKey& key, Bytes bytes) {
    const std::uint64_t tag = key.hash >> 32;
    std::size_t slot = slot_of(tag);
    for (; slots_[slot]; slot = (slot + 1) & (slots_.size() - 1)) {
        const auto number = static_cast<std::uint32_t>(slots_[slot]);
        if (slots_[slot] >> 32 == tag && is_word(number, key, bytes)) return number;
    }
    const std::uint32_t number = add_word(key, bytes);
    slots_[slot] = tag << 32 | number;
    if (counts_.size() * 2 > slots_.size()) grow();
    return number;
}

// Adds the entry of a new word and returns its number.
std::uint32_t WordCounts::add_word(const WordKey& key, Bytes bytes) {
    if (counts_.size() > 0xFFFFFFFF) throw std::length_error("there are more than 4 billion distinct pretokens");
    const auto number = static_cast<std::uint32_t>(counts_.size());
    Entry entry{};
    if (key.word != WordKey::kLong) {
        std::memcpy(entry.data(), bytes.data(), bytes.size());
        entry[7] = static_cast<std::uint8_t>(bytes.size());
    } else {
        const std::uint64_t place = bytes_.size();
        for (int i = 0; i < 7; ++i) entry[i] = static_cast<std::uint8_t>(place >> 8 * i);
        entry[7] = 0xFF;
        const bool fits = bytes.size() < 256;
        bytes_.push(static_cast<std::uint8_t>(fits ? bytes.size() : 0));
        if (!fits) {
            const auto size = static_cast<std::uint32_t>(bytes.size());
            if (size != bytes.size()) throw std::length_error("a pretoken is longer than 4 GiB");
            bytes_.append(reinterpret_cast<const std::uint8_t*>(&size), sizeof size);
        }
        bytes_.append(bytes.data(), bytes.size());
    }
    entries_.push(entry);
    counts_.push(0);
    return number;
}

void WordCounts::add(const WordCounts& other) {
    constexpr std::uint32_t kAhead = 64;
    WordKey keys[kAhead];
    const auto size = static_cast<std::uint32_t>(other.size());
    for (std::uint32_t first = 0; first < size; first += kAhead) {
        const std::uint32_t count = std::min(kAhead, size - first);
        for (std::uint32_t i = 0; i < count; ++i) {
            keys[i] = WordKey::of(other.bytes_of(first + i + 1));
            prefetch_slot(keys[i]);
        }
        for (std::uint32_t i = 0; i < count; ++i) prefetch_word(keys[i]);
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::uint32_t number = number_of(keys[i], other.bytes_of(first + i + 1));
            counts_[number] += other.count_of(first + i + 1);
        }
    }
}

void WordCounts::grow() {
    if (shift_ == 0) return;
    ZeroedArray<std::uint64_t> larger(slots_.size() * 2, Pages::kFitting);
    --shift_;
    for (std::size_t from = 0; from < slots_.size(); ++from) {
        if (!slots_[from]) continue;
        std::size_t slot = slot_of(slots_[from] >> 32);
        while (larger[slot]) slot = (slot + 1) & (larger.size() - 1);
        larger[slot] = slots_[from];
    }
    slots_ = std::move(larger);
}

void WordCounts::clear_entries() {
    entries_ = {};
    counts_ = {};
    bytes_ = {};
    entries_.push({});
    counts_.push(0);
}

void WordCounts::clear() {
    slots_ = ZeroedArray<std::uint64_t>(kFirstSlots, Pages::kFitting);
    shift_ = 32 - kFirstBits;
    clear_entries();
}

std::size_t WordCounts::memory() const {
    const std::size_t slots = slots_.size() * (counts_.size() * 9 / 4 > slots_.size() ? 3 : 1);
    return slots * sizeof(std::uint64_t) + entries_.memory() + counts_.memory() + bytes_.memory();
}

}  // namespace bpe
