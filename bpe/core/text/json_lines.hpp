// Texts from JSON Lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/types.hpp"

namespace bpe {

struct JsonTexts {
    std::unique_ptr<std::uint8_t[]> bytes;    // the texts, one after the other
    std::vector<std::optional<Bytes>> lines;  // the text of each line
};

// Returns the string under `key` at the top level of each line's object. If the key repeats, the last one counts, as in
// Python's json. Lines end with '\n', which the last line may omit. A line has a text only if it is certainly valid.
// Any other line is left to a full parser: one that is not JSON, is nested deeply, has a lone surrogate in the text or
// in a key, or has no string under the key.
JsonTexts texts_of_json_lines(Bytes lines, std::string_view key);

}  // namespace bpe
