// The texts in lines of JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace bpe {

struct JsonTexts {
    std::unique_ptr<std::uint8_t[]> bytes;                            // the texts, one after the other
    std::vector<std::optional<std::span<const std::uint8_t>>> lines;  // the text of each line
};

// What each line has under a key: the last of the same keys, as everywhere. Lines end with '\n'; the last one may do
// without. A text is given only where the line is JSON beyond doubt, an object with a string under the key at its top
// level. For all others, which are not JSON, or are deeply nested, or have lone surrogates in the text or in a key,
// there is none: a full parser has to decide.
JsonTexts texts_of_json_lines(std::span<const std::uint8_t> lines, std::string_view key);

}  // namespace bpe
