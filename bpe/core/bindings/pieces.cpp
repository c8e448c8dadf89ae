// The Pieces class of the Python module, and the splitter for it.

#include "encode/pieces.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <stdexcept>

#include "bindings/ids.hpp"
#include "bindings/python.hpp"
#include "encode/piece_splitter.hpp"
#include "text/character_map.hpp"

namespace bpe {

namespace {

Unknown unknown_named(const std::string& name) {
    if (name == "dropped") return Unknown::kDropped;
    if (name == "each") return Unknown::kEach;
    if (name == "fused") return Unknown::kFused;
    throw std::invalid_argument("unknown characters are dropped, each or fused, not " + name);
}

std::shared_ptr<Pieces> pieces_from_scores(nb::bytes pieces, const InputArray<std::uint64_t>& offsets,
                                           const InputArray<float>& scores, nb::bytes types, bool byte_fallback) {
    const Bytes bytes = view_of(pieces);
    const Bytes kinds = view_of(types);
    const nb::gil_scoped_release release;
    return std::make_shared<Pieces>(
        Pieces::from_scores(bytes, span_of(offsets), span_of(scores), kinds, byte_fallback));
}

std::shared_ptr<Pieces> pieces_from_merges(nb::bytes tokens, const InputArray<std::uint64_t>& offsets,
                                           const InputArray<Id>& ids, const InputArray<Id>& merges, bool byte_fallback,
                                           std::optional<std::size_t> unknown, const std::string& how, bool takes_whole,
                                           bool stands_for_bytes) {
    const Bytes bytes = view_of(tokens);
    const Pieces::Options options{byte_fallback, unknown.value_or(kNoId), unknown_named(how), takes_whole,
                                  stands_for_bytes};
    const nb::gil_scoped_release release;
    return std::make_shared<Pieces>(
        Pieces::from_merges(bytes, span_of(offsets), span_of(ids), span_of(merges), options));
}

template <std::size_t (Pieces::*method)(Bytes, Pieces::Room&, Id*) const>
nb::list piece_ids(const Pieces& pieces, nb::handle object) {
    const TextArgument text(object);
    std::vector<Id> ids(text.bytes().size());
    Pieces::Room room;
    ids.resize((pieces.*method)(text.bytes(), room, ids.data()));
    nb::list list;
    for (const Id id : ids) list.append(id);
    return list;
}

nb::list piece_cuts(const Pieces& pieces, nb::handle object) {
    const TextArgument text(object);
    nb::list list;
    if (text.bytes().empty()) return list;
    std::vector<std::uint64_t> ends(text.bytes().size() + 1);
    const std::size_t count = pieces.cut(text.bytes(), ends.data(), ends.size());
    for (std::size_t i = 0; i < count; ++i) list.append(ends[i]);
    return list;
}

std::shared_ptr<Splitter> piece_splitter(std::shared_ptr<const Pieces> pieces, nb::bytes map, bool add_dummy_prefix,
                                         bool remove_extra_whitespaces, bool escape_whitespaces,
                                         bool whitespace_as_suffix, bool prefix_unless_space, bool prefix_parts) {
    PieceSplitter::Settings settings;
    if (const Bytes content = view_of(map); !content.empty()) settings.map = CharacterMap(content);
    settings.add_dummy_prefix = add_dummy_prefix;
    settings.remove_extra_whitespaces = remove_extra_whitespaces;
    settings.escape_whitespaces = escape_whitespaces;
    settings.whitespace_as_suffix = whitespace_as_suffix;
    settings.prefix_unless_space = prefix_unless_space;
    settings.prefix_parts = prefix_parts;
    return std::make_shared<PieceSplitter>(std::move(settings), std::move(pieces));
}

}  // namespace

void register_pieces(nb::module_& module) {
    nb::class_<Pieces>(module, "Pieces", "The rules that merge characters, as in SentencePiece and tokenizers.")
        .def_static("from_scores", &pieces_from_scores, nb::arg("pieces"), nb::arg("offsets"), nb::arg("scores"),
                    nb::arg("types"), nb::arg("byte_fallback"),
                    "Build the rules of a SentencePiece model: the pieces, joined; where each begins, and the end: "
                    "[pieces + 1], uint64; the score of each, float32; the type of each, a byte.")
        .def_static(
            "from_merges", &pieces_from_merges, nb::arg("tokens"), nb::arg("offsets"), nb::arg("ids"),
            nb::arg("merges"), nb::arg("byte_fallback"), nb::arg("unknown").none(), nb::arg("how"),
            nb::arg("takes_whole") = false, nb::arg("stands_for_bytes") = false,
            "Build the rules of a tokenizer.json: the tokens, joined; where each begins, and the end: "
            "[tokens + 1], uint64; their ids; the number of the left, right and merged token of each merge; the "
            "number of the unknown token; whether unknown characters are dropped, each or fused; whether a text that "
            "is a token is taken whole; and whether each character stands for a byte, as with ByteLevel.")
        .def("encode", &piece_ids<&Pieces::encode>, nb::arg("text"), "Return the ids of a normalized text.")
        .def("encode_plain", &piece_ids<&Pieces::encode_plain>, nb::arg("text"),
             "Return the same ids as `encode` by the quadratic definition, for tests.")
        .def("cuts", &piece_cuts, nb::arg("text"),
             "Return where a normalized text can be cut without a change of its ids, and its end, in bytes.")
        .def(
            "merges", [](const Pieces& self) { return bytes_object(self.merges()); },
            "Return the left, right and merged number of each rule, in their order, as the bytes of uint32 numbers.");
    module.def("piece_splitter", &piece_splitter, nb::arg("pieces"), nb::arg("map"), nb::arg("add_dummy_prefix"),
               nb::arg("remove_extra_whitespaces"), nb::arg("escape_whitespaces"), nb::arg("whitespace_as_suffix"),
               nb::arg("prefix_unless_space") = false, nb::arg("prefix_parts") = true,
               "Return a splitter that normalizes text as SentencePiece does.");
}

}  // namespace bpe
