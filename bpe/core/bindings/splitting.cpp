// The Splitter class of the Python module.

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/errors.hpp"
#include "bindings/programs.hpp"
#include "bindings/python.hpp"
#include "split/scanned_splitter.hpp"
#include "split/splitter.hpp"
#include "split/step_splitter.hpp"

namespace bpe {

namespace {

std::shared_ptr<Splitter> scanned(int pattern, const std::string& kernel) {
    return std::make_shared<ScannedSplitter>(pattern_of(pattern), kernel_named(kernel));
}

constexpr std::array kBehaviors{"isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"};
constexpr std::array kPrepends{"first", "never", "always"};
constexpr std::array kStarts{"text", "part", "inside"};

// Returns the value whose name is in a list of names, in the order of an enum.
template <class Enum, std::size_t kCount>
Enum named(const std::array<const char*, kCount>& names, const std::string& name) {
    for (std::size_t i = 0; i < kCount; ++i) {
        if (names[i] == name) return static_cast<Enum>(i);
    }
    throw InputError("splitting has no setting named " + name);
}

SplitStep split_step(nb::tuple step, bool plain) {
    if (step.size() != 5)
        throw InputError("a split step has sets, instructions, a behavior and whether it is inverted");
    return {std::make_shared<const SplitMatcher>(program_of(step), plain),
            named<Behavior>(kBehaviors, nb::cast<std::string>(step[3])), nb::cast<bool>(step[4])};
}

MetaspaceStep metaspace_step(nb::tuple step) {
    if (step.size() != 4) throw InputError("a metaspace step has a replacement, a scheme and whether it splits");
    const auto replacement = nb::cast<std::string>(step[1]);
    const Bytes bytes(reinterpret_cast<const std::uint8_t*>(replacement.data()), replacement.size());
    if (bytes.empty() || read_code_point(bytes.data(), 0, bytes.size()).length != bytes.size()) {
        throw InputError("the replacement of spaces must be one character");
    }
    return {{bytes.begin(), bytes.end()},
            named<MetaspaceStep::Prepend>(kPrepends, nb::cast<std::string>(step[2])),
            nb::cast<bool>(step[3])};
}

AnyStep step_of(nb::handle object, bool plain) {
    const auto step = nb::cast<nb::tuple>(object);
    const std::string kind = step.size() ? nb::cast<std::string>(step[0]) : "";
    if (kind == "split") return split_step(step, plain);
    if (kind == "prefix_space" && step.size() == 1) return PrefixSpaceStep{};
    if (kind == "to_byte_characters" && step.size() == 1) return ToByteCharactersStep{};
    if (kind == "from_byte_characters" && step.size() == 1) return FromByteCharactersStep{};
    if (kind == "metaspace") return metaspace_step(step);
    throw InputError("splitting has no step named " + kind);
}

std::vector<AnyStep> steps_of(nb::handle objects, bool plain) {
    std::vector<AnyStep> steps;
    for (nb::handle object : nb::iter(objects)) steps.push_back(step_of(object, plain));
    return steps;
}

std::shared_ptr<Splitter> stepped(nb::handle steps, bool plain) {
    return std::make_shared<StepSplitter>(steps_of(steps, plain));
}

// The pretokens of a text, joined; where each ends; and where it begins and ends in the text.
struct AllPretokens {
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint64_t> ends;
    std::vector<Range> places;
    std::uint64_t steps = 0;
};

AllPretokens all_pretokens(const Splitter& splitter, Bytes text, Start start, bool wants_places) {
    AllPretokens all;
    SplitRoom room;
    room.wants_origins = wants_places;
    for (std::size_t position = 0; position < text.size();) {
        const Pretokens found = splitter.next(text, position, start, room);
        std::uint64_t begin = 0;
        for (const std::uint64_t end : found.ends) {
            if (wants_places) all.places.push_back({room.origins[begin].begin, room.origins[end - 1].end});
            all.ends.push_back(all.bytes.size() + end);
            begin = end;
        }
        all.bytes.insert(all.bytes.end(), found.text.begin(), found.text.begin() + static_cast<std::ptrdiff_t>(begin));
        position = found.next;
    }
    if (const auto* stepped = dynamic_cast<const StepSplitter*>(&splitter)) all.steps = stepped->steps_made(room);
    return all;
}

AllPretokens all_pretokens(const Splitter& splitter, nb::handle object, const std::string& start, bool wants_places) {
    const TextArgument text(object);
    const auto from = named<Start>(kStarts, start);
    if (text.bytes().size() <= kMostBytesWithGil) return all_pretokens(splitter, text.bytes(), from, wants_places);
    const ReleasedGil release;
    return all_pretokens(splitter, text.bytes(), from, wants_places);
}

nb::list split(const Splitter& splitter, nb::handle object, const std::string& start) {
    const AllPretokens all = all_pretokens(splitter, object, start, false);
    nb::list list;
    std::uint64_t begin = 0;
    for (const std::uint64_t end : all.ends) {
        list.append(bytes_object(Bytes(all.bytes).subspan(begin, end - begin)));
        begin = end;
    }
    return list;
}

nb::list places(const Splitter& splitter, nb::handle object, const std::string& start) {
    nb::list list;
    for (const Range& place : all_pretokens(splitter, object, start, true).places) {
        list.append(nb::make_tuple(place.begin, place.end));
    }
    return list;
}

bool keeps(const Splitter& splitter, nb::handle object) {
    const TextArgument argument(object);
    const Bytes text = argument.bytes();
    SplitRoom room;
    bool found = false;
    for (std::size_t position = 0; position < text.size();) {
        const Pretokens pretokens = splitter.next(text, position, Start::kInside, room);
        if (pretokens.ends.size() + found > 1) return false;
        if (!pretokens.ends.empty()) {
            if (!std::ranges::equal(pretokens.text.first(pretokens.ends[0]), text)) return false;
            found = true;
        }
        position = pretokens.next;
    }
    return found;
}

Array<std::uint64_t> ends(const Splitter& splitter, nb::handle object) {
    return copied_array(all_pretokens(splitter, object, "text", false).ends);
}

std::uint64_t steps_made(const Splitter& splitter, nb::handle object) {
    return all_pretokens(splitter, object, "text", false).steps;
}

nb::list cuts(const Splitter& splitter, nb::handle object) {
    const TextArgument text(object);
    const Bytes bytes = text.bytes();
    nb::list list;
    for (std::size_t at = splitter.next_cut(bytes, 0); at < bytes.size(); at = splitter.next_cut(bytes, at + 1)) {
        list.append(at);
    }
    return list;
}

}  // namespace

void register_splitting(nb::module_& module) {
    nb::class_<Splitter>(module, "Splitter", "Splits a text into pretokens.")
        .def_static("scanned", &scanned, nb::arg("pattern"), nb::arg("kernel") = "",
                    "Return the splitter of a known pattern, given by the number of its scanner.")
        .def_static("stepped", &stepped, nb::arg("steps"), nb::arg("plain") = false,
                    R"(Return a splitter that makes steps, one after the other.

Args:
    steps: Tuples that begin with a name: ("split", sets, instructions, behavior, invert), ("prefix_space",),
        ("metaspace", replacement, prepend_scheme, split), ("to_byte_characters",) or ("from_byte_characters",). See
        bpe/splitting/steps.py and bpe/splitting/program.py.
    plain: Whether to use the backtracker only, for tests.

Raises:
    InputError: When a program is not valid.)")
        .def("split", &split, nb::arg("text"), nb::arg("start") = "text",
             "Return the pretokens of a text. `start` says what stands before it: nothing (text), an added token "
             "(part), or the rest of the text that it was cut from (inside).")
        .def("places", &places, nb::arg("text"), nb::arg("start") = "text",
             "Return where the parts of the text that the pretokens stand for begin and end, in bytes.")
        .def("ends", &ends, nb::arg("text"),
             "Return where each pretoken ends among the joined pretokens: [pretokens], uint64.")
        .def("steps_made", &steps_made, nb::arg("text"),
             "Return how many steps the matchers make to split a text. For tests of linear time.")
        .def("keeps", &keeps, nb::arg("text"),
             "Return whether a text, within a longer one, can be one pretoken without any change.")
        .def_prop_ro("keeps_text", &Splitter::keeps_text, "Whether the pretokens of a text join up to the text.")
        .def_prop_ro("depends_on_start", &Splitter::depends_on_start,
                     "Whether the pretokens of a text depend on what is before it.")
        .def("cuts", &cuts, nb::arg("text"),
             "Return all places where the text can safely be cut, in bytes: its pretokens are those of the parts. For "
             "tests.");
}

}  // namespace bpe
