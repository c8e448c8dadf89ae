// Writes the tokens and the merges of a byte-level vocabulary as a tokenizer.json lists them.

#include <array>
#include <charconv>

#include "bindings/encoder.hpp"
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

class JsonWriter {
 public:
    void add(std::string_view text) { text_.append(text.data(), text.size()); }
    void add(const nb::bytes& text) { text_.append(text.c_str(), text.size()); }

    void add_token(Bytes token) {
        text_.reserve(2 * token.size() + 2);
        char* to = text_.end();
        *to++ = '"';
        for (const std::uint8_t byte : token) {
            const WrittenByte& written = kWrittenBytes[byte];
            to[0] = written.text[0];
            to[1] = written.text[1];
            to += written.size;
        }
        *to++ = '"';
        text_.advance(static_cast<std::size_t>(to - text_.end()));
    }

    void add_number(Id number) {
        char digits[16];
        const auto [end, error] = std::to_chars(digits, digits + sizeof digits, number);
        add(std::string_view(digits, static_cast<std::size_t>(end - digits)));
    }

    nb::bytes content() const { return nb::bytes(text_.data(), text_.size()); }

 private:
    Buffer<char> text_;
};

nb::bytes render(const PythonEncoder& encoder, const nb::bytes& head, const nb::bytes& more, const nb::bytes& tail) {
    const Vocabulary& vocabulary = encoder.encoder().vocabulary();
    JsonWriter json;
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
    const std::vector<Id> pairs = vocabulary.pairs();
    for (std::size_t i = 0; i < pairs.size(); i += 3) {
        json.add(i ? ",\n      [\n        " : "\n      [\n        ");
        json.add_token(vocabulary.bytes_of(pairs[i]));
        json.add(",\n        ");
        json.add_token(vocabulary.bytes_of(pairs[i + 1]));
        json.add("\n      ]");
    }
    json.add(pairs.empty() ? "]" : "\n    ]");
    json.add(tail);
    return json.content();
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
