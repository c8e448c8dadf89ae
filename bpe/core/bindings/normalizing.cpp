// The Normalizer class of the Python module.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <functional>
#include <string>
#include <unordered_map>
#include <utility>

#include "bindings/programs.hpp"
#include "bindings/python.hpp"
#include "split/replace_matches.hpp"
#include "text/normalizer.hpp"

namespace bpe {

namespace {

Bytes bytes_at(const nb::tuple& step, std::size_t at) { return view_of(nb::cast<nb::bytes>(step[at])); }

Step replace_matches(const nb::tuple& step) {
    return replace_matches_step(std::make_shared<const SplitMatcher>(program_of(step)), bytes_at(step, 3));
}

// The steps by the first item of their tuple. The other items are their settings.
const std::unordered_map<std::string, std::function<Step(const nb::tuple&)>> kSteps = {
    {"nfd", [](const nb::tuple&) { return form_step(Form::kNfd); }},
    {"nfkd", [](const nb::tuple&) { return form_step(Form::kNfkd); }},
    {"nfc", [](const nb::tuple&) { return form_step(Form::kNfc); }},
    {"nfkc", [](const nb::tuple&) { return form_step(Form::kNfkc); }},
    {"lowercase", [](const nb::tuple&) { return lowercase_step(); }},
    {"strip_accents", [](const nb::tuple&) { return strip_accents_step(); }},
    {"strip", [](const nb::tuple& step) { return strip_step(nb::cast<bool>(step[1]), nb::cast<bool>(step[2])); }},
    {"nmt", [](const nb::tuple&) { return nmt_step(); }},
    {"bert_clean", [](const nb::tuple&) { return bert_clean_step(); }},
    {"bert_chinese", [](const nb::tuple&) { return bert_chinese_step(); }},
    {"bert_accents", [](const nb::tuple&) { return bert_accents_step(); }},
    {"byte_level", [](const nb::tuple&) { return byte_level_step(); }},
    {"precompiled", [](const nb::tuple& step) { return precompiled_step(bytes_at(step, 1)); }},
    {"replace", [](const nb::tuple& step) { return replace_step(bytes_at(step, 1), bytes_at(step, 2)); }},
    {"replace_matches", replace_matches},
    {"prepend", [](const nb::tuple& step) { return prepend_step(bytes_at(step, 1)); }},
};

std::vector<Step> steps_from(nb::handle objects) {
    std::vector<Step> steps;
    for (nb::handle object : nb::iter(objects)) {
        const nb::tuple step = nb::cast<nb::tuple>(object);
        const auto found = kSteps.find(nb::cast<std::string>(step[0]));
        if (found == kSteps.end()) throw std::invalid_argument("there is no such step of a normalizer");
        steps.push_back(found->second(step));
    }
    return steps;
}

// Calls `use` without the GIL, unless the text is short.
template <class Use>
auto without_gil(Bytes text, const Use& use) {
    if (text.size() <= kMostBytesWithGil) return use();
    const ReleasedGil release;
    return use();
}

nb::bytes normalized(const Normalizer& normalizer, nb::handle object, bool at_start) {
    const TextArgument text(object);
    NormalRoom room;
    return bytes_object(without_gil(text.bytes(), [&] { return normalizer.apply(text.bytes(), at_start, room); }));
}

nb::tuple normalized_with_origins(const Normalizer& normalizer, nb::handle object, bool at_start) {
    const TextArgument text(object);
    NormalRoom room;
    const NormalizedText result =
        without_gil(text.bytes(), [&] { return normalizer.apply_with_origins(text.bytes(), at_start, room); });
    if (result.origins.empty() && !result.text.empty()) return nb::make_tuple(bytes_object(result.text), nb::none());
    std::vector<std::uint64_t> origins;
    for (const Range origin : result.origins) origins.insert(origins.end(), {origin.begin, origin.end});
    return nb::make_tuple(bytes_object(result.text), copied_array(origins));
}

nb::list normalizer_cuts(const Normalizer& normalizer, nb::handle object) {
    const TextArgument text(object);
    nb::list cuts;
    for (std::size_t at = normalizer.next_cut(text.bytes(), 0); at < text.bytes().size();
         at = normalizer.next_cut(text.bytes(), at + 1)) {
        cuts.append(at);
    }
    return cuts;
}

}  // namespace

void register_normalizing(nb::module_& module) {
    nb::class_<Normalizer>(module, "Normalizer", "Changes a text before it is split.")
        .def(
            "__init__", [](Normalizer* self, nb::handle steps) { new (self) Normalizer(steps_from(steps)); },
            nb::arg("steps"),
            R"(Create a normalizer from its steps, in order.

Args:
    steps: For each step a tuple of its name and its settings; see `bpe.normalizers`.)")
        .def("apply", &normalized, nb::arg("text"), nb::arg("at_start") = true,
             "Return the normalized text as UTF-8. `at_start` is False for a text that continues another.")
        .def("apply_with_origins", &normalized_with_origins, nb::arg("text"), nb::arg("at_start") = true,
             "Return the normalized text, and for each of its bytes the begin and end of what it stands for in the "
             "text: [bytes * 2], uint64, or None if the text is unchanged.")
        .def("cuts", &normalizer_cuts, nb::arg("text"),
             "Return all places where the text can safely be cut, in bytes: it is normalized as its parts are. For "
             "tests.");
}

}  // namespace bpe
