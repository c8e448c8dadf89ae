// Where a text may be cut, so that its parts can be encoded apart or before the rest of it is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/scan.hpp"

namespace bpe {

// The first place at or after `position`, and after the text's first byte, where a pretoken ends for certain, seen from
// the two characters around it alone: the pretokens of the text are those of the two sides, each scanned as if it were
// the whole. text.size() where there is no such place. It always lies between two characters.
std::size_t next_cut(Pattern pattern, std::span<const std::uint8_t> text, std::size_t position);

// How many of the first pretokens of a text stay what they are whatever is appended to it, nothing as well. The edges
// are those that `scan` finds in text[edges.front(), edges.back()), the first of them a pretoken's start, the last the
// text's end. What may be appended is whole characters; see `unfinished_character`.
std::size_t certain_pretokens(Pattern pattern, std::span<const std::uint8_t> text,
                              std::span<const std::uint64_t> edges);

// How many bytes at the end of a text begin a character that more bytes may finish: 0 to 3.
std::size_t unfinished_character(std::span<const std::uint8_t> text);

// Where the character begins that holds the byte at `position`, or stands just there.
std::size_t character_start(std::span<const std::uint8_t> text, std::size_t position);

// The kinds of characters whose runs make pretokens.
enum class Kind : std::uint8_t { kWord, kNumber, kSpace, kOther, kAny };

// kAny for those that go on with a run of several kinds: marks and slashes.
Kind kind_of(std::span<const std::uint8_t> text, std::size_t position);

}  // namespace bpe
