#include "encode/vocab.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <stdexcept>

#include "encode/merge.hpp"
#include "text/unicode.hpp"

namespace bpe {

std::uint64_t hash_bytes(const std::uint8_t* bytes, std::size_t size) {
    const auto word = [](const std::uint8_t* at, auto zero) {
        std::memcpy(&zero, at, sizeof zero);
        return std::uint64_t{zero};
    };
    std::uint64_t hash = size * 0x9E3779B97F4A7C15ull;
    if (size >= 8) {  // the last word may hold bytes of the one before, whose number follows from the size
        for (std::size_t at = 0; at + 8 < size; at += 8) hash = mix(hash ^ word(bytes + at, std::uint64_t{}));
        return mix(mix(hash ^ word(bytes + size - 8, std::uint64_t{})));
    }
    if (size >= 4)
        return mix(mix(hash ^ (word(bytes, std::uint32_t{}) | word(bytes + size - 4, std::uint32_t{}) << 32)));
    if (size)
        hash ^= std::uint64_t{bytes[0]} | std::uint64_t{bytes[size / 2]} << 8 | std::uint64_t{bytes[size - 1]} << 16;
    return mix(mix(hash));
}

namespace {

std::string quoted(std::span<const std::uint8_t> bytes) {
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

}  // namespace

Vocabulary::Vocabulary(std::span<const std::uint8_t> bytes, std::span<const std::uint64_t> offsets,
                       std::span<const Id> ids, bool merges_only)
    : token_count_(ids.size()) {
    if (offsets.size() != ids.size() + 1 || offsets.front() != 0 || offsets.back() != bytes.size()) {
        throw std::invalid_argument("the token offsets do not fit the tokens");
    }
    if (bytes.size() > 0xFFFFFFFF) throw std::invalid_argument("the tokens hold more than 4 GiB");
    Id highest = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (offsets[i] >= offsets[i + 1])
            throw std::invalid_argument("an empty token has rank " + std::to_string(ids[i]));
        if (ids[i] > kMaxRank) {
            throw std::invalid_argument("rank " + std::to_string(ids[i]) + " is above the limit of " +
                                        std::to_string(kMaxRank));
        }
        highest = std::max(highest, ids[i]);
    }

    // Lay the tokens out by id.
    starts_.assign(std::size_t{highest} + 2, 0);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (starts_[ids[i] + 1]) throw std::invalid_argument("rank " + std::to_string(ids[i]) + " stands twice");
        starts_[ids[i] + 1] = static_cast<std::uint32_t>(offsets[i + 1] - offsets[i]);
        longest_token_ = std::max(longest_token_, std::size_t{starts_[ids[i] + 1]});
    }
    for (std::size_t id = 0; id <= highest; ++id) starts_[id + 1] += starts_[id];
    bytes_.resize(bytes.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
        std::memcpy(bytes_.data() + starts_[ids[i]], bytes.data() + offsets[i], offsets[i + 1] - offsets[i]);
    }
    short_tokens_ = ZeroedArray<ShortToken>(id_limit());
    for (Id id = 0; id < id_limit(); ++id) {
        const auto token = bytes_of(id);
        if (token.size() > sizeof(ShortToken::bytes)) continue;
        std::copy(token.begin(), token.end(), short_tokens_[id].bytes);
        short_tokens_[id].length = static_cast<std::uint8_t>(token.size());
    }
    index_tokens();
    for (int byte = 0; byte < 256; ++byte) {
        if (byte_ids_[byte] != kNoId) continue;
        knows_all_bytes_ = false;
        if (merges_only) continue;
        const auto value = static_cast<std::uint8_t>(byte);
        throw std::invalid_argument("no token for the single byte " + quoted({&value, 1}) +
                                    "; a byte-level vocabulary holds all 256");
    }
    if (merges_only) unreachable_.resize(id_limit());
    index_pairs();
    index_characters();
}

bool Vocabulary::knows_all(std::span<const std::uint8_t> bytes) const {
    return std::none_of(bytes.begin(), bytes.end(), [this](std::uint8_t byte) { return byte_ids_[byte] == kNoId; });
}

