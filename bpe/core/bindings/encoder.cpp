#include "bindings/encoder.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "encode/places.hpp"
#include "encode/vocab_builder.hpp"

namespace bpe {

namespace {

std::shared_ptr<const Vocabulary> vocabulary_from(Bytes tokens, std::span<const std::uint64_t> offsets,
                                                  std::span<const Id> ids, bool merges_only,
                                                  const std::optional<InputArray<Id>>& merges,
                                                  std::shared_ptr<const Pieces> pieces) {
    if (pieces) return build_piece_vocabulary(tokens, offsets, ids, std::move(pieces));
    return build_vocabulary(tokens, offsets, ids, merges_only, merges ? std::optional(span_of(*merges)) : std::nullopt);
}

}  // namespace

PythonEncoder::PythonEncoder(nb::bytes tokens, const InputArray<std::uint64_t>& offsets, const InputArray<Id>& ids,
                             std::shared_ptr<const Splitter> splitter, nb::dict added_tokens, const std::string& kernel,
                             bool merges_only, const std::optional<InputArray<Id>>& merges,
                             std::shared_ptr<const Normalizer> normalizer, std::shared_ptr<const Pieces> pieces,
                             int removed_spaces, nb::dict first_tokens)
    : encoder_(vocabulary_from(view_of(tokens), span_of(offsets), span_of(ids), merges_only, merges, std::move(pieces)),
               std::move(splitter), std::move(normalizer), kernel_named(kernel)),
      removed_spaces_(removed_spaces),
      objects_(vocabulary().id_limit()) {
    for (auto [token, id] : added_tokens) {
        added_bytes_.try_emplace(id_from(id.ptr()), to_string(TextArgument(token).bytes()));
    }
    for (auto [id, token] : first_tokens) {
        first_bytes_.try_emplace(id_from(id.ptr()), to_string(TextArgument(token).bytes()));
    }
}

// --- encoding ---

namespace {

// Copies the ids to a new array and returns it, or copies them to `out` and returns their number.
template <class T>
nb::object copy_ids(EncodedTexts& encoded, nb::handle out) {
    if (out.is_none()) {
        const Array<T> array = new_array<T>(encoded.size());
        {
            const ReleasedGil release;
            encoded.copy_to(array.data());
        }
        return nb::cast(array);
    }
    nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu> array;
    if (!nb::try_cast(out, array, false)) {
        const std::string type = "uint" + std::to_string(8 * sizeof(T));
        throw nb::type_error(("out must be a writable contiguous array of " + type + " with one dimension").c_str());
    }
    if (array.size() < encoded.size()) {
        throw std::invalid_argument("out has room for " + std::to_string(array.size()) + " ids, but there are " +
                                    std::to_string(encoded.size()));
    }
    {
        const ReleasedGil release;
        encoded.copy_to(array.data());
    }
    return nb::cast(encoded.size());
}

}  // namespace

nb::tuple PythonEncoder::encode_all(nb::handle objects, const AddedTokens* added, std::size_t threads,
                                    const std::optional<std::string>& separator, bool short_ids, nb::handle out) {
    const TextArguments texts(objects);
    std::optional<EncodedTexts> encoded;
    Interrupt interrupt(check_signals);
    {
        const ReleasedGil release;
        encoded.emplace(encoder_.encode_all(texts.documents(separator), added, threads, &interrupt));
    }
    const auto offsets = copied_array(encoded->offsets());
    if (short_ids) return nb::make_tuple(copy_ids<std::uint16_t>(*encoded, out), offsets);
    return nb::make_tuple(copy_ids<Id>(*encoded, out), offsets);
}

nb::tuple PythonEncoder::encode_with_places(nb::handle object, const AddedTokens* added, bool in_characters) {
    const TextArgument text(object);
    PlacedIds placed;
    {
        const nb::gil_scoped_release release;
        placed = bpe::encode_with_places(encoder_, text.bytes(), added);
        if (in_characters) count_in_characters(text.bytes(), placed.places);
    }
    nb::list places;
    for (const auto [begin, end] : placed.places) places.append(nb::make_tuple(begin, end));
    return nb::make_tuple(objects_.list_of(placed.ids), places);
}

nb::object PythonEncoder::encode_pretokens(nb::handle objects) {
    const TextArguments pretokens(objects);
    IdBuffer ids;
    std::size_t size = 0;
    for (const Bytes pretoken : pretokens.spans) size += pretoken.size();
    if (size < kLongWork) {
        encoder_.encode_pretokens(pretokens.spans, ids);
    } else {
        Interrupt interrupt(check_signals);
        const ReleasedGil release;
        encoder_.encode_pretokens(pretokens.spans, ids, &interrupt);
    }
    return objects_.list_of(ids);
}

nb::object PythonEncoder::merge(nb::handle object) {
    const TextArgument text(object);
    IdBuffer ids;
    if (text.bytes().empty()) return objects_.list_of(ids);
    ids.reserve(text.bytes().size());
    if (const Pieces* const pieces = vocabulary().pieces()) {
        Pieces::Room room;
        ids.advance(pieces->encode(text.bytes(), room, ids.end()));
        return objects_.list_of(ids);
    }
    Merger merger(vocabulary(), encoder_.kernel());
    ids.advance(merger.merge(text.bytes().data(), text.bytes().size(), ids.end()));
    return objects_.list_of(ids);
}

nb::object PythonEncoder::merge_plain(nb::handle object) {
    const TextArgument text(object);
    IdBuffer ids;
    ids.reserve(text.bytes().size());
    if (const Pieces* const pieces = vocabulary().pieces()) {
        Pieces::Room room;
        ids.advance(pieces->encode_plain(text.bytes(), room, ids.end()));
        return objects_.list_of(ids);
    }
    ids.advance(bpe::merge_plain(vocabulary(), text.bytes().data(), text.bytes().size(), ids.end()));
    return objects_.list_of(ids);
}

nb::object PythonEncoder::lists(const InputArray<Id>& ids, const InputArray<std::int64_t>& offsets) {
    return objects_.lists_of(span_of(ids), span_of(offsets));
}

// --- decoding ---

nb::object PythonEncoder::decode(nb::handle sequence, const char* errors) const {
    const DecodedText text = decoded(sequence);
    // SentencePiece replaces each malformed byte; Python replaces each beginning of a character at once.
    const Pieces* const pieces = vocabulary().pieces();
    const bool replaces_bytes = pieces && !pieces->stands_for_bytes();
    if (replaces_bytes && std::strcmp(errors, "replace") == 0) errors = "bpe_replace_bytes";
    nb::object result = string_of({reinterpret_cast<const std::uint8_t*>(text.data.get()), text.size});
    if (!result.is_valid()) {
        result = nb::steal(PyUnicode_DecodeUTF8(text.data.get(), static_cast<Py_ssize_t>(text.size), errors));
        if (!result.is_valid()) nb::raise_python_error();
    }
    return result;
}

nb::object PythonEncoder::decode_bytes(nb::handle sequence) const {
    const DecodedText text = decoded(sequence);
    return nb::steal(PyBytes_FromStringAndSize(text.data.get(), static_cast<Py_ssize_t>(text.size)));
}

PythonEncoder::DecodedText PythonEncoder::decoded(nb::handle sequence) const {
    if (InputArray<Id> array; nb::try_cast(sequence, array, false)) return decoded(span_of(array));
    // tiktoken refuses these, too: sets and iterators have no order or can be read only once.
    if (PyUnicode_Check(sequence.ptr()) || !PySequence_Check(sequence.ptr())) {
        throw nb::type_error("expected a sequence of ints");
    }
    const nb::object items = nb::steal(PySequence_Fast(sequence.ptr(), "expected a sequence of ints"));
    if (!items.is_valid()) nb::raise_python_error();
    const std::vector<Id> ids = ids_from(items);
    return decoded(std::span<const Id>(ids));
}

// Decodes the ids at the beginning of a text, up to the last that loses a space, and returns their number. Added tokens
// before them stay.
std::size_t PythonEncoder::decode_beginning(std::span<const Id> ids, std::vector<char>& text) const {
    if (!ids.empty() && !first_bytes_.empty()) {
        const auto first = first_bytes_.find(ids.front());
        if (first == first_bytes_.end()) return 0;
        text.assign(first->second.begin(), first->second.end());
        return 1;
    }
    const Pieces* const pieces = vocabulary().pieces();
    if (!removed_spaces_ || !pieces) return 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        Bytes token = lookup(ids[i]);
        const bool is_added = ids[i] >= vocabulary().id_limit() || vocabulary().bytes_of(ids[i]).empty();
        if (!is_added) {
            if (!pieces->begins_with_space(ids[i])) return i;
            token = token.subspan(1);
        }
        text.insert(text.end(), token.begin(), token.end());
        if (!is_added && (removed_spaces_ == 1 || !token.empty())) return i + 1;
    }
    return ids.size();
}

