// Properties of characters that the normalizers need; see generate_normal.py.
#pragma once

#include <cstdint>

namespace bpe {

struct FormRecord {
    std::uint16_t canonical, canonical_size;    // the decomposition in kFormPool; empty if there is none
    std::uint16_t compatible, compatible_size;  // the compatibility decomposition
    std::uint8_t combining_class;               // 0 for starters; else sorts as the combining class
    std::uint16_t flags;                        // bits of FormFlag
};

enum FormFlag : std::uint16_t {
    kChanges = 1,   // shifted by the form: the form can change the character
    kStarts = 16,   // shifted by the form: a text that is normalized by itself can begin with the character
    kSecond = 256,  // composes with a character before it
    kFirst = 512,   // composes with a character after it
};

enum NormalClass : std::uint8_t {
    kMark = 1,         // what StripAccents removes
    kNonspacing = 2,   // what BertNormalizer removes as an accent
    kBertRemoved = 4,  // what BertNormalizer removes as a control character
    kBertSpace = 8,    // what BertNormalizer makes a space
    kStripped = 16,    // what Strip removes
};

// How characters join to grapheme clusters (Unicode Standard Annex 29). Regional
// indicators are among the others: a pair of them has 8 bytes, and Precompiled looks only at shorter clusters.
enum class Cluster : std::uint8_t {
    kOther,
    kControl,
    kExtend,
    kSpacing,
    kJoiner,
    kPrepend,
    kL,
    kV,
    kT,
    kLV,
    kLVT,
    kPicture
};

enum class Conjunct : std::uint8_t { kNone, kConsonant, kExtend, kLinker };

namespace normal_tables {
#include "text/normal_tables.inc"
}

inline const FormRecord& form_record(std::uint32_t code_point) {
    using namespace normal_tables;
    return kFormRecords[kFormOf[kFormBlockOf[code_point >> 6] * 64u + (code_point & 63)]];
}

inline std::uint32_t normal_classes(std::uint32_t code_point) {
    using namespace normal_tables;
    return kNormalClassOf[kNormalClassBlockOf[code_point >> 6] * 64u + (code_point & 63)];
}

// Returns the distance from a character to its lowercase. U+0130 has none here: its lowercase is two characters.
inline std::int32_t lower_distance(std::uint32_t code_point) {
    using namespace normal_tables;
    return kLowerDistances[kLowerOf[kLowerBlockOf[code_point >> 6] * 64u + (code_point & 63)]];
}

inline Cluster cluster_of(std::uint32_t code_point) {
    using namespace normal_tables;
    return static_cast<Cluster>(kGraphemeOf[kGraphemeBlockOf[code_point >> 6] * 64u + (code_point & 63)] & 15);
}

inline Conjunct conjunct_of(std::uint32_t code_point) {
    using namespace normal_tables;
    return static_cast<Conjunct>(kGraphemeOf[kGraphemeBlockOf[code_point >> 6] * 64u + (code_point & 63)] >> 4);
}

}  // namespace bpe
