// Where a text may be cut, so that its parts can be encoded separately or before the rest of the text is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/types.hpp"
#include "kernels/pattern.hpp"

namespace bpe {

// Returns the first place at or after `position`, and after the text's first byte, where the two characters around it
// alone show that a pretoken ends. The pretokens of the text are those of the two sides, each scanned as a whole text.
// Returns text.size() if there is no such place. The place is always between two characters.
std::size_t next_cut(Pattern pattern, Bytes text, std::size_t position);

// Returns how many of the first pretokens of a text stay the same whatever is appended to the text, including nothing.
// `edges` are those that `scan` finds in text[edges.front(), edges.back()): the first is the start of a pretoken, the
// last is the end of the text. Only whole characters may be appended; see `unfinished_character`.
std::size_t certain_pretokens(Pattern pattern, Bytes text, std::span<const std::uint64_t> edges);

// Returns how many bytes at the end of a text, 0 to 3, begin a character that more bytes may complete.
std::size_t unfinished_character(Bytes text);

// Returns where the character begins that contains the byte at `position`.
std::size_t character_start(Bytes text, std::size_t position);

// The kinds of characters whose runs make pretokens. kAny stands for marks and slashes, which continue runs of several
// kinds.
enum class Kind : std::uint8_t { kWord, kNumber, kSpace, kOther, kAny };

Kind kind_of(Bytes text, std::size_t position);

}  // namespace bpe