// Joins the bytes of the tokens. Most tokens are short: 16 bytes are copied, and the end advances by the token's
// length.
PythonEncoder::DecodedText PythonEncoder::decoded(std::span<const Id> ids) const {
    constexpr std::size_t kAhead = 16;
    std::vector<char> beginning;
    ids = ids.subspan(decode_beginning(ids, beginning));
    const std::span<const Vocabulary::ShortToken> tokens = vocabulary().short_tokens();
    std::size_t room = ids.size() * 6 + 64;
    DecodedText text{std::make_unique_for_overwrite<char[]>(room)};
    char* out = text.data.get();  // a local variable is not read again after each byte written
    std::size_t size = 0;
    const auto make_room = [&](std::size_t more) {
        if (room - size >= more) [[likely]]
            return;
        room += room / 2 + more;
        auto larger = std::make_unique_for_overwrite<char[]>(room);
        std::memcpy(larger.get(), out, size);
        text.data = std::move(larger);
        out = text.data.get();
    };
    make_room(beginning.size());
    std::copy(beginning.begin(), beginning.end(), out);
    size = beginning.size();
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (i + kAhead < ids.size() && ids[i + kAhead] < tokens.size()) {
            __builtin_prefetch(&tokens[ids[i + kAhead]]);
        }
        make_room(16);
        if (ids[i] < tokens.size()) [[likely]] {
            const Vocabulary::ShortToken token = tokens[ids[i]];
            std::memcpy(out + size, &token, sizeof token);
            size += token.length;
            if (token.length) [[likely]]
                continue;
        }
        const Bytes token = lookup(ids[i]);
        make_room(token.size());
        std::memcpy(out + size, token.data(), token.size());
        size += token.size();
    }
    text.size = size;
    return text;
}

