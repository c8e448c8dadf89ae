// The classes SpecialTokens and AddedTokens of the Python module.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <utility>

#include "bindings/ids.hpp"
#include "bindings/python.hpp"
#include "encode/added.hpp"
#include "encode/special.hpp"
#include "text/documents.hpp"

namespace bpe {

namespace {

std::shared_ptr<SpecialTokens> make_special_tokens(nb::dict tokens) {
    std::vector<std::string> strings;
    std::vector<Id> ids;
    for (auto [token, id] : tokens) {
        strings.push_back(to_string(TextArgument(token).bytes()));
        ids.push_back(id_from(id.ptr()));
    }
    return std::make_shared<SpecialTokens>(std::move(strings), ids);
}

std::optional<std::string> first_in(const SpecialTokens& special, Bytes text) {
    const SpecialTokens::Match match = special.find(text, 0);
    if (match.begin == text.size()) return std::nullopt;
    return to_string(text.subspan(match.begin, match.end - match.begin));
}

nb::list all_in(const SpecialTokens& special, nb::handle object) {
    const TextArgument text(object);
    nb::list found;
    for (std::size_t begin = 0;;) {
        const SpecialTokens::Match match = special.find(text.bytes(), begin);
        if (match.begin == text.bytes().size()) return found;
        found.append(nb::make_tuple(match.begin, match.end, match.id));
        begin = match.end;
    }
}

// Each token is (content, id, lstrip, rstrip, single_word, late, skipped).
std::shared_ptr<AddedTokens> make_added_tokens(nb::iterable tokens, bool normalizes) {
    std::vector<AddedToken> made;
    for (nb::handle object : tokens) {
        const nb::tuple token = nb::cast<nb::tuple>(object);
        made.push_back({to_string(TextArgument(token[0]).bytes()), id_from(nb::object(token[1]).ptr()),
                        nb::cast<bool>(token[2]), nb::cast<bool>(token[3]), nb::cast<bool>(token[4]),
                        nb::cast<bool>(token[5]), nb::cast<bool>(token[6])});
    }
    return std::make_shared<AddedTokens>(std::move(made), normalizes);
}

nb::list all_added_in(const AddedTokens& added, nb::handle object) {
    const TextArgument text(object);
    nb::list found;
    added.split(
        text.bytes(), [](std::size_t, std::size_t) {},
        [&](AddedTokens::Match match) { found.append(nb::make_tuple(match.begin, match.end, match.id)); });
    return found;
}

std::optional<std::pair<std::size_t, std::string>> first_of(const SpecialTokens& special, nb::handle objects,
                                                            const std::optional<std::string>& separator) {
    const TextArguments texts(objects);
    const ReleasedGil release;
    std::vector<Bytes> documents;
    for (std::size_t i = 0; i < texts.spans.size(); ++i) {
        documents.assign(1, texts.spans[i]);
        if (separator) {
            documents.clear();
            split_documents(texts.spans[i], *separator, documents);
        }
        for (const Bytes text : documents) {
            if (auto token = first_in(special, text)) return std::pair(i, std::move(*token));
        }
    }
    return std::nullopt;
}

}  // namespace

void register_special_tokens(nb::module_& module) {
    nb::class_<SpecialTokens>(module, "SpecialTokens", "Finds special tokens in texts; made from the id of each token.")
        .def(nb::new_(&make_special_tokens), nb::arg("tokens"))
        .def(
            "first_in",
            [](const SpecialTokens& self, nb::handle text) { return first_in(self, TextArgument(text).bytes()); },
            nb::arg("text").none(), "Return the first special token in a text, or None.")
        .def("all_in", &all_in, nb::arg("text").none(),
             "Return the place of each special token in a text, in bytes: (begin, end, id).")
        .def("first_of", &first_of, nb::arg("texts"), nb::arg("separator").none(),
             "Return the index of the first text with a special token in one of its documents, and the token; or None. "
             "The separator splits texts into documents and is not searched.");

    nb::class_<AddedTokens>(
        module, "AddedTokens",
        "Splits texts at added tokens; made from the content, the id, lstrip, rstrip, single_word, "
        "late and skipped of each token. Late tokens are searched for in what the others leave. "
        "Skipped tokens stay text, but hide the tokens that overlap them. `normalizes` says whether "
        "the text is normalized before the late tokens are searched for.")
        .def(nb::new_(&make_added_tokens), nb::arg("tokens"), nb::arg("normalizes") = false)
        .def("all_in", &all_added_in, nb::arg("text").none(),
             "Return the place of each added token in a text, with the white space that belongs to it, in bytes: "
             "(begin, end, id).");
}

}  // namespace bpe
