#include "encode/vocab.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace bpe {

namespace {

// Returns the bytes as Python writes them: b'...'.
std::string quoted(Bytes bytes) {
    std::string text = "b'";
    for (const std::uint8_t byte : bytes.first(std::min<std::size_t>(bytes.size(), 40))) {
        if (byte >= 0x20 && byte < 0x7F) {
            text += static_cast<char>(byte);
        } else {
            constexpr char kDigits[] = "0123456789abcdef";
            text += "\\x";
            text += kDigits[byte >> 4];
            text += kDigits[byte & 15];
        }
    }
    return text + "'";
}

// Throws std::invalid_argument if the offsets or the ranks cannot be used.
void check_tokens(Bytes bytes, std::span<const std::uint64_t> offsets, std::span<const Id> ids) {
    if (offsets.size() != ids.size() + 1 || offsets.front() != 0 || offsets.back() != bytes.size()) {
        throw std::invalid_argument("the token offsets do not match the tokens");
    }
    if (bytes.size() > 0xFFFFFFFF) throw std::invalid_argument("the tokens take more than 4 GiB");
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (offsets[i] >= offsets[i + 1]) {
            throw std::invalid_argument("the token of rank " + std::to_string(ids[i]) + " is empty");
        }
        if (ids[i] > kMaxRank) {
            throw std::invalid_argument("rank " + std::to_string(ids[i]) + " is above the limit of " +
                                        std::to_string(kMaxRank));
        }
    }
}

// Compares 1 to 15 bytes, by words that overlap.
bool are_equal(const std::uint8_t* a, const std::uint8_t* b, std::size_t size) {
    const auto equal = [&](std::size_t at, auto x, auto y) {
        std::memcpy(&x, a + at, sizeof x);
        std::memcpy(&y, b + at, sizeof y);
        return x == y;
    };
    if (size >= 8)
        return equal(0, std::uint64_t{}, std::uint64_t{}) & equal(size - 8, std::uint64_t{}, std::uint64_t{});
    if (size >= 4)
        return equal(0, std::uint32_t{}, std::uint32_t{}) & equal(size - 4, std::uint32_t{}, std::uint32_t{});
    return (a[0] == b[0]) & (a[size / 2] == b[size / 2]) & (a[size - 1] == b[size - 1]);
}

}  // namespace

Vocabulary::Vocabulary(Bytes bytes, std::span<const std::uint64_t> offsets, std::span<const Id> ids, bool merges_only,
                       std::shared_ptr<const Pieces> pieces)
    : pieces_(std::move(pieces)), token_count_(ids.size()) {
    check_tokens(bytes, offsets, ids);
    lay_out(bytes, offsets, ids);
    index_tokens();
    index_bytes(merges_only);
    if (merges_only) unreachable_.resize(id_limit());
    byte_pairs_ = ZeroedArray<std::uint32_t>(1 << 16, kNoId, table_pages());
    characters_ = ZeroedArray<Id>(1 << 16, kNoId, table_pages());
}

// Copies the tokens, sorted by id.
void Vocabulary::lay_out(Bytes bytes, std::span<const std::uint64_t> offsets, std::span<const Id> ids) {
    const Id highest = ids.empty() ? 0 : *std::max_element(ids.begin(), ids.end());
    starts_.assign(std::size_t{highest} + 2, 0);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (starts_[ids[i] + 1]) throw std::invalid_argument("rank " + std::to_string(ids[i]) + " appears twice");
        starts_[ids[i] + 1] = static_cast<std::uint32_t>(offsets[i + 1] - offsets[i]);
        longest_token_ = std::max(longest_token_, std::size_t{starts_[ids[i] + 1]});
    }
    for (std::size_t id = 0; id <= highest; ++id) starts_[id + 1] += starts_[id];
    bytes_.resize(bytes.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
        std::memcpy(bytes_.data() + starts_[ids[i]], bytes.data() + offsets[i], offsets[i + 1] - offsets[i]);
    }
    short_tokens_ = ZeroedArray<ShortToken>(id_limit(), table_pages());
    for (Id id = 0; id < id_limit(); ++id) {
        const Bytes token = bytes_of(id);
        if (token.size() > sizeof(ShortToken::bytes)) continue;
        std::copy(token.begin(), token.end(), short_tokens_[id].bytes);
        short_tokens_[id].length = static_cast<std::uint8_t>(token.size());
    }
}

void Vocabulary::index_tokens() {
    tokens_ = ZeroedArray<std::uint64_t>(std::bit_ceil(token_count_ * 2 + 1), kNoId, table_pages());
    token_mask_ = tokens_.size() - 1;
    for (Id id = 0; id < id_limit(); ++id) {
        const Bytes token = bytes_of(id);
        if (token.empty()) continue;
        const std::uint64_t hash = hash_bytes(token.data(), token.size());
        const Id other = find(token.data(), token.size(), hash);
        if (other != kNoId && pieces_) continue;  // the piece of a byte and that of an ASCII character
        if (other != kNoId) {
            throw std::invalid_argument("the token " + quoted(token) + " appears twice, with ranks " +
                                        std::to_string(other) + " and " + std::to_string(id));
        }
        std::size_t slot = hash & token_mask_;
        while (static_cast<Id>(tokens_[slot]) != kNoId) slot = (slot + 1) & token_mask_;
        tokens_[slot] = (hash & 0xFFFFFFFF00000000) | id;
    }
}