// Returns the str of a text that is not ASCII, in half the interpreter's time. Returns an invalid object for the texts
// that the interpreter decodes: ASCII, malformed text, text with characters above U+FFFF, and, in the limited API, all.
nb::object PythonEncoder::string_of(Bytes text) const {
    const Utf8Kernel* utf8 = encoder_.kernel().utf8;
    if (!utf8 || !kFillsStrings) return {};
    const Utf8Shape shape = utf8->measure(text.data(), text.size());
    if (shape.highest < 0xC2 || shape.highest > 0xEF) return {};
    const bool is_narrow = shape.highest <= 0xC3;
    nb::object result = nb::steal(new_string(shape.characters, is_narrow));
    if (!result.is_valid()) nb::raise_python_error();
    void* data = string_data(result.ptr());
    const bool well_formed = is_narrow ? utf8->narrow(text.data(), text.size(), static_cast<std::uint8_t*>(data))
                                       : utf8->wide(text.data(), text.size(), static_cast<std::uint16_t*>(data));
    return well_formed ? result : nb::object();
}

// --- the vocabulary ---

// Returns the bytes of a token, added or not. Raises KeyError for an unused id.
Bytes PythonEncoder::lookup(Id id) const {
    if (id < vocabulary().id_limit()) {
        if (const Bytes token = vocabulary().bytes_of(id); !token.empty()) return token;
    }
    const auto found = added_bytes_.find(id);
    if (found == added_bytes_.end()) {
        throw nb::key_error(("Invalid token for decoding: " + std::to_string(id)).c_str());  // tiktoken's words
    }
    return {reinterpret_cast<const std::uint8_t*>(found->second.data()), found->second.size()};
}

