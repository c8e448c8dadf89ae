// The Splitter class of the Python module.

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>

#include "bindings/python.hpp"
#include "split/scanned_splitter.hpp"
#include "split/splitter.hpp"

namespace bpe {

namespace {

std::shared_ptr<Splitter> scanned(int pattern, const std::string& kernel) {
    return std::make_shared<ScannedSplitter>(pattern_of(pattern), kernel_named(kernel));
}

// Calls use(pretokens, room) for each batch of a text's pretokens.
template <class Use>
void for_each_batch(const Splitter& splitter, Bytes text, bool wants_origins, const Use& use) {
    SplitRoom room;
    room.wants_origins = wants_origins;
    for (std::size_t position = 0; position < text.size();) {
        const Pretokens pretokens = splitter.next(text, position, Start::kText, room);
        use(pretokens, room);
        position = pretokens.next;
    }
}

nb::list split(const Splitter& splitter, nb::handle object) {
    const TextArgument text(object);
    nb::list list;
    for_each_batch(splitter, text.bytes(), false, [&](const Pretokens& pretokens, const SplitRoom&) {
        std::uint64_t begin = 0;
        for (const std::uint64_t end : pretokens.ends) {
            list.append(bytes_object(pretokens.text.subspan(begin, end - begin)));
            begin = end;
        }
    });
    return list;
}

nb::list places(const Splitter& splitter, nb::handle object) {
    const TextArgument text(object);
    nb::list list;
    for_each_batch(splitter, text.bytes(), true, [&](const Pretokens& pretokens, const SplitRoom& room) {
        std::uint64_t begin = 0;
        for (const std::uint64_t end : pretokens.ends) {
            list.append(nb::make_tuple(room.origins[begin].begin, room.origins[end - 1].end));
            begin = end;
        }
    });
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
        .def_static("scanned", &scanned, nb::arg("pattern"), nb::arg("kernel") = kernels().front().name,
                    "Return the splitter of a known pattern, given by the number of its scanner.")
        .def("split", &split, nb::arg("text"), "Return the pretokens of a text.")
        .def("places", &places, nb::arg("text"), "Return where each pretoken begins and ends in the text, in bytes.")
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