void Vocabulary::index_bytes(bool merges_only) {
    for (int byte = 0; byte < 256; ++byte) {
        const auto value = static_cast<std::uint8_t>(byte);
        byte_ids_[byte] = find(&value, 1);
        if (byte_ids_[byte] != kNoId) continue;
        knows_all_bytes_ = false;
        if (merges_only) continue;
        throw std::invalid_argument("no token for the single byte " + quoted({&value, 1}) +
                                    "; a byte-level vocabulary must hold all 256");
    }
}

Id Vocabulary::find(const std::uint8_t* bytes, std::size_t size, std::uint64_t hash) const {
    for (std::size_t slot = hash & token_mask_;; slot = (slot + 1) & token_mask_) {
        const auto id = static_cast<Id>(tokens_[slot]);
        if (id == kNoId) return kNoId;
        if ((tokens_[slot] ^ hash) >> 32) continue;
        if (size <= sizeof(ShortToken::bytes)) {
            const ShortToken& token = short_tokens_[id];
            if (token.length == size && are_equal(token.bytes, bytes, size)) return id;
        } else {
            const Bytes token = bytes_of(id);
            if (token.size() == size && std::memcmp(token.data(), bytes, size) == 0) return id;
        }
    }
}

void Vocabulary::insert_pair(Id left, Id right, std::uint32_t rank) {
    const std::uint64_t key = pair_key(left, right);
    std::size_t slot = slot_of(key, pair_table());
    while (pairs_[slot]) slot = (slot + 1) & (pairs_.size() - 1);
    pairs_[slot] = key << kIdBits | rank;
    ++pair_count_;
}

// Turns the table of pairs, to which no more are added, into a perfect hash table. The buckets with the most pairs
// choose their pilots first, while most slots are free: each takes the first pilot that gives its pairs free slots.
void Vocabulary::finish_pairs() {
    constexpr std::size_t kPairsInBucket = 4;
    constexpr std::size_t kMostPilots = std::size_t{1} << 16;
    const auto bucket_bits = static_cast<unsigned>(std::bit_width(pair_count_ / kPairsInBucket | 1));
    const unsigned shift = 64 - bucket_bits;
    std::vector<std::uint32_t> first(((std::size_t{1} << bucket_bits) + 1));  // by bucket: its first pair
    for (const std::uint64_t entry : std::span(pairs_.data(), pairs_.size())) {
        if (entry) ++first[(hash_of(entry >> kIdBits) >> shift) + 1];
    }
    const std::uint32_t most = *std::max_element(first.begin(), first.end());
    std::vector<std::vector<std::uint32_t>> buckets_of_size(most + 1);
    for (std::uint32_t bucket = 0; bucket + 1 < first.size(); ++bucket) {
        buckets_of_size[first[bucket + 1]].push_back(bucket);
        first[bucket + 1] += first[bucket];
    }
    std::vector<std::uint64_t> sorted(pair_count_);
    std::vector<std::uint32_t> next(first.begin(), first.end() - 1);
    for (const std::uint64_t entry : std::span(pairs_.data(), pairs_.size())) {
        if (entry) sorted[next[hash_of(entry >> kIdBits) >> shift]++] = entry;
    }

    ZeroedArray<std::uint64_t> table(pair_count_ + pair_count_ / 4 + 1, table_pages());
    std::vector<std::uint16_t> pilots(first.size() - 1);
    std::vector<std::size_t> slots(most);
    for (std::size_t size = most; size > 0; --size) {
        for (const std::uint32_t bucket : buckets_of_size[size]) {
            const std::span entries(sorted.data() + first[bucket], size);
            const auto fits = [&](std::uint64_t pilot) {
                for (std::size_t i = 0; i < size; ++i) {
                    slots[i] = slot_with_pilot(hash_of(entries[i] >> kIdBits), pilot, table.size());
                    if (table[slots[i]] || std::find(slots.data(), slots.data() + i, slots[i]) != slots.data() + i)
                        return false;
                }
                return true;
            };
            std::size_t pilot = 0;
            while (pilot < kMostPilots && !fits(pilot)) ++pilot;
            if (pilot == kMostPilots) return;  // all but impossible; the table can be used as it is
            pilots[bucket] = static_cast<std::uint16_t>(pilot);
            for (std::size_t i = 0; i < size; ++i) table[slots[i]] = entries[i];
        }
    }
    pairs_ = std::move(table);
    pilots_ = std::move(pilots);
    bucket_shift_ = shift;
}

std::vector<Id> Vocabulary::pairs() const {
    std::vector<std::uint64_t> by_rank(std::max(id_limit(), pair_count_));  // each pair has a rank of its own
    for (const std::uint64_t entry : std::span(pairs_.data(), pairs_.size())) {
        if (entry) by_rank[merging_pair(entry).rank] = entry;
    }
    std::vector<Id> pairs;
    pairs.reserve(3 * pair_count_);
    for (const std::uint64_t entry : by_rank) {
        if (!entry) continue;
        const MergingPair pair = merging_pair(entry);
        pairs.insert(pairs.end(), {pair.left, pair.right, token_of_rank(pair_table(), pair.rank)});
    }
    return pairs;
}

}  // namespace bpe