std::optional<Id> PythonEncoder::find(nb::bytes token) const {
    const Bytes bytes = view_of(token);
    const Id id = vocabulary().find(bytes.data(), bytes.size());
    return id == kNoId ? std::nullopt : std::optional(id);
}

nb::bytes PythonEncoder::bytes_of(nb::handle id) const { return bytes_object(lookup(id_from(id.ptr()))); }

nb::bytes PythonEncoder::token_bytes(Id id) const {
    return id < vocabulary().id_limit() ? bytes_object(vocabulary().bytes_of(id)) : nb::bytes("", 0);
}

Array<std::uint32_t> PythonEncoder::token_sizes(std::size_t count) const {
    std::vector<std::uint32_t> sizes(count);
    for (std::size_t id = 0; id < std::min(count, id_limit()); ++id) {
        sizes[id] = static_cast<std::uint32_t>(vocabulary().bytes_of(static_cast<Id>(id)).size());
    }
    return copied_array(sizes);
}

namespace {

constexpr const char* kEncoderDoc = R"(A vocabulary with a splitter: text -> ids and ids -> bytes.

Args:
    tokens: The bytes of all tokens, joined.
    offsets: Where each token begins in `tokens`, and the end of the last. [tokens + 1], uint64
    ids: The id of each token, which is its rank as well. [tokens], uint32
    splitter: What splits a text into pretokens.
    added_tokens: The id of each added token, for decoding. Of several with the same id, the first is decoded.
    kernel: The kernel to use; see `kernels`.
    merges_only: Whether all tokens come from merging. Otherwise a pretoken that is a token is taken whole.
    merges: The left, right and merged id of the pairs that merge, in their order: [3 * merges], uint32. Default: any
        pair whose joined bytes are a token merges, in the order of the ids of those tokens.
    normalizer: What changes a text before it is split, or None.
    pieces: The rules that merge characters, or None where bytes are merged. With these, several tokens may be the
        same, and `merges_only` and `merges` have no meaning.
    removed_spaces: What decoding removes where a text begins: 0 nothing, 1 the space that the first ordinary token
        begins with, 2 that of all tokens up to the first that is more than a space.
    first_tokens: The bytes of the ids that decode otherwise where they are the first of a text.)";

constexpr const char* kEncodeAllDoc = R"(Encode many texts on several threads.

Args:
    texts: The texts.
    added: The added tokens to encode as themselves, or None.
    threads: The number of threads.
    separator: A string that splits each text into documents, or None.
    short_ids: Whether ids are uint16 instead of uint32. Larger ids are truncated.
    out: An array of that type to write the ids to, or None for a new array.

Returns:
    The ids of all documents, joined, or their number if `out` is given; and where the ids of each document begin,
    followed by their end: [documents + 1], int64.)";

}  // namespace

