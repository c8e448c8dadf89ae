// Encoding a text and finding where in it each id comes from.
#pragma once

#include <vector>

#include "base/types.hpp"
#include "encode/added.hpp"
#include "encode/encoder.hpp"

namespace bpe {

struct PlacedIds {
    IdBuffer ids;
    std::vector<Range> places;  // of each id: the bytes of the text that it stands for
};

// Returns the ids that the encoder gives, and their places. `added` may be null. White space that an added token takes
// belongs to it. An id that stands for nothing but inserted bytes has an empty range. Bytes that the vocabulary has no
// token for, and text that the splitter leaves out, belong to no id, unless they lie within the bytes of one.
PlacedIds encode_with_places(const Encoder& encoder, Bytes text, const AddedTokens* added);

// Turns ranges of bytes into ranges of characters: those that begin in the range, and the one that contains its start.
void count_in_characters(Bytes text, std::vector<Range>& places);

}  // namespace bpe
