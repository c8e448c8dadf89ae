// Writes the tokens and the merges of a byte-level vocabulary as a tokenizer.json lists them.

#include <array>
#include <charconv>
#include <cstring>

#include "bindings/encoder.hpp"
#include "bindings/limited.hpp"
#include "text/byte_characters.hpp"

namespace bpe {

namespace {

// What stands for a byte between the quotes of a JSON string.
struct WrittenByte {
    char text[2];
    std::uint8_t size;
};

constexpr std::array<WrittenByte, 256> kWrittenBytes = [] {
    std::array<WrittenByte, 256> written{};
    for (std::size_t byte = 0; byte < 256; ++byte) {
        const std::uint32_t character = kByteCharacters[byte];
        if (character == '"' || character == '\\') {
            written[byte] = {{'\\', static_cast<char>(character)}, 2};
        } else if (character < 0x80) {
            written[byte] = {{static_cast<char>(character), 0}, 1};
        } else {
            written[byte] = {{static_cast<char>(0xC0 | character >> 6), static_cast<char>(0x80 | (character & 0x3F))},
                             2};
        }
    }
    return written;
}();

// Writes to a bytes object that has room for all: what is not written to takes no memory until it is cut off.
class JsonWriter {
 public:
    explicit JsonWriter(std::size_t room)
        : object_(nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(room)))) {
        if (!object_.is_valid()) nb::raise_python_error();
        end_ = begin_ = PyBytes_AsString(object_.ptr());
    }

    void add(std::string_view text) {
        std::memcpy(end_, text.data(), text.size());
        end_ += text.size();
    }
    void add(const nb::bytes& text) { add(std::string_view(text.c_str(), text.size())); }

    // Takes two bytes for each byte of the token, and two more, at most.
    void add_token(Bytes token) {
        char* to = end_;
        *to++ = '"';
        for (const std::uint8_t byte : token) {
            const WrittenByte& written = kWrittenBytes[byte];
            to[0] = written.text[0];
            to[1] = written.text[1];
            to += written.size;
        }
        *to++ = '"';
        end_ = to;
    }

    void add_number(Id number) {
        char digits[16];
        const auto [end, error] = std::to_chars(digits, digits + sizeof digits, number);
        add(std::string_view(digits, static_cast<std::size_t>(end - digits)));
    }

    nb::object take() {
        PyObject* const object = first_bytes(object_.release().ptr(), end_ - begin_);
        if (!object) nb::raise_python_error();
        return nb::steal(object);
    }

 private:
    nb::object object_;
    char* begin_;
    char* end_;
};

nb::object render(const PythonEncoder& encoder, const nb::bytes& head, const nb::bytes& more, const nb::bytes& tail) {
    constexpr std::size_t kMostBeside = 64;  // bytes of a line beside its tokens
    const Vocabulary& vocabulary = encoder.encoder().vocabulary();
    const std::vector<Id> pairs = vocabulary.pairs();
    std::size_t room = head.size() + more.size() + tail.size() + kMostBeside;
    for (Id id = 0; id < vocabulary.id_limit(); ++id) room += 2 * vocabulary.bytes_of(id).size() + kMostBeside;
    for (std::size_t i = 0; i < pairs.size(); i += 3)
        room += 2 * vocabulary.bytes_of(pairs[i + 2]).size() + kMostBeside;

    JsonWriter json(room);
    json.add(head);
    json.add("{");
    std::string_view separator = "\n      ";
    for (Id id = 0; id < vocabulary.id_limit(); ++id) {
        const Bytes token = vocabulary.bytes_of(id);
        if (token.empty()) continue;
        json.add(separator);
        separator = ",\n      ";
        json.add_token(token);
        json.add(": ");
        json.add_number(id);
    }
    json.add(more);
    json.add("\n    },\n    \"merges\": [");
    separator = "\n      [\n        ";
    for (std::size_t i = 0; i < pairs.size(); i += 3) {
        json.add(separator);
        separator = ",\n      [\n        ";
        json.add_token(vocabulary.bytes_of(pairs[i]));
        json.add(",\n        ");
        json.add_token(vocabulary.bytes_of(pairs[i + 1]));
        json.add("\n      ]");
    }
    json.add(pairs.empty() ? "]" : "\n    ]");
    json.add(tail);
    return json.take();
}

}  // namespace

void register_byte_level(nb::module_& module) {
    module.def("render_byte_level", &render, nb::arg("encoder"), nb::arg("head"), nb::arg("more"), nb::arg("tail"),
               R"(Write the tokens and the merges of a vocabulary as a tokenizer.json lists them.

Args:
    encoder: The encoder of the vocabulary, which has a token at least.
    head: The file up to the value of "vocab", which is followed by "merges".
    more: Further lines of "vocab", each with a comma and a line end in front.
    tail: The file after the value of "merges".

Returns:
    The content of the file.)");
}

}  // namespace bpe
