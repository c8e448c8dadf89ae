// Splitting a text at its added tokens, as Hugging Face's `tokenizers` does (added_vocabulary.rs).
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "base/types.hpp"
#include "encode/special.hpp"

namespace bpe {

struct AddedToken {
    std::string content;
    Id id;
    bool lstrip = false;       // the white space before it belongs to it
    bool rstrip = false;       // the white space after it belongs to it
    bool single_word = false;  // it is no token where a word character is beside it
    bool late = false;         // it is searched for in what the other tokens leave, which may have been normalized
    bool skipped = false;      // its text stays text, but hides the tokens that overlap it
};

// The tokens are searched for in two passes: all but the late ones in the whole text, then the late ones in each part
// that is left, as if the part were a text. A pass goes from match to match. Of several that begin at the same place it
// takes the longest, and it continues behind that match, whether or not the match counts.
//
// White space that a token takes with rstrip is still searched, as in the reference. Another token may be found in it,
// so tokens may overlap, and text behind the second may be given twice.
class AddedTokens {
 public:
    using Match = SpecialTokens::Match;

    // `normalizes` says whether the text is normalized between the passes. Throws std::invalid_argument if a token is
    // empty.
    explicit AddedTokens(std::vector<AddedToken> tokens, bool normalizes = false);

    bool empty() const { return tokens_.empty(); }

    // Calls on_part(begin, end) for each part of the text between tokens that is not empty and on_token(match) for each
    // token, in the order of the text.
    template <class OnPart, class OnToken>
    void split(Bytes text, const OnPart& on_part, const OnToken& on_token) const {
        if (!has_late_tokens_) return pass(early_, text, 0, text.size(), on_part, on_token);
        const auto on_early_part = [&](std::size_t begin, std::size_t end) {
            pass(late_, text, begin, end, on_part, on_token);
        };
        pass(early_, text, 0, text.size(), on_early_part, on_token);
    }

    // The two passes by themselves, for a text that is normalized between them.
    template <class OnPart, class OnToken>
    void split_early(Bytes text, const OnPart& on_part, const OnToken& on_token) const {
        pass(early_, text, 0, text.size(), on_part, on_token);
    }
    template <class OnPart, class OnToken>
    void split_late(Bytes text, const OnPart& on_part, const OnToken& on_token) const {
        pass(late_, text, 0, text.size(), on_part, on_token);
    }

    // Whether the text certainly has the same tokens if it is cut at `position`.
    bool may_cut(Bytes text, std::size_t position) const;

    // The same for late tokens alone, in a part of a text that has been normalized, whatever follows the part.
    bool may_cut_late(Bytes text, std::size_t position) const;

    // Whether a token may begin or end at `position`, or lie across it, with the white space that it takes.
    bool touches(Bytes text, std::size_t position) const {
        return touches_early(text, position) || late_.touch(text, position);
    }
    // The same for the tokens of the first pass.
    bool touches_early(Bytes text, std::size_t position) const;

    // Whether each match depends on nothing but the text of its token: there is one pass, and no token has lstrip,
    // rstrip or single_word.
    bool is_plain() const { return is_plain_; }

    // Returns the first token at or after `position`, with `begin` = text.size() if there is none. Skipped tokens have
    // the id kNoId. Only for plain tokens.
    Match find(Bytes text, std::size_t position) const {
        Match match = early_.find(text, position);
        if (match.begin < text.size()) match.id = tokens_[match.id].skipped ? kNoId : tokens_[match.id].id;
        return match;
    }

    // Whether a token of the first pass is in a text.
    bool has_early_in(Bytes text) const { return early_.find(text, 0).begin < text.size(); }

    // Returns the first place at or after `position` from which the rest of the text may begin a token, or text.size().
    // With `normalizes`, only tokens of the first pass are searched for.
    std::size_t unfinished(Bytes text, std::size_t position, bool normalizes = false) const {
        const std::size_t early = early_.unfinished(text, position);
        return normalizes ? early : std::min(early, late_.unfinished(text, position));
    }

    // The length of the longest token in bytes, or 0 without tokens.
    std::size_t longest() const { return std::max(early_.longest(), late_.longest()); }
    std::size_t longest_late() const { return late_.longest(); }

 private:
    // One pass over text[begin, end).
    template <class OnPart, class OnToken>
    void pass(const SpecialTokens& search, Bytes text, std::size_t begin, std::size_t end, const OnPart& on_part,
              const OnToken& on_token) const {
        const Bytes part = text.subspan(begin, end - begin);
        std::size_t done = 0;
        std::size_t white_end = 0;  // where the white space that was last read ends, so that no space is read twice
        for (std::size_t searched = 0;;) {
            const Match found = search.find(part, searched);
            if (found.begin == part.size()) break;
            searched = found.end;
            const AddedToken& token = tokens_[found.id];
            if (token.skipped || (token.single_word && is_beside_a_word(part, found))) continue;
            Match match{found.begin, found.end, token.id};
            if (token.lstrip) match.begin = std::max(done, white_space_before(part, found.begin, done));
            if (token.rstrip) {
                if (found.end >= white_end) white_end = white_space_after(part, found.end);
                match.end = white_end;
            }
            if (match.begin >= match.end) continue;  // it is within white space that the previous token has taken
            if (done < match.begin) on_part(begin + done, begin + match.begin);
            on_token(Match{begin + match.begin, begin + match.end, match.id});
            done = match.end;
        }
        if (done < part.size()) on_part(begin + done, end);
    }

    static bool is_beside_a_word(Bytes text, Match match);
    static std::size_t white_space_before(Bytes text, std::size_t position, std::size_t least);
    static std::size_t white_space_after(Bytes text, std::size_t position);

    std::vector<AddedToken> tokens_;
    SpecialTokens early_;  // their ids are indices of tokens_
    SpecialTokens late_;
    bool has_late_tokens_ = false;
    bool is_plain_ = true;
};

}  // namespace bpe