void Vocabulary::index_tokens() {
    tokens_ = ZeroedArray<std::uint64_t>(std::bit_ceil(token_count_ * 2 + 1), kNoId);
    token_mask_ = tokens_.size() - 1;
    for (Id id = 0; id < id_limit(); ++id) {
        const auto token = bytes_of(id);
        if (token.empty()) continue;
        const std::uint64_t hash = hash_bytes(token.data(), token.size());
        if (const Id other = find(token.data(), token.size(), hash); other != kNoId) {
            throw std::invalid_argument("the token " + quoted(token) + " stands twice, with ranks " +
                                        std::to_string(other) + " and " + std::to_string(id));
        }
        std::size_t slot = hash & token_mask_;
        while (static_cast<Id>(tokens_[slot]) != kNoId) slot = (slot + 1) & token_mask_;
        tokens_[slot] = (hash & 0xFFFFFFFF00000000) | id;
    }
    for (int byte = 0; byte < 256; ++byte) {
        const auto value = static_cast<std::uint8_t>(byte);
        byte_ids_[byte] = find(&value, 1);
    }
}

namespace {

// For `size` of 1 to 15 bytes, by words that overlap.
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

Id Vocabulary::find(const std::uint8_t* bytes, std::size_t size, std::uint64_t hash) const {
    for (std::size_t slot = hash & token_mask_;; slot = (slot + 1) & token_mask_) {
        const auto id = static_cast<Id>(tokens_[slot]);
        if (id == kNoId) return kNoId;
        if ((tokens_[slot] ^ hash) >> 32) continue;
        if (size <= sizeof(ShortToken::bytes)) {
            const ShortToken& token = short_tokens_[id];
            if (token.length == size && are_equal(token.bytes, bytes, size)) return id;
        } else {
            const auto token = bytes_of(id);
            if (token.size() == size && std::memcmp(token.data(), bytes, size) == 0) return id;
        }
    }
}

// The reference merges two neighbours whenever their joined bytes are a token, whatever the ranks of the two. Still,
// each token has at most one pair that can ever merge into it: the last merge when the token is encoded by itself.
//
// For let two neighbours, whose joined bytes are a token t, stand in some text. No merge has crossed the edges of
// their span, so the merges within it are those of t encoded by itself, in the same order: among the pairs inside the
// span the lowest rank, and among equals the leftmost, comes first in either place. So the state of two parts is the
// same one. A merge inside t makes a token shorter than t; so, taken by length, each token finds all the pairs that
// it needs. (280,147 pairs of Llama 3's tokens join to a token; 127,156 can happen, and they stand in this table.)
void Vocabulary::index_pairs() {
    constexpr std::size_t kTogether = 256;
    std::vector<Id> by_length;
    by_length.reserve(token_count_);
    for (Id id = 0; id < id_limit(); ++id) {
        if (bytes_of(id).size() < 2) continue;
        if (!unreachable_.empty()) unreachable_[id] = true;
        if (knows_all_bytes_ || knows_all(bytes_of(id))) by_length.push_back(id);
    }
    std::stable_sort(by_length.begin(), by_length.end(),
                     [this](Id a, Id b) { return bytes_of(a).size() < bytes_of(b).size(); });
    const std::size_t lines = std::bit_ceil(by_length.size() / 4 + 1);  // two to four pairs in each
    pairs_ = ZeroedArray<std::uint64_t>(lines * PairTable::kLine);
    line_mask_ = lines - 1;
    byte_pairs_ = ZeroedArray<Id>(1 << 16, kNoId);
    characters_ = ZeroedArray<Id>(1 << 16, kNoId);
    Merger merger(*this);
    // Those of one length do not need each other's pairs, and are merged together.
    std::vector<MergeJob> jobs;
    std::vector<Id> parts;
    for (std::size_t first = 0; first < by_length.size();) {
        const std::size_t length = bytes_of(by_length[first]).size();
        std::size_t last = first;
        while (last < by_length.size() && last - first < kTogether && bytes_of(by_length[last]).size() == length)
            ++last;
        parts.resize(std::max(parts.size(), (last - first) * length));
        jobs.clear();
        for (std::size_t i = first; i < last; ++i) {
            jobs.push_back({bytes_of(by_length[i]).data(), length, parts.data() + (i - first) * length, 0});
        }
        merger.merge(jobs);
        for (std::size_t j = 0; j < jobs.size(); ++j) {
            if (jobs[j].count != 2) continue;  // reached only as a whole pretoken
            insert_pair(jobs[j].ids[0], jobs[j].ids[1], by_length[first + j]);
            if (!unreachable_.empty()) unreachable_[by_length[first + j]] = false;
            if (length == 2) byte_pairs_[jobs[j].bytes[0] << 8 | jobs[j].bytes[1]] = by_length[first + j];
        }
        first = last;
    }
}

void Vocabulary::insert_pair(Id left, Id right, Id id) {
    const std::uint64_t key = pair_key(left, right);
    for (std::size_t line = line_of(key, pair_table());; line = (line + 1) & line_mask_) {
        std::uint64_t* entries = pairs_.data() + line * PairTable::kLine;
        for (std::size_t i = 0; i < PairTable::kLine; ++i) {
            if (entries[i]) continue;
            entries[i] = key << kIdBits | id;
            ++pair_count_;
            return;
        }
    }
}

namespace {

std::uint32_t code_point_of(std::span<const std::uint8_t> character) {  // of two or three bytes
    if (character.size() == 2) return (character[0] & 0x1F) << 6 | (character[1] & 0x3F);
    return (character[0] & 0x0F) << 12 | (character[1] & 0x3F) << 6 | (character[2] & 0x3F);
}

}  // namespace

// A character's bytes merge into one token before anything else happens to them, if they do so when encoded alone and
// nothing can merge across either of its edges earlier. What could: a token that lies across the edge and begins or
// ends within a character. For let a merge cross the edge before the character is whole. Then the merged token begins
// or ends within this character. So it is enough to know at which edges, by the byte before and the byte after, such
// ragged tokens can lie. (593 of Llama 3's tokens are such; they lie across 184 pairs of bytes that may be an edge in
// UTF-8, rare ones.) All edges within a token count: in what is no UTF-8, a character may be followed by any byte.
//
// Nor may the character, whole too soon, merge with a neighbour too soon. So what it merges into must have a higher
// rank than all that its own bytes merge into; then the merge waits for these. (So it is with all of Llama 3's.)
void Vocabulary::index_characters() {
    const auto continues = [](std::uint8_t byte) { return (byte & 0xC0) == 0x80; };
    Merger merger(*this);
    std::vector<bool> is_character(id_limit());
    for (Id id = 0; id < id_limit(); ++id) {
        const auto token = bytes_of(id);
        if (token.size() < 2 || !(knows_all_bytes_ || knows_all(token))) continue;
        const auto first = std::find_if_not(token.begin(), token.end(), continues);
        auto last = token.end();  // the last character's first byte
        while (last != token.begin() && continues(*--last)) {
        }
        const auto left = static_cast<std::size_t>(token.end() - last);
        const Character character = read_character(token.data(), token.size() - left, token.size());
        const bool ends_whole = character.length == left && (*last < 0x80 || left > 1);
        if (first == token.begin() && ends_whole) {
            if (left != token.size() || left > 3) continue;
            Id parts[3];
            if (merger.merge(token.data(), left, parts) == 1) {
                characters_[code_point_of(token)] = id;
                is_character[id] = true;
            }
            continue;
        }
        for (std::size_t i = 1; i < token.size(); ++i) {
            crossed_[token[i - 1]][token[i] >> 6] |= std::uint64_t{1} << (token[i] & 63);
        }
    }
    struct Pair {
        Id left, right, id;
    };
    const auto for_each_pair = [&](const auto& use) {
        std::for_each(pairs_.data(), pairs_.data() + pairs_.size(), [&](std::uint64_t entry) {
            if (!entry) return;
            use(Pair{static_cast<Id>(entry >> 2 * kIdBits) - 1, static_cast<Id>(entry >> kIdBits & kIdMask),
                     static_cast<Id>(entry & kIdMask)});
        });
    };
    std::vector<Id> latest(id_limit());  // of the merges within a character
    for_each_pair([&](Pair pair) {
        if (is_character[pair.id]) latest[pair.id] = std::max({pair.left, pair.right, pair.id});
    });
    for_each_pair([&](Pair pair) {
        for (const Id part : {pair.left, pair.right}) {
            if (latest[part] > pair.id) characters_[code_point_of(bytes_of(part))] = kNoId;
        }
    });
}

std::vector<Id> Vocabulary::pairs() const {
    std::vector<std::uint64_t> entries;
    std::copy_if(pairs_.data(), pairs_.data() + pairs_.size(), std::back_inserter(entries),
                 [](std::uint64_t entry) { return entry != 0; });
    std::sort(entries.begin(), entries.end(),
              [](std::uint64_t a, std::uint64_t b) { return (a & kIdMask) < (b & kIdMask); });
    std::vector<Id> pairs;
    for (const std::uint64_t entry : entries) {
        pairs.push_back(static_cast<Id>(entry >> 2 * kIdBits) - 1);
        pairs.push_back(static_cast<Id>(entry >> kIdBits & kIdMask));
        pairs.push_back(static_cast<Id>(entry & kIdMask));
    }
    return pairs;
}

}  // namespace bpe
