// The functions of the Python module about text: files, UTF-8, JSON, pretoken boundaries, rank files, documents.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "bindings/python.hpp"
#include "encode/ranks.hpp"
#include "encode/rows.hpp"
#include "split/cuts.hpp"
#include "text/documents.hpp"
#include "text/json_lines.hpp"
#include "text/unicode.hpp"
#include "text/utf8.hpp"

namespace bpe {

namespace {

// --- files ---

nb::object file_content(nb::object path) {
    PyObject* converted = nullptr;
    if (!PyUnicode_FSConverter(path.ptr(), &converted)) nb::raise_python_error();
    const nb::object name = nb::steal(converted);
    std::unique_ptr<FileContent> content;
    try {
        const ReleasedGil release;
        content = std::make_unique<FileContent>(bytes_data(name.ptr()));
    } catch (const std::system_error& error) {
        errno = error.code().value();
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path.ptr());
        nb::raise_python_error();
    }
    const Bytes bytes = content->bytes();
    nb::capsule owner(content.get(), [](void* held) noexcept { delete static_cast<FileContent*>(held); });
    content.release();
    return nb::cast(Array<const std::uint8_t>(bytes.data(), {bytes.size()}, owner));
}

nb::tuple parse_rank_file(nb::bytes text) {
    const Ranks ranks = parse_ranks(view_of(text));
    return nb::make_tuple(bytes_object(ranks.bytes), bytes_object(ranks.offsets), bytes_object(ranks.ids));
}

std::optional<std::pair<nb::list, std::size_t>> gguf_strings(nb::handle object, std::size_t at, std::size_t count) {
    const TextArgument text(object);
    const Bytes content = text.bytes();
    nb::list strings;
    for (; count > 0; --count) {
        std::uint64_t size = 0;
        if (at > content.size() || content.size() - at < sizeof size) return std::nullopt;
        std::memcpy(&size, content.data() + at, sizeof size);
        at += sizeof size;
        if (size > content.size() - at) return std::nullopt;
        const char* begin = reinterpret_cast<const char*>(content.data() + at);
        const nb::object string = nb::steal(PyUnicode_DecodeUTF8(begin, static_cast<Py_ssize_t>(size), "replace"));
        if (!string.is_valid()) nb::raise_python_error();
        strings.append(string);
        at += size;
    }
    return std::pair(strings, at);
}

nb::list json_texts(nb::handle object, const std::string& key) {
    const TextArgument text(object);
    JsonTexts texts;
    {
        const ReleasedGil release;
        texts = texts_of_json_lines(text.bytes(), key);
    }
    nb::list result;
    for (const auto& line : texts.lines) {
        if (line) {
            result.append(bytes_object(*line));
        } else {
            result.append(nb::none());
        }
    }
    return result;
}

// --- UTF-8 ---

std::size_t first_invalid(nb::handle object, bool plain) {
    const TextArgument text(object);
    if (text.bytes().size() <= kMostBytesWithGil) return invalid_utf8(text.bytes(), 0, plain);
    const ReleasedGil release;
    return invalid_utf8(text.bytes(), 0, plain);
}

nb::tuple replaced_invalid(nb::handle object, nb::bytes replacement) {
    const TextArgument text(object);
    ReplacedText replaced;
    {
        const ReleasedGil release;
        replaced = replace_invalid_utf8(text.bytes(), view_of(replacement));
    }
    return nb::make_tuple(bytes_object(replaced.bytes), replaced.count);
}

std::uint32_t checked_classes_of(std::uint32_t code_point) {
    if (code_point >= 0x110000) throw std::invalid_argument("a code point must be below 0x110000");
    return classes_of(code_point);
}

// --- ids as text ---

// Returns ids, which are little-endian integers of 32 bits, as decimal numbers with a separator between them.
nb::bytes decimals(nb::bytes packed, nb::bytes separator) {
    const Bytes ids = view_of(packed);
    const std::size_t count = ids.size() / sizeof(Id);
    const Bytes between = view_of(separator);
    constexpr std::size_t kDigits = 10;
    Buffer<std::uint8_t> text;
    {
        const ReleasedGil release;
        text.reserve(count * (kDigits + between.size()));
        char* const begin = reinterpret_cast<char*>(text.end());
        char* out = begin;
        for (std::size_t i = 0; i < count; ++i) {
            Id id;
            std::memcpy(&id, ids.data() + i * sizeof(Id), sizeof(Id));
            if constexpr (std::endian::native == std::endian::big) id = __builtin_bswap32(id);
            if (i) out = std::copy(between.begin(), between.end(), out);
            out = std::to_chars(out, out + kDigits, id).ptr;
        }
        text.advance(static_cast<std::size_t>(out - begin));
    }
    return bytes_object(std::span<const std::uint8_t>(text.data(), text.size()));
}

// --- pretoken boundaries ---

nb::list kernel_names() {
    nb::list names;
    for (const Kernel& kernel : kernels()) names.append(kernel.name);
    return names;
}

std::string chosen_kernel_name() { return chosen_kernel().name; }

Array<std::uint64_t> pretoken_ends(int pattern, nb::handle object, const std::string& kernel) {
    const TextArgument text(object);
    const Bytes bytes = text.bytes();
    const auto chosen = pattern_of(pattern);
    std::vector<std::uint64_t> ends(bytes.size() + 64);
    const std::size_t count =
        kernel_named(kernel).scan(chosen, bytes.data(), 0, bytes.size(), ends.data(), ends.size());
    return copied_array(std::span<const std::uint64_t>(ends).first(count));
}

// --- documents ---

// The arrays come from malloc: fresh pages take longer than the copying.
template <class T>
nb::tuple take_documents_as(const DocumentRows& documents) {
    const Array<T> ids = malloc_array<T>(documents.size());
    const Array<std::int64_t> offsets = malloc_array<std::int64_t>(documents.rows.size() + 1);
    {
        const ReleasedGil release;
        documents.copy(ids.data(), offsets.data());
    }
    return nb::make_tuple(ids, offsets);
}

nb::tuple take_documents(const InputArray<Id>& ids, const InputArray<std::int64_t>& offsets,
                         const InputArray<std::int64_t>& rows, std::optional<Id> begin, std::optional<Id> end,
                         bool short_ids) {
    const DocumentRows documents{span_of(ids), span_of(offsets), span_of(rows), begin, end};
    return short_ids ? take_documents_as<std::uint16_t>(documents) : take_documents_as<Id>(documents);
}

void register_files(nb::module_& module) {
    module.def("file_content", &file_content, nb::arg("path"),
               "Return the content of a file as a read-only array of bytes, which maps large files into memory.");
    module.def("json_texts", &json_texts, nb::arg("lines"), nb::arg("key"),
               "Return the string under a key of each line of JSON, as UTF-8, or None for the lines that need a full "
               "parser.");
    module.def("parse_ranks", &parse_rank_file, nb::arg("text"),
               "Parse a tiktoken rank file. Return the joined tokens, where each token begins and the last ends (bytes "
               "of uint64), and the ranks (bytes of uint32).");
    module.def("strings", &gguf_strings, nb::arg("content"), nb::arg("at"), nb::arg("count"),
               "Return `count` strings of a GGUF file, each preceded by its length as uint64, and where they end; or "
               "None if they extend past the content.");
    module.def("take_documents", &take_documents, nb::arg("ids"), nb::arg("offsets"), nb::arg("rows"),
               nb::arg("begin").none(), nb::arg("end").none(), nb::arg("short_ids"),
               R"(Copy some documents, each framed by a begin and an end id.

Args:
    ids: The ids of all documents, joined. [tokens], uint32
    offsets: Where each document begins, and the end of the last. [documents + 1], int64
    rows: The numbers of the documents to copy, in order. int64
    begin: The id to put before each document, or None.
    end: The id to put after each document, or None.
    short_ids: Whether the copied ids are uint16 instead of uint32. Larger ids are truncated.

Returns:
    The ids and the offsets of the copied documents.)");
}

void register_utf8(nb::module_& module) {
    module.def("invalid_utf8", &first_invalid, nb::arg("text"), nb::arg("plain") = false,
               "Return where the first malformed UTF-8 sequence begins, in bytes, or the text's size if there is none. "
               "With `plain`, use only portable code, for tests.");
    module.def("replace_invalid_utf8", &replaced_invalid, nb::arg("text"), nb::arg("replacement"),
               "Return the text with each malformed UTF-8 sequence replaced, and the number of replacements.");
    module.def(
        "unfinished_character", [](nb::handle text) { return unfinished_character(TextArgument(text).bytes()); },
        nb::arg("text"), "Return how many bytes at the end begin a character that more bytes may complete: 0 to 3.");
    module.def("classes_of", &checked_classes_of, nb::arg("code_point"),
               "Return the character classes of a code point, as bits.");
}

}  // namespace

void register_text(nb::module_& module) {
    module.def(
        "decimals", &decimals, nb::arg("ids"), nb::arg("separator"),
        "Return ids, given as little-endian integers of 32 bits, as decimal numbers with a separator between them.");
    module.def("kernels", &kernel_names, "Return the names of the kernels that this machine can run, the best first.");
    module.def(
        "chosen_kernel", &chosen_kernel_name,
        "Return the name of the kernel that runs: that of the environment variable BPE_KERNEL, or the best. Raise "
        "InputError if this machine cannot run it.");
    module.def("scan", &pretoken_ends, nb::arg("pattern"), nb::arg("text"), nb::arg("kernel") = "",
               "Return the end of each pretoken, in bytes: [pretokens], uint64.");
    register_files(module);
    register_utf8(module);
}

}  // namespace bpe
