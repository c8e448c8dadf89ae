// Normalizing a text as SentencePiece does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/types.hpp"
#include "encode/pieces.hpp"
#include "split/splitter.hpp"
#include "text/character_map.hpp"
#include "text/code_points.hpp"

namespace bpe {

// SentencePiece has no pretokens: merges may cross any place of a text. This splitter gives normalized parts of some
// thousand bytes, between which no merge is possible. The encoder cuts these further; see Pieces::cut.
class PieceSplitter final : public Splitter {
 public:
    // What a model says of normalization.
    struct Settings {
        CharacterMap map;
        bool add_dummy_prefix = true;          // whether a text gets a space in front, or behind if spaces are suffixes
        bool remove_extra_whitespaces = true;  // whether spaces at the edges and repeated spaces are removed
        bool escape_whitespaces = true;        // whether spaces become U+2581
        bool whitespace_as_suffix = false;
        // As Metaspace of tokenizers does: no space is put in front of a text that begins with one.
        bool prefix_unless_space = false;
        bool prefix_parts = true;  // whether a part behind an added token gets a space in front, too
    };

    PieceSplitter(Settings settings, std::shared_ptr<const Pieces> pieces);

    Pretokens next(Bytes text, std::size_t position, Start start, SplitRoom& room) const override;
    std::size_t next_cut(Bytes text, std::size_t position) const override;
    bool depends_on_start() const override { return true; }

 private:
    class Writer;
    struct Step {
        Bytes replacement;
        std::size_t length;  // bytes of the text that it replaces
    };
    // What is known of a character below U+10000.
    enum Trait : std::uint8_t {
        kStays = 1,   // by itself, it is neither replaced nor a part of a user-defined symbol
        kBegins = 2,  // strings of the map begin with it and go on with another character
        kSecond = 4   // it is the second character of such a string
    };

    void set_traits();
    void add_traits(Bytes beginning);
    Step step(Bytes text) const;
    bool stays(CodePoint character, CodePoint following) const;
    template <bool kOrigins>
    std::size_t copy(Bytes text, std::size_t position, bool& after_space, Writer& writer) const;
    bool wants_prefix(Bytes text, Start start) const;
    bool may_stop(Bytes rest, const Writer& writer) const;

    Settings settings_;
    std::shared_ptr<const Pieces> pieces_;
    std::vector<std::uint8_t> traits_;  // by code point below 0x10000
    bool copies_[256] = {};             // ASCII characters, but spaces, that stay themselves before any ASCII character
    bool is_second_above_basic_ = false;  // whether a character from U+10000 on is the second of a string of the map
    // By byte: a text may be cut between a character that ends with one of the first and a space that is followed by
    // one of the second.
    bool may_precede_cut_[256] = {};
    bool may_follow_space_[256] = {};
};

}  // namespace bpe