void register_encoder(nb::module_& module) {
    nb::class_<PythonEncoder>(module, "Encoder", kEncoderDoc)
        .def(nb::init<nb::bytes, const InputArray<std::uint64_t>&, const InputArray<Id>&,
                      std::shared_ptr<const Splitter>, nb::dict, const std::string&, bool,
                      const std::optional<InputArray<Id>>&, std::shared_ptr<const Normalizer>,
                      std::shared_ptr<const Pieces>, int, nb::dict>(),
             nb::arg("tokens"), nb::arg("offsets"), nb::arg("ids"), nb::arg("splitter"), nb::arg("added_tokens"),
             nb::arg("kernel") = "", nb::arg("merges_only") = false, nb::arg("merges").none() = nb::none(),
             nb::arg("normalizer").none() = nb::none(), nb::arg("pieces").none() = nb::none(),
             nb::arg("removed_spaces") = 0, nb::arg("first_tokens") = nb::dict())
        .def("encode", &PythonEncoder::encode, nb::arg("text").none(), nb::arg("added").none(),
             "Return the ids of a text, with the ids of the added tokens in it.")
        .def("encode_to_numpy", &PythonEncoder::encode_to_numpy, nb::arg("text").none(), nb::arg("added").none(),
             "Return the same ids as `encode`, as an array [tokens] of uint32.")
        .def("count", &PythonEncoder::count, nb::arg("text").none(), nb::arg("added").none(),
             "Return how many ids `encode` would return.")
        .def("encode_all", &PythonEncoder::encode_all, nb::arg("texts"), nb::arg("added").none(), nb::arg("threads"),
             nb::arg("separator").none() = nb::none(), nb::arg("short_ids") = false, nb::arg("out").none() = nb::none(),
             kEncodeAllDoc)
        .def("lists", &PythonEncoder::lists, nb::arg("ids"), nb::arg("offsets"),
             "Return the ids of each text as a list; list i has ids[offsets[i]:offsets[i + 1]].")
        .def("encode_with_places", &PythonEncoder::encode_with_places, nb::arg("text").none(), nb::arg("added").none(),
             nb::arg("in_characters"),
             "Return the ids of a text, and where in it each begins and ends, in bytes or in characters.")
        .def("encode_pretokens", &PythonEncoder::encode_pretokens, nb::arg("pretokens"),
             "Return the ids of pretokens that were split elsewhere.")
        .def("merge", &PythonEncoder::merge, nb::arg("pretoken"),
             "Return the ids of a pretoken by merging alone, even if the whole pretoken is a token.")
        .def("merge_plain", &PythonEncoder::merge_plain, nb::arg("pretoken"),
             "Return the same ids as `merge` by the quadratic definition, for tests.")
        .def("find", &PythonEncoder::find, nb::arg("token"), "Return the id of the token with these bytes, or None.")
        .def("bytes_of", &PythonEncoder::bytes_of, nb::arg("id"),
             "Return the bytes of a token, special or not. Raises KeyError for an unused id.")
        .def("token_bytes", &PythonEncoder::token_bytes, nb::arg("id"),
             "Return the bytes of a token; empty for special tokens and unused ids.")
        .def("token_sizes", &PythonEncoder::token_sizes, nb::arg("count"),
             "Return the length in bytes of the tokens with ids below `count`, or 0 for special tokens and unused ids: "
             "[count], uint32.")
        .def_prop_ro("id_limit", &PythonEncoder::id_limit, "The highest id plus one, without special tokens.")
        .def("decode", &PythonEncoder::decode, nb::arg("ids"), nb::arg("errors"),
             "Return the text of a sequence of ids. `errors` says what to do with malformed UTF-8, as in "
             "`bytes.decode`.")
        .def("decode_bytes", &PythonEncoder::decode_bytes, nb::arg("ids"),
             "Return the joined bytes of a sequence of ids. Raises KeyError for an unused id.")
        .def("limit_cache", &PythonEncoder::limit_cache, nb::arg("bytes"),
             "Limit the memory of the pretoken caches of all threads, and clear the caches.")
        .def("pairs", &PythonEncoder::pairs,
             "Return the left, right and merged id of each pair that can merge, in merge order, as the bytes of "
             "uint32 numbers.")
        .def_prop_ro("longest_token", &PythonEncoder::longest_token, "The length of the longest token, in bytes.")
        .def_prop_ro("pair_count", &PythonEncoder::pair_count, "The number of pairs that can merge.")
        .def_prop_ro("unreachable_count", &PythonEncoder::unreachable_count,
                     "The number of tokens of more than one byte that no merges lead to.");
}

}  // namespace bpe
