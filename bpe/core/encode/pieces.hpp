// Byte-pair encoding of characters, as SentencePiece and Hugging Face's tokenizers do it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/interrupt.hpp"
#include "base/memory.hpp"
#include "base/types.hpp"

namespace bpe {

// How a character without a token is encoded.
enum class Unknown : std::uint8_t {
    kDropped,  // not at all: its neighbours may merge
    kEach,     // as the unknown token
    kFused     // as the unknown token, one for a run of such characters
};

// The strings that a text is searched for from left to right, the longest first. Each stays a symbol of its own.
class SymbolTrie {
 public:
    void add(Bytes string, Id symbol);
    bool is_empty() const { return nodes_.size() == 1; }
    bool may_begin_with(std::uint8_t byte) const { return first_[byte]; }
    // Whether a string contains a space (U+0020) after its first character.
    bool has_inner_space() const { return has_inner_space_; }

    struct Match {
        std::size_t length = 0;  // 0 if no string begins the text
        Id symbol = kNoId;
    };
    Match longest(Bytes text) const;

 private:
    std::unordered_map<std::uint64_t, std::uint32_t> children_;  // by node << 8 | byte
    std::vector<Id> nodes_ = {kNoId};                            // the symbol of the string that ends at each node
    bool first_[256] = {};
    bool has_inner_space_ = false;
};

// What a text is merged from and by which rules. Symbols are numbers of this class: the pieces, and characters and
// bytes that are no pieces. Each symbol has the ids that it is written as. Immutable once it is built, so any number of
// threads may use it.
class Pieces {
 public:
    // The types of the pieces in a SentencePiece model.
    enum Type : std::uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

    // Builds the rules of a SentencePiece model: any two neighbours whose joined text is a piece merge, the highest
    // score first, then the leftmost. Piece i is bytes[offsets[i], offsets[i + 1]) and has the id i. Throws
    // std::invalid_argument.
    static Pieces from_scores(Bytes bytes, std::span<const std::uint64_t> offsets, std::span<const float> scores,
                              std::span<const std::uint8_t> types, bool byte_fallback);

    // The options of a model in a tokenizer.json.
    struct Options {
        bool byte_fallback = false;
        std::size_t unknown = kNoId;  // the number of the unknown token, if there is one
        Unknown how = Unknown::kDropped;
        bool takes_whole = false;       // whether a text that is a token is taken whole (ignore_merges)
        bool stands_for_bytes = false;  // whether each character stands for a byte, as with ByteLevel
    };

    // Builds the rules of a tokenizer.json: the listed pairs merge, the first of the list first. `merges` holds the
    // left, right and merged number of each. Token i is bytes[offsets[i], offsets[i + 1]) and has the id ids[i].
    // Throws std::invalid_argument.
    static Pieces from_merges(Bytes bytes, std::span<const std::uint64_t> offsets, std::span<const Id> ids,
                              std::span<const Id> merges, const Options& options);

    // Memory that one thread reuses from call to call.
    struct Room {
        std::vector<Id> symbols;
        std::vector<Range> places;  // of the symbols in the text, if wanted
        bool wants_places = false;
        std::vector<std::uint64_t> pairs;
        std::vector<std::uint32_t> next;
        std::vector<std::uint32_t> previous;
        std::vector<std::uint64_t> heap;
        Interrupt* interrupt = nullptr;
    };

    // Writes the ids of a text to `ids`, which has room for text.size(), and returns how many there are.
    std::size_t encode(Bytes text, Room& room, Id* ids) const;
    // Also appends the place in the text of what each id stands for. Of fused unknown characters it is that of all.
    std::vector<Id> encode_with_places(Bytes text, Room& room, std::vector<Range>& places) const;
    // The same by the definition, in quadratic time. The tests' reference for `encode`.
    std::size_t encode_plain(Bytes text, Room& room, Id* ids) const;

    // Whether a text may be cut between two characters: the ids are those of the two sides.
    //
    // Proof: a merge across the place joins a symbol that ends with `before` and one that begins with `after`, so the
    // pair of some merge rule does. A user-defined symbol across the place contains the two. If neither exists, nothing
    // that happens on one side depends on the other, except that unknown characters are fused or dropped.
    bool may_cut(std::uint32_t before, std::uint32_t after) const {
        const std::size_t bit = bit_of(before, after);
        if (joined_[bit / 64] >> (bit % 64) & 1) return false;
        if (unknown_matters_ == kNever) [[likely]]
            return true;
        return unknown_matters_ == kIfBoth ? is_known(before) || is_known(after) : is_known(before) && is_known(after);
    }

    // Writes the places where a text may be cut, and its end, to `ends`. Returns how many, at most `limit`.
    std::size_t cut(Bytes text, std::uint64_t* ends, std::size_t limit) const;

