// Normalizing a text as SentencePiece does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/types.hpp"
#include "encode/pieces.hpp"
#include "split/splitter.hpp"
#include "text/character_map.hpp"

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
    struct Summary;

    void summarize_map();
    Step step(Bytes text) const;
    std::size_t plain_run(Bytes text, std::size_t position) const;
    bool wants_prefix(Bytes text, Start start) const;
    bool may_stop(Bytes rest, const Writer& writer) const;

    Settings settings_;
    std::shared_ptr<const Pieces> pieces_;
    // By ASCII character: it stays itself whatever follows it; and it does so if an ASCII character follows it.
    bool is_plain_[256] = {};
    bool is_plain_before_ascii_[256] = {};
    // By byte: a text may be cut between a character that ends with one of the first and a space that is followed by
    // one of the second.
    bool may_precede_cut_[256] = {};
    bool may_follow_space_[256] = {};
};

}  // namespace bpe
