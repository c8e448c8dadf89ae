// Normalizing a text before it is split, as the normalizers of Hugging Face's tokenizers do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/memory.hpp"
#include "base/types.hpp"

namespace bpe {

// A text and where each of its bytes comes from. origins[i] is what byte i stands for: a range of the text before
// normalization. All bytes of a character have the same origin. Empty where the text is unchanged.
struct NormalizedText {
    Bytes text;
    std::span<const Range> origins;
};

// What a step writes: the text after it and, for the variant with origins, where each byte comes from.
struct NormalText {
    Buffer<std::uint8_t> bytes;
    Buffer<Range> origins;
};

// The memory of one caller, reused from call to call.
struct NormalRoom {
    NormalText texts[2];
};

// The characters on the two sides of a place where a text may be cut: code points, or kUnknown.
struct Neighbours {
    std::uint32_t before;
    std::uint32_t after;
};

// A character that depends on more than its neighbour, or that may be removed.
inline constexpr std::uint32_t kUnknown = 0xFFFFFFFF;

// One normalizer of a sequence. Immutable. A byte that belongs to no well-formed character is a character of its own
// that no step changes.
class NormalStep {
 public:
    virtual ~NormalStep() = default;

    // Writes the changed text to `out`, which is empty, and returns true; or returns false if nothing changes, in which
    // case the content of `out` is unspecified. `at_start` is false where a part of the same text precedes this one.
    virtual bool apply(Bytes text, bool at_start, Buffer<std::uint8_t>& out) const = 0;

    // The same, with the origins of the bytes: each is the origin in `text` of the byte that a byte was made from.
    virtual bool apply(NormalizedText text, bool at_start, NormalText& out) const = 0;

    // Returns the neighbours after this step, if a text with these neighbours, both known, can be cut between them
    // whatever is before and after them: the step makes the same of the text and of its two sides. Returns nullopt if
    // that is not certain.
    virtual std::optional<Neighbours> across(Neighbours neighbours) const = 0;

    // Whether `across` ever knows a cut.
    virtual bool can_cut() const { return true; }
};

// A sequence of steps, perhaps empty. Immutable, so any number of threads may use it, each with a room of its own.
// Copies share the steps.
class Normalizer {
 public:
    Normalizer() = default;
    explicit Normalizer(std::vector<std::shared_ptr<const NormalStep>> steps);

    bool is_empty() const { return steps_.empty(); }

    // Returns the normalized text: the text itself where nothing changes, or else memory of the room, which is valid
    // until the room's next use. `at_start` is false where a part of the same text precedes this one; see `next_cut`.
    Bytes apply(Bytes text, bool at_start, NormalRoom& room) const;

    // The same, with the origins of the bytes in `text`.
    NormalizedText apply_with_origins(Bytes text, bool at_start, NormalRoom& room) const;

    // Returns how many bytes at the start of the normalized text stand for the first character of the text.
    std::size_t first_size(Bytes text, NormalRoom& room) const;

    // Returns a place at or after `position`, and after the text's first byte, where the text may be cut: whatever
    // follows the text, it becomes what the left side becomes with the same `at_start`, followed by what the right side
    // becomes without. Returns text.size() if it knows none. The place is always between two characters.
    std::size_t next_cut(Bytes text, std::size_t position) const;

 private:
    bool cuts_between(Neighbours neighbours) const;

    std::vector<std::shared_ptr<const NormalStep>> steps_;
    bool can_cut_ = true;
    // A bit for each pair of ASCII characters that a cut may separate: bit `after` of the row of `before`.
    std::shared_ptr<const std::vector<bool>> ascii_cuts_;
};

// --- steps ---

using Step = std::shared_ptr<const NormalStep>;

// Replaces each occurrence of a string, from left to right. An empty pattern occurs between all characters of a text
// that is not empty.
Step replace_step(Bytes pattern, Bytes content);

// Puts a string in front of a text that is not empty.
Step prepend_step(Bytes content);

// The normalization forms. The numbers are those of generate_normal.py.
enum class Form : std::uint8_t { kNfd, kNfkd, kNfc, kNfkc };

Step form_step(Form form);

// Makes each character lowercase, whatever is beside it.
Step lowercase_step();

// Removes combining marks.
Step strip_accents_step();

// Removes white space at the start and at the end of a text.
Step strip_step(bool left, bool right);

// Removes control characters and replaces white space, as sentencepiece's "nmt" rule does.
Step nmt_step();

// The parts of BertNormalizer: removing control characters, putting spaces around Chinese characters, and removing the
// accents of decomposed text.
Step bert_clean_step();
Step bert_chinese_step();
Step bert_accents_step();

// Writes each byte as the character that stands for it in byte-level vocabularies.
Step byte_level_step();

// Replaces characters and grapheme clusters by a map of sentencepiece's, as tokenizers does. Throws InputError.
Step precompiled_step(Bytes content);

}  // namespace bpe
