#include "encode/vocab_builder.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "encode/merge.hpp"
#include "text/unicode.hpp"

namespace bpe {

// Fills the tables of merges in a vocabulary whose tokens are known.
class VocabularyBuilder {
 public:
    explicit VocabularyBuilder(std::unique_ptr<Vocabulary> vocabulary) : vocabulary_(std::move(vocabulary)) {}

    static std::shared_ptr<const Vocabulary> build(Bytes bytes, std::span<const std::uint64_t> offsets,
                                                   std::span<const Id> ids, bool merges_only,
                                                   std::optional<std::span<const Id>> merges) {
        VocabularyBuilder builder(std::unique_ptr<Vocabulary>(new Vocabulary(bytes, offsets, ids, merges_only)));
        if (merges) {
            builder.list_pairs(*merges);
        } else {
            builder.index_pairs();
        }
        builder.index_characters();
        return std::move(builder.vocabulary_);
    }

 private:
    bool knows_all(Bytes bytes) const;
    void make_pair_table(std::size_t count);
    void list_pairs(std::span<const Id> merges);
    void list_pair(Id left, Id right, Id id);
    void find_unreachable();
    std::vector<std::uint32_t> last_ranks() const;
    std::vector<std::vector<Id>> tokens_by_length();
    void index_pairs();
    void index_pairs_of(std::span<const Id> tokens, std::size_t length, Merger& merger);
    void index_characters();
    void index_character(Id id, Bytes token, Merger& merger, std::vector<bool>& is_character);
    void forget_early_characters(const std::vector<bool>& is_character);
    template <class Use>
    void for_each_pair(const Use& use) const;

