// Token bytes <-> id, and pair of ids -> merged id. Immutable once built, so any number of threads may read it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/lanes.hpp"
#include "base/memory.hpp"

namespace bpe {

using Id = std::uint32_t;
inline constexpr Id kNoId = 0xFFFFFFFF;

// The largest rank a file may hold: arrays are indexed by rank, and a hostile file must not make them huge.
inline constexpr Id kMaxRank = kIdMask - 1;

// A hash of any bytes, for tables that live in this process only. The key is read eight bytes at a time.
std::uint64_t hash_bytes(const std::uint8_t* bytes, std::size_t size);

// The token that a pair merges into, or kNoId; `line` is line_of it.
inline Id find_pair(const PairTable& pairs, std::uint64_t pair, std::size_t line) {
    for (;; line = (line + 1) & pairs.line_mask) {
        const std::uint64_t* entries = pairs.entries + line * PairTable::kLine;
        for (std::size_t i = 0; i < PairTable::kLine; ++i) {
            if (!entries[i]) return kNoId;
            if (entries[i] >> kIdBits == pair) return entries[i] & kIdMask;
        }
    }
}

class Vocabulary {
 public:
    // Token i has the bytes [offsets[i], offsets[i + 1]) of `bytes` and the id ids[i], which is its rank as well: of
    // two merges, the one that makes the lower id comes first. With `merges_only`, tokens come from merging alone, and
    // bytes without a token are left out before it; else a pretoken that is a token is taken whole. Throws
    // std::invalid_argument where a token is empty, tokens or ids repeat, or, without `merges_only`, a single byte has
    // no token.
    Vocabulary(std::span<const std::uint8_t> bytes, std::span<const std::uint64_t> offsets, std::span<const Id> ids,
               bool merges_only = false);

    // One more than the highest id; ids between may be unused.
    std::size_t id_limit() const { return starts_.size() - 1; }
    std::size_t token_count() const { return token_count_; }
    std::size_t longest_token() const { return longest_token_; }
    std::size_t pair_count() const { return pair_count_; }
    bool knows_all_bytes() const { return knows_all_bytes_; }

    // left, right and merged id of every pair that can merge, one after the other, by merged id.
    std::vector<Id> pairs() const;

    // The bytes of a token; empty for an unused id. id < id_limit().
    std::span<const std::uint8_t> bytes_of(Id id) const {
        return {bytes_.data() + starts_[id], starts_[id + 1] - starts_[id]};
    }

    // The same for decoding: the bytes of a token of up to 15, and their number; 0 for longer and for unused ones.
    struct ShortToken {
        std::uint8_t bytes[15];
        std::uint8_t length;
    };
    std::span<const ShortToken> short_tokens() const { return {short_tokens_.data(), id_limit()}; }

    Id id_of_byte(std::uint8_t byte) const { return byte_ids_[byte]; }  // or kNoId

    // The token that has exactly these bytes, or kNoId. `hash` is hash_bytes of them.
    Id find(const std::uint8_t* bytes, std::size_t size) const { return find(bytes, size, hash_bytes(bytes, size)); }
    Id find(const std::uint8_t* bytes, std::size_t size, std::uint64_t hash) const;
    // The token that a pretoken of these bytes is taken for whole, or kNoId.
    Id find_whole(const std::uint8_t* bytes, std::size_t size, std::uint64_t hash) const {
        const Id id = find(bytes, size, hash);
        return id != kNoId && !unreachable_.empty() && unreachable_[id] ? kNoId : id;
    }
    // What `find` will look at, asked for in two steps: the second one waits for the first.
    void prefetch_find(std::uint64_t hash) const { __builtin_prefetch(tokens_.data() + (hash & token_mask_)); }
    void prefetch_token(std::uint64_t hash) const {
        const std::uint64_t entry = tokens_[hash & token_mask_];
        if ((entry ^ hash) >> 32 == 0 && static_cast<Id>(entry) != kNoId) {
            __builtin_prefetch(short_tokens_.data() + static_cast<Id>(entry));
        }
    }

    // The token that two single bytes merge into, or kNoId.
    Id merged_bytes(std::uint8_t left, std::uint8_t right) const { return byte_pairs_[left << 8 | right]; }

    // The token that two neighbours merge into, or kNoId.
    Id merged(Id left, Id right) const {
        const std::uint64_t pair = pair_key(left, right);
        return find_pair(pair_table(), pair, line_of(pair, pair_table()));
    }
    PairTable pair_table() const { return {pairs_.data(), line_mask_}; }
    // Where merging may begin with whole characters in place of their bytes: the token of a character below U+10000
    // that has several bytes, or kNoId; and whether the edge between two bytes forbids it. See index_characters.
    Id whole_character(std::uint32_t code_point) const { return characters_[code_point]; }
    bool may_be_crossed(std::uint8_t before, std::uint8_t after) const {
        return crossed_[before][after >> 6] >> (after & 63) & 1;
    }

 private:
    void insert_pair(Id left, Id right, Id id);
    void index_tokens();
    void index_pairs();
    void index_characters();
    bool knows_all(std::span<const std::uint8_t> bytes) const;

    std::vector<std::uint8_t> bytes_;
    std::vector<std::uint32_t> starts_;     // by id, and one more
    ZeroedArray<std::uint64_t> tokens_{0};  // open addressing by hash of the bytes: its high half, and the id
    ZeroedArray<ShortToken> short_tokens_{0};
    ZeroedArray<std::uint64_t> pairs_{0};
    ZeroedArray<Id> byte_pairs_{0};  // merged() of two single bytes, without a search: each merge begins there
    ZeroedArray<Id> characters_{0};  // by code point
    std::uint64_t crossed_[256][4] = {};
    std::vector<bool> unreachable_;  // with `merges_only`, by id: what merging does not lead to; else empty
    bool knows_all_bytes_ = true;
    std::size_t token_mask_ = 0;
    std::size_t line_mask_ = 0;
    std::size_t pair_count_ = 0;
    std::size_t token_count_ = 0;
    std::size_t longest_token_ = 0;
    Id byte_ids_[256];
};

}  // namespace bpe