    // Writes left, right and merged symbol of every rule, one after the other, in the order of their ranks.
    std::vector<Id> merges() const;
    std::size_t pair_count() const { return pair_count_; }
    // Whether the piece with this id begins with U+2581, for the pieces of a SentencePiece model.
    bool begins_with_space(Id id) const { return id < first_code_point_.size() && first_code_point_[id] == 0x2581; }
    const SymbolTrie& user_defined() const { return user_defined_; }
    bool takes_whole() const { return !whole_.empty(); }
    bool stands_for_bytes() const { return stands_for_bytes_; }

 private:
    struct HashOfText {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
    };

    static constexpr std::size_t kAsciiBits = 128 * 128;
    static constexpr std::size_t kHashedBits = std::size_t{1} << 21;
    static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};

    Pieces();

    struct Pair {
        std::uint64_t key;    // left << 32 | right; kNoPair if unused
        std::uint64_t value;  // rank << 32 | merged
    };

    static std::size_t bit_of(std::uint32_t before, std::uint32_t after) {
        if (before < 128 && after < 128) return before * 128 + after;
        const std::uint64_t hash = (std::uint64_t{before} << 21 | after) * 0x9E3779B97F4A7C15u;
        return kAsciiBits + static_cast<std::size_t>(hash >> (64 - 21));
    }

    Id symbol_of(std::uint32_t code_point) const {
        if (code_point < 0x10000) return basic_[code_point];
        const auto found = others_.find(code_point);
        return found == others_.end() ? kNoId : found->second;
    }
    bool is_known(std::uint32_t code_point) const {
        const Id symbol = symbol_of(code_point);
        return symbol != kNoId && !is_unknown_[symbol];
    }

    // Returns rank << 32 | merged symbol of a pair, or kNoPair.
    std::uint64_t find(Id left, Id right) const {
        const std::uint64_t key = std::uint64_t{left} << 32 | right;
        for (std::size_t slot = key * 0x9E3779B97F4A7C15u >> shift_;; slot = (slot + 1) & mask_) {
            if (pairs_[slot].key == key) return pairs_[slot].value;
            if (pairs_[slot].key == kNoPair) return kNoPair;
        }
    }

    Id add_symbol(std::uint32_t code_point);
    void set_symbol(std::uint32_t code_point, Id symbol);
    void make_room_for(std::size_t pairs);
    void add_pair(Id left, Id right, std::uint32_t rank, Id merged);
    void join(std::uint32_t before, std::uint32_t after);
    void set_outputs(const std::vector<std::vector<Id>>& outputs);
    std::vector<std::vector<Id>> outputs_by_piece(std::span<const Bytes> pieces, std::span<const std::uint8_t> types);
    void find_pairs(std::span<const Bytes> pieces, std::span<const float> scores, std::span<const std::uint8_t> types);

    void begin(Bytes text, Room& room) const;
    void begin_with_characters(Bytes text, Room& room) const;
    void merge(Room& room) const;
    void merge_short(Room& room) const;
    void merge_long(Room& room) const;
    std::size_t write(const Room& room, Id* ids) const;
    void add_outputs(Id symbol, Range place, std::vector<Id>& ids, std::vector<Range>& places) const;

    ZeroedArray<Id> basic_;                         // by code point below 0x10000
    std::unordered_map<std::uint32_t, Id> others_;  // by code point
    Id bytes_[256];                                 // symbols of bytes, or kNoId
    Id unknown_ = kNoId;                            // the symbol of an unknown character
    Unknown how_ = Unknown::kDropped;
    bool all_bytes_ = false;
    bool fuse_at_once_ = false;  // fuse unknown characters before merging, as tokenizers does
    enum : std::uint8_t { kNever, kIfBoth, kIfEither } unknown_matters_ = kNever;
    bool stands_for_bytes_ = false;
    SymbolTrie user_defined_;
    std::unordered_map<std::string, Id, HashOfText, std::equal_to<>> whole_;  // the texts that are taken whole
    std::vector<std::uint32_t> size_;              // by symbol, in bytes; 0 for characters that are no pieces
    std::vector<std::uint32_t> first_code_point_;  // by symbol
    std::vector<std::uint32_t> last_code_point_;
    std::vector<bool> is_unknown_;             // by symbol: written as the unknown token
    std::vector<std::uint32_t> output_begin_;  // by symbol, and one more
    std::vector<Id> outputs_;
    Id unknown_id_ = kNoId;  // of outputs that are fused
    ZeroedArray<Pair> pairs_;
    std::size_t mask_ = 0;
    unsigned shift_ = 63;
    std::size_t pair_count_ = 0;
    std::vector<std::uint64_t> joined_;
};

}  // namespace bpe