    std::unique_ptr<Vocabulary> vocabulary_;
};

bool VocabularyBuilder::knows_all(Bytes bytes) const {
    if (vocabulary_->knows_all_bytes()) return true;
    return std::none_of(bytes.begin(), bytes.end(),
                        [this](std::uint8_t byte) { return vocabulary_->id_of_byte(byte) == kNoId; });
}

void VocabularyBuilder::make_pair_table(std::size_t count) {
    vocabulary_->pairs_ = ZeroedArray<std::uint64_t>(std::bit_ceil(2 * count + 1), vocabulary_->table_pages());
}

// Makes only the listed pairs merge, in the order of the list.
void VocabularyBuilder::list_pairs(std::span<const Id> merges) {
    if (merges.size() % 3) throw std::invalid_argument("the merges are not left, right and merged id of each");
    const std::size_t count = merges.size() / 3;
    if (count > kMaxRank) throw std::invalid_argument("there are more than " + std::to_string(kMaxRank) + " merges");
    make_pair_table(count);
    vocabulary_->merged_ids_.reserve(count + 1);
    for (std::size_t i = 0; i < merges.size(); i += 3) list_pair(merges[i], merges[i + 1], merges[i + 2]);
    vocabulary_->merged_ids_.push_back(kNoId);  // so that it is not empty
    vocabulary_->finish_pairs();
    find_unreachable();
}

void VocabularyBuilder::list_pair(Id left, Id right, Id id) {
    const auto rank = static_cast<std::uint32_t>(vocabulary_->pair_count());
    const std::size_t limit = vocabulary_->id_limit();
    const auto joins = [&] {
        if (left >= limit || right >= limit || id >= limit) return false;
        const Bytes first = vocabulary_->bytes_of(left), second = vocabulary_->bytes_of(right);
        const Bytes whole = vocabulary_->bytes_of(id);
        return !first.empty() && !second.empty() && first.size() + second.size() == whole.size() &&
               std::equal(first.begin(), first.end(), whole.begin()) &&
               std::equal(second.rbegin(), second.rend(), whole.rbegin());
    };
    if (!joins())
        throw std::invalid_argument("merge " + std::to_string(rank) + " does not join two tokens to its token");
    if (vocabulary_->rank_of(left, right) != kNoId) {
        throw std::invalid_argument("merge " + std::to_string(rank) + " is listed twice");
    }
    vocabulary_->insert_pair(left, right, rank);
    vocabulary_->merged_ids_.push_back(id);
    const Bytes whole = vocabulary_->bytes_of(id);
    const bool of_bytes =
        whole.size() == 2 && left == vocabulary_->id_of_byte(whole[0]) && right == vocabulary_->id_of_byte(whole[1]);
    if (of_bytes) vocabulary_->byte_pairs_[whole[0] << 8 | whole[1]] = rank;
}

// Finds the tokens that the listed merges do not lead to when the token is encoded by itself.
void VocabularyBuilder::find_unreachable() {
    Merger merger(*vocabulary_);
    std::vector<Id> parts(vocabulary_->longest_token());
    for (Id id = 0; id < vocabulary_->id_limit(); ++id) {
        const Bytes token = vocabulary_->bytes_of(id);
        if (token.size() < 2) continue;
        if (knows_all(token) && merger.merge(token.data(), token.size(), parts.data()) == 1) continue;
        ++vocabulary_->unreachable_count_;
        if (!vocabulary_->unreachable_.empty()) vocabulary_->unreachable_[id] = true;
    }
}

// Returns, by length, the tokens that merging may make.
std::vector<std::vector<Id>> VocabularyBuilder::tokens_by_length() {
    std::vector<std::vector<Id>> tokens(vocabulary_->longest_token() + 1);
    for (Id id = 0; id < vocabulary_->id_limit(); ++id) {
        const Bytes token = vocabulary_->bytes_of(id);
        if (token.size() < 2) continue;
        if (!vocabulary_->unreachable_.empty()) vocabulary_->unreachable_[id] = true;  // until a pair is found
        if (knows_all(token)) tokens[token.size()].push_back(id);
    }
    return tokens;
}

// The reference merges two neighbours whenever their joined bytes are a token, whatever the ranks of the two. Still,
// each token has at most one pair that can ever merge into it: the last merge when the token is encoded by itself.
//
// Proof: let two neighbours, whose joined bytes are a token t, occur in some text. No merge has crossed the edges of
// their span. So the merges within the span are those of t encoded by itself, in the same order: in both cases, the
// pair inside the span with the lowest rank comes first, and among equals the leftmost. So both reach the same two
// parts. A merge inside t makes a token shorter than t. So if the tokens are handled by length, each token finds all
// pairs that it needs. (280,147 pairs of Llama 3's tokens join to a token; 127,156 of them can happen, and the table
// holds those.)
void VocabularyBuilder::index_pairs() {
    constexpr std::size_t kTogether = 256;
    const std::vector<std::vector<Id>> tokens = tokens_by_length();
    make_pair_table(vocabulary_->token_count());
    Merger merger(*vocabulary_);
    // Tokens of the same length do not need each other's pairs, so they are merged together.
    for (std::size_t length = 2; length < tokens.size(); ++length) {
        for (std::span<const Id> left = tokens[length]; !left.empty();) {
            const std::size_t count = std::min(kTogether, left.size());
            index_pairs_of(left.first(count), length, merger);
            left = left.subspan(count);
        }
    }
    vocabulary_->finish_pairs();
    for (Id id = 0; id < vocabulary_->id_limit(); ++id) {
        vocabulary_->unreachable_count_ += vocabulary_->bytes_of(id).size() > 1;
    }
    vocabulary_->unreachable_count_ -= vocabulary_->pair_count();
}

// Encodes tokens of the same length by themselves and adds the last merge of each.
void VocabularyBuilder::index_pairs_of(std::span<const Id> tokens, std::size_t length, Merger& merger) {
    std::vector<Id> parts(tokens.size() * length);
    std::vector<MergeJob> jobs;
    jobs.reserve(tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        jobs.push_back({vocabulary_->bytes_of(tokens[i]).data(), length, parts.data() + i * length, 0});
    }
    merger.merge(jobs);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (jobs[i].count != 2) continue;  // no merges lead to this token
        vocabulary_->insert_pair(jobs[i].ids[0], jobs[i].ids[1], tokens[i]);
        if (!vocabulary_->unreachable_.empty()) vocabulary_->unreachable_[tokens[i]] = false;
        if (length == 2) vocabulary_->byte_pairs_[jobs[i].bytes[0] << 8 | jobs[i].bytes[1]] = tokens[i];
    }
}

