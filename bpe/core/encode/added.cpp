#include "encode/added.hpp"

#include <string_view>

#include "split/cuts.hpp"
#include "text/unicode.hpp"
#include "text/word_characters.hpp"

namespace bpe {

namespace {

constexpr std::size_t kMostComparisons = 100'000;

// Whether two tokens can share bytes of a text.
bool overlap(std::string_view a, std::string_view b) {
    if (a.find(b) != a.npos || b.find(a) != b.npos) return true;
    for (std::size_t size = 1; size < std::min(a.size(), b.size()); ++size) {
        if (a.ends_with(b.substr(0, size)) || b.ends_with(a.substr(0, size))) return true;
    }
    return false;
}

// Whether two passes find other tokens than one. Without an answer within reasonable time, they may.
bool needs_two_passes(const std::vector<AddedToken>& tokens) {
    std::vector<const AddedToken*> early, late;
    for (const AddedToken& token : tokens) {
        (token.late ? late : early).push_back(&token);
        // Such a token takes, or depends on, what is beside it.
        if (token.lstrip || token.rstrip || token.single_word) return true;
    }
    if (early.size() * late.size() > kMostComparisons) return true;
    for (const AddedToken* token : late) {
        for (const AddedToken* other : early) {
            if (overlap(token->content, other->content)) return true;
        }
    }
    return false;
}

SpecialTokens search_for(const std::vector<AddedToken>& tokens, bool late) {
    std::vector<std::string> contents;
    std::vector<Id> numbers;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i].late != late) continue;
        contents.push_back(tokens[i].content);
        numbers.push_back(static_cast<Id>(i));
    }
    return SpecialTokens(std::move(contents), numbers);
}

bool is_white_space(Bytes text, std::size_t position) {
    return read_character(text.data(), position, text.size()).classes & kSpace;
}

// Whether there is white space before a place, which a token may have taken.
bool is_after_white_space(Bytes text, std::size_t position) {
    return position && is_white_space(text, character_start(text, position - 1));
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, bool normalizes)
    : tokens_(std::move(tokens)), early_({}, {}), late_({}, {}) {
    if (!normalizes && !needs_two_passes(tokens_)) {
        for (AddedToken& token : tokens_) token.late = false;
    }
    early_ = search_for(tokens_, false);
    late_ = search_for(tokens_, true);
    has_late_tokens_ = !late_.empty();
    is_plain_ = !has_late_tokens_ && std::ranges::none_of(tokens_, [](const AddedToken& token) {
        return token.lstrip || token.rstrip || token.single_word;
    });
}

// The pass over the whole text, which goes from match to match, stops at `position` unless a match covers it. Then the
// two sides have the matches of the whole.
//
// If tokens look around them, no token may touch `position` either. Then no token's neighbours change. White space that
// a token takes does not extend over `position`, since there is a character there that is no white space; so the parts
// that are left for the second pass are cut at `position`, or end there anyway.
bool AddedTokens::may_cut(Bytes text, std::size_t position) const {
    if (is_plain_) return !early_.cross(text, position);
    const bool is_within_white_space = is_after_white_space(text, position) && is_white_space(text, position);
    return !is_within_white_space && !early_.touch(text, position) && !late_.touch(text, position);
}

bool AddedTokens::may_cut_late(Bytes text, std::size_t position) const {
    if (late_.empty()) return true;
    return !is_after_white_space(text, position) && !late_.touch(text, position) &&
           late_.unfinished(text, 0) > position;
}

bool AddedTokens::touches_early(Bytes text, std::size_t position) const {
    return (!is_plain_ && is_after_white_space(text, position)) || early_.touch(text, position);
}

bool AddedTokens::is_beside_a_word(Bytes text, Match match) {
    const auto is_word = [&](std::size_t position) { return is_word_character(text.data(), position, text.size()); };
    if (match.begin > 0 && is_word(character_start(text, match.begin - 1))) return true;
    return match.end < text.size() && is_word(match.end);
}

std::size_t AddedTokens::white_space_before(Bytes text, std::size_t position, std::size_t least) {
    while (position > least) {
        const std::size_t previous = character_start(text, position - 1);
        if (!is_white_space(text, previous)) break;
        position = previous;
    }
    return position;
}

std::size_t AddedTokens::white_space_after(Bytes text, std::size_t position) {
    while (position < text.size() && is_white_space(text, position)) {
        position += read_character(text.data(), position, text.size()).length;
    }
    return position;
}

}  // namespace bpe
