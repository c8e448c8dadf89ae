// The tokens of a vocabulary: token bytes <-> id, and pair of ids -> rank of its merge. A vocabulary is immutable, so
// any number of threads may read it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/hash.hpp"
#include "base/memory.hpp"
#include "base/types.hpp"
#include "encode/pieces.hpp"
#include "kernels/pairs.hpp"

namespace bpe {

// The largest rank a file may hold. Arrays are indexed by rank, so the limit keeps a hostile file from making them
// huge.
inline constexpr Id kMaxRank = kIdMask - 1;

// See build_vocabulary in vocab_builder.hpp, which makes all vocabularies.
class Vocabulary {
 public:
    // One more than the highest id. Some of the ids below it may be unused.
    std::size_t id_limit() const { return starts_.size() - 1; }
    std::size_t token_count() const { return token_count_; }
    // The rules that merge characters, or null where bytes are merged.
    const Pieces* pieces() const { return pieces_.get(); }
    std::size_t longest_token() const { return longest_token_; }
    std::size_t pair_count() const { return pair_count_; }
    bool knows_all_bytes() const { return knows_all_bytes_; }

    // The number of tokens of more than one byte that no merges lead to.
    std::size_t unreachable_count() const { return unreachable_count_; }

    // Returns left, right and merged id of every pair that can merge, one after the other, in the order of the merges.
    std::vector<Id> pairs() const;

    // Returns the bytes of a token, or nothing for an unused id. `id` is below id_limit().
    Bytes bytes_of(Id id) const { return {bytes_.data() + starts_[id], starts_[id + 1] - starts_[id]}; }

    // A token of up to 15 bytes, by id. The length is 0 for longer tokens and for unused ids.
    struct ShortToken {
        std::uint8_t bytes[15];
        std::uint8_t length;
    };
    std::span<const ShortToken> short_tokens() const { return {short_tokens_.data(), id_limit()}; }

    // Returns the token of a single byte, or kNoId.
    Id id_of_byte(std::uint8_t byte) const { return byte_ids_[byte]; }

    // Returns the token with exactly these bytes, or kNoId. `hash` is their hash_bytes.
    Id find(const std::uint8_t* bytes, std::size_t size) const { return find(bytes, size, hash_bytes(bytes, size)); }
    Id find(const std::uint8_t* bytes, std::size_t size, std::uint64_t hash) const;
    // Returns the token that a pretoken of these bytes becomes without any merge, or kNoId.
    Id find_whole(const std::uint8_t* bytes, std::size_t size, std::uint64_t hash) const {
        const Id id = find(bytes, size, hash);
        return id != kNoId && !unreachable_.empty() && unreachable_[id] ? kNoId : id;
    }
    // Prefetch the memory that `find` reads, in two steps: prefetch_token reads the memory that prefetch_find
    // prefetches.
    void prefetch_find(std::uint64_t hash) const { __builtin_prefetch(tokens_.data() + (hash & token_mask_)); }
    void prefetch_token(std::uint64_t hash) const {
        const std::uint64_t entry = tokens_[hash & token_mask_];
        if ((entry ^ hash) >> 32 == 0 && static_cast<Id>(entry) != kNoId) {
            __builtin_prefetch(short_tokens_.data() + static_cast<Id>(entry));
        }
    }

    // Returns the rank of the merge of two single bytes, or kNoId.
    std::uint32_t rank_of_bytes(std::uint8_t left, std::uint8_t right) const { return byte_pairs_[left << 8 | right]; }

    // Returns the rank of the merge of two neighbours, or kNoId.
    std::uint32_t rank_of(Id left, Id right) const {
        const std::uint64_t pair = pair_key(left, right);
        const std::uint32_t rank = find_pair(pair_table(), pair, slot_of(pair, pair_table()));
        return rank == kIdMask ? kNoId : rank;
    }
    PairTable pair_table() const {
        return {pairs_.data(), pairs_.size(), pilots_.empty() ? nullptr : pilots_.data(), bucket_shift_,
                merged_ids_.empty() ? nullptr : merged_ids_.data()};
    }

    // Merging may begin with the token of a whole character instead of its bytes (see VocabularyBuilder). Returns that
    // token for a code point below U+10000 that takes several bytes, or kNoId.
    Id whole_character(std::uint32_t code_point) const { return characters_[code_point]; }
    // Whether an earlier merge may cross the edge between two bytes. Merging must not begin with the token of a
    // character that has such an edge.
    bool may_be_crossed(std::uint8_t before, std::uint8_t after) const {
        return crossed_[before][after >> 6] >> (after & 63) & 1;
    }

 private:
    friend class VocabularyBuilder;
    friend std::shared_ptr<const Vocabulary> build_piece_vocabulary(Bytes, std::span<const std::uint64_t>,
                                                                    std::span<const Id>, std::shared_ptr<const Pieces>);

    // Makes a vocabulary in which no pair merges yet.
    Vocabulary(Bytes bytes, std::span<const std::uint64_t> offsets, std::span<const Id> ids, bool merges_only,
               std::shared_ptr<const Pieces> pieces = nullptr);
    // A vocabulary of the 256 bytes, with which training begins, would clear large pages for nothing.
    Pages table_pages() const { return token_count_ < 1024 ? Pages::kFitting : Pages::kLarge; }
    void lay_out(Bytes bytes, std::span<const std::uint64_t> offsets, std::span<const Id> ids);
    void index_tokens();
    void index_bytes(bool merges_only);
    void insert_pair(Id left, Id right, std::uint32_t rank);
    void finish_pairs();

    std::shared_ptr<const Pieces> pieces_;
    std::vector<std::uint8_t> bytes_;
    std::vector<std::uint32_t> starts_;     // by id, and one more
    ZeroedArray<std::uint64_t> tokens_{0};  // open addressing by hash of the bytes: its high half, then the id
    ZeroedArray<ShortToken> short_tokens_{0};
    ZeroedArray<std::uint64_t> pairs_{0};  // see PairTable
    std::vector<std::uint16_t> pilots_;
    unsigned bucket_shift_ = 0;
    std::vector<Id> merged_ids_;  // by rank: the token that a merge makes. Empty if that is the token of this id.
    ZeroedArray<std::uint32_t> byte_pairs_{0};  // `rank_of` two single bytes, for the first step of merging
    ZeroedArray<Id> characters_{0};             // by code point
    std::uint64_t crossed_[256][4] = {};
    std::vector<bool> unreachable_;  // by id: tokens that no merges lead to. Empty if pretokens may be taken whole.
    bool knows_all_bytes_ = true;
    std::size_t token_mask_ = 0;
    std::size_t pair_count_ = 0;
    std::size_t unreachable_count_ = 0;
    std::size_t token_count_ = 0;
    std::size_t longest_token_ = 0;
    Id byte_ids_[256];
};

}  // namespace bpe