// A character's bytes merge into one token before anything else happens to them if they do so when encoded alone and no
// earlier merge can cross either of the character's edges.
//
// A merge can cross an edge only if a token lies across the edge and begins or ends within a character: if a merge
// crosses the edge before the character is whole, the merged token begins or ends within this character. So it is
// enough to know the edges, given by the byte before and the byte after, that such ragged tokens lie across. (593 of
// Llama 3's tokens are ragged. They lie across 184 pairs of bytes that may be an edge in UTF-8, rare ones.) All edges
// within a ragged token count, because in malformed UTF-8 any byte may follow a character.
//
// The character is whole sooner than it would be by merging, and must not merge with a neighbour too soon. So whatever
// it merges into must have a higher rank than everything its own bytes merge into: then that merge waits for those.
// (This holds for all of Llama 3's characters.)
void VocabularyBuilder::index_characters() {
    Merger merger(*vocabulary_);
    std::vector<bool> is_character(vocabulary_->id_limit());
    for (Id id = 0; id < vocabulary_->id_limit(); ++id) {
        const Bytes token = vocabulary_->bytes_of(id);
        if (token.size() >= 2 && knows_all(token)) index_character(id, token, merger, is_character);
    }
    forget_early_characters(is_character);
}

// Notes the token if it is a character, or the edges that it lies across if it is ragged.
void VocabularyBuilder::index_character(Id id, Bytes token, Merger& merger, std::vector<bool>& is_character) {
    auto last = token.end();  // the last character's first byte
    while (last != token.begin() && is_continuation(*--last)) {
    }
    const auto left = static_cast<std::size_t>(token.end() - last);
    const Character character = read_character(token.data(), token.size() - left, token.size());
    const bool ends_whole = character.length == left && (*last < 0x80 || left > 1);
    if (ends_whole && !is_continuation(token.front())) {
        Id parts[3];
        if (left != token.size() || left > 3 || merger.merge(token.data(), left, parts) != 1) return;
        vocabulary_->characters_[code_point_of(token.data(), left)] = id;
        is_character[id] = true;
        return;
    }
    for (std::size_t i = 1; i < token.size(); ++i) {
        vocabulary_->crossed_[token[i - 1]][token[i] >> 6] |= std::uint64_t{1} << (token[i] & 63);
    }
}

// Removes the characters that could merge with a neighbour too soon. The merges within a character make it or one of
// its two parts, one of which is a single byte.
void VocabularyBuilder::forget_early_characters(const std::vector<bool>& is_character) {
    const std::vector<std::uint32_t> last = last_ranks();
    std::vector<std::uint32_t> latest(vocabulary_->id_limit());  // the highest rank among the merges within a character
    for_each_pair([&](MergingPair pair) {
        const Id id = token_of_rank(vocabulary_->pair_table(), pair.rank);
        if (is_character[id]) latest[id] = std::max({latest[id], last[pair.left], last[pair.right], pair.rank});
    });
    for_each_pair([&](MergingPair pair) {
        for (const Id part : {pair.left, pair.right}) {
            if (latest[part] <= pair.rank) continue;
            const Bytes character = vocabulary_->bytes_of(part);
            vocabulary_->characters_[code_point_of(character.data(), character.size())] = kNoId;
        }
    });
}

// Returns, by id, the highest rank of the merges that make a token.
std::vector<std::uint32_t> VocabularyBuilder::last_ranks() const {
    std::vector<std::uint32_t> last(vocabulary_->id_limit());
    for_each_pair([&](MergingPair pair) {
        std::uint32_t& rank = last[token_of_rank(vocabulary_->pair_table(), pair.rank)];
        rank = std::max(rank, pair.rank);
    });
    return last;
}

template <class Use>
void VocabularyBuilder::for_each_pair(const Use& use) const {
    const ZeroedArray<std::uint64_t>& entries = vocabulary_->pairs_;
    std::for_each(entries.data(), entries.data() + entries.size(), [&](std::uint64_t entry) {
        if (entry) use(merging_pair(entry));
    });
}

// No pretoken is taken whole and no bytes merge: the pieces say what merges.
std::shared_ptr<const Vocabulary> build_piece_vocabulary(Bytes bytes, std::span<const std::uint64_t> offsets,
                                                         std::span<const Id> ids,
                                                         std::shared_ptr<const Pieces> pieces) {
    std::shared_ptr<Vocabulary> vocabulary(new Vocabulary(bytes, offsets, ids, true, std::move(pieces)));
    vocabulary->unreachable_.assign(vocabulary->id_limit(), true);
    vocabulary->pairs_ = ZeroedArray<std::uint64_t>(1);
    vocabulary->pair_count_ = vocabulary->pieces_->pair_count();
    return vocabulary;
}

std::shared_ptr<const Vocabulary> build_vocabulary(Bytes bytes, std::span<const std::uint64_t> offsets,
                                                   std::span<const Id> ids, bool merges_only,
                                                   std::optional<std::span<const Id>> merges) {
    return VocabularyBuilder::build(bytes, offsets, ids, merges_only, merges);
}

}  // namespace bpe
