// The Encoder class of the Python module.
#pragma once

#include <type_traits>
#include <unordered_map>

#include "bindings/ids.hpp"
#include "bindings/python.hpp"
#include "encode/encoder.hpp"

namespace bpe {

// An Encoder with what its Python methods need besides: the bytes of added tokens, for decoding, and int objects.
class PythonEncoder {
 public:
    PythonEncoder(nb::bytes tokens, const InputArray<std::uint64_t>& offsets, const InputArray<Id>& ids,
                  std::shared_ptr<const Splitter> splitter, nb::dict added_tokens, const std::string& kernel,
                  bool merges_only, const std::optional<InputArray<Id>>& merges,
                  std::shared_ptr<const Normalizer> normalizer, std::shared_ptr<const Pieces> pieces,
                  int removed_spaces, nb::dict first_tokens);

    const Encoder& encoder() const { return encoder_; }

    // Encoding.
    nb::object encode(nb::handle text, const AddedTokens* added);
    nb::object encode_to_numpy(nb::handle text, const AddedTokens* added);
    std::size_t count(nb::handle text, const AddedTokens* added);
    nb::tuple encode_all(nb::handle objects, const AddedTokens* added, std::size_t threads,
                         const std::optional<std::string>& separator, bool short_ids, nb::handle out);
    nb::tuple encode_with_places(nb::handle text, const AddedTokens* added, bool in_characters);
    nb::object encode_pretokens(nb::handle objects);
    nb::object merge(nb::handle object);
    nb::object merge_plain(nb::handle object);
    nb::object lists(const InputArray<Id>& ids, const InputArray<std::int64_t>& offsets);
    void limit_cache(std::size_t bytes) { encoder_.limit_cache(bytes); }

    // Decoding.
    nb::object decode(nb::handle sequence, const char* errors) const;
    nb::object decode_bytes(nb::handle sequence) const;

    // The vocabulary.
    std::optional<Id> find(nb::bytes token) const;
    nb::bytes bytes_of(nb::handle id) const;
    nb::bytes token_bytes(Id id) const;
    Array<std::uint32_t> token_sizes(std::size_t count) const;
    // Bytes instead of an array: opening a tokenizer.json reads them, and importing NumPy takes longer than that.
    nb::bytes pairs() const {
        const std::vector<Id> ids = vocabulary().pairs();
        return nb::bytes(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(Id));
    }
    std::size_t id_limit() const { return vocabulary().id_limit(); }
    std::size_t longest_token() const { return vocabulary().longest_token(); }
    std::size_t pair_count() const { return vocabulary().pair_count(); }
    std::size_t unreachable_count() const { return vocabulary().unreachable_count(); }

 private:
    struct DecodedText {
        std::unique_ptr<char[]> data;
        std::size_t size = 0;
    };

    const Vocabulary& vocabulary() const { return encoder_.vocabulary(); }
    template <class Use>
    std::invoke_result_t<Use, std::span<const Id>> with_ids(nb::handle object, const AddedTokens* added,
                                                            const Use& use);
    DecodedText decoded(nb::handle sequence) const;
    DecodedText decoded(std::span<const Id> ids) const;
    nb::object string_of(Bytes text) const;
    Bytes lookup(Id id) const;
    std::size_t decode_beginning(std::span<const Id> ids, std::vector<char>& text) const;

    Encoder encoder_;
    // What decoding removes where a text begins: 0 nothing, 1 the space that a token begins with, 2 that of all tokens
    // up to the first that is more than a space.
    int removed_spaces_;
    std::unordered_map<Id, std::string> first_bytes_;  // of tokens that decode otherwise where a text begins
    std::unordered_map<Id, std::string> added_bytes_;
    IdObjects objects_;
};

// Defined here so that TokenizerBase inlines them: that saves 10 of the 210 ns that a sentence takes.

// Calls `use` with the ids of a text, with the GIL held, and returns its result.
template <class Use>
std::invoke_result_t<Use, std::span<const Id>> PythonEncoder::with_ids(nb::handle object, const AddedTokens* added,
                                                                       const Use& use) {
    const TextArgument text(object);
    const Encoder::Loan loan(encoder_);
    if (text.bytes().size() <= kMostBytesWithGil) return use(loan.encode(text.bytes(), added));
    std::span<const Id> ids;
    Interrupt interrupt(check_signals);
    {
        const ReleasedGil release;
        ids = loan.encode(text.bytes(), added, text.bytes().size() < kLongWork ? nullptr : &interrupt);
    }
    return use(ids);
}

inline nb::object PythonEncoder::encode(nb::handle text, const AddedTokens* added) {
    return with_ids(text, added, [&](std::span<const Id> ids) { return objects_.list_of(ids); });
}

inline nb::object PythonEncoder::encode_to_numpy(nb::handle text, const AddedTokens* added) {
    return with_ids(text, added, [&](std::span<const Id> ids) { return objects_.array_of(ids); });
}

inline std::size_t PythonEncoder::count(nb::handle text, const AddedTokens* added) {
    return with_ids(text, added, [&](std::span<const Id> ids) { return ids.size(); });
}

}  // namespace bpe
